/* test_listeners.c - sockets to connect to: where they are, and what is left of them. */
#include "listening.h"

static void several_listeners_of_every_kind_serve_at_once(void)
{
    static const char *const hosts[] = {"127.0.0.1", "::1", "localhost", NULL};
    stdio_bus_listen_options_t options;
    stdio_bus_t *bus = start(CONFIG);
    for (size_t i = 0; i < SB_COUNT(hosts); i++) {
        options = tcp_options(hosts[i]);
        CHECK(stdio_bus_listen(bus, &options) == (int)i);
        CHECK(atoi(strrchr(address_of(bus, (int)i), ':') + 1) > 0); /* the system has chosen one */
        is_served(bus, connect_tcp(address_of(bus, (int)i)));
    }
    CHECK(strncmp(address_of(bus, 1), "[::1]:", 6) == 0);
    options = unix_options(socket_path());
    CHECK(stdio_bus_listen(bus, &options) == 4);
    is_served(bus, connect_unix(address_of(bus, 4)));
    CHECK(stdio_bus_listener_count(bus) == 5 && connects == 5);
    CHECK(warnings == 0); /* nobody but this machine can reach them */
    finish(bus);
    remove_folder();
}

static void a_connection_is_kept_alive_and_not_delayed(void)
{
    stdio_bus_t *bus = start(CONFIG);
    stdio_bus_listen_options_t options = tcp_options("127.0.0.1");
    int value = 0;
    socklen_t len = sizeof value;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    is_served(bus, connect_tcp(address_of(bus, 0)));
    CHECK(getsockopt(bus->clients->io.fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0 && value != 0);
    CHECK(getsockopt(bus->clients->io.fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len) == 0 && value != 0);
    finish(bus);
}

static void a_port_can_be_bound_again_at_once(void)
{
    stdio_bus_t *bus = start(CONFIG);
    stdio_bus_listen_options_t options = tcp_options("127.0.0.1");
    CHECK(stdio_bus_listen(bus, &options) == 0);
    options.tcp_port = (uint32_t)atoi(strrchr(address_of(bus, 0), ':') + 1);
    is_served(bus, connect_tcp(address_of(bus, 0))); /* closed by the bus first: its side is in TIME_WAIT */
    finish(bus);
    bus = start(CONFIG);
    CHECK(stdio_bus_listen(bus, &options) == 0);
    is_served(bus, connect_tcp(address_of(bus, 0)));
    finish(bus);
}

static void that_others_can_connect_without_a_token_is_warned_of_once(void)
{
    stdio_bus_t *bus = start(CONFIG);
    stdio_bus_listen_options_t options = tcp_options("0.0.0.0");
    options.token = "secret";
    options.token_len = 6;
    CHECK(stdio_bus_listen(bus, &options) == 0 && warnings == 0);
    options.token = NULL;
    options.token_len = 0;
    CHECK(stdio_bus_listen(bus, &options) == 1 && warnings == 1);
    CHECK(strncmp(warning, "tcp 0.0.0.0:", 12) == 0);
    CHECK(stdio_bus_listen(bus, &options) == 2 && warnings == 1);
    finish(bus);
}

/* ---- socket files --------------------------------------------------------------------------- */

static void a_socket_file_has_the_mode_and_group_it_should_whatever_the_umask_is(void)
{
    static const struct {
        mode_t umask;
        uint32_t asked;
        mode_t mode;
        bool group;
    } cases[] = {
        {0, 0, 0600, false},      {077, 0, 0600, false},   {077, 0666, 0666, false},
        {022, 0660, 0660, false}, {077, 0660, 0660, true}, {0, 0660, 0660, true},
    };
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        stdio_bus_t *bus = create(CONFIG);
        stdio_bus_listen_options_t options = unix_options(socket_path());
        struct stat info;
        options.unix_mode = cases[i].asked;
        if (cases[i].group && geteuid() == 0) {
            options.flags = STDIO_BUS_LISTEN_SET_GROUP;
            options.unix_group = NOBODY;
        }
        umask(cases[i].umask);
        CHECK(stdio_bus_listen(bus, &options) == 0);
        CHECK(umask(cases[i].umask) == cases[i].umask);
        CHECK(stat(socket_path(), &info) == 0 && S_ISSOCK(info.st_mode));
        CHECK((info.st_mode & 07777) == cases[i].mode);
        if (options.flags != 0) CHECK(info.st_gid == NOBODY);
        stdio_bus_destroy(bus);
    }
    remove_folder();
}

static void a_socket_file_that_cannot_have_its_group_is_removed_again(void)
{
    stdio_bus_t *bus = create(CONFIG);
    stdio_bus_listen_options_t options = unix_options(socket_path());
    struct stat info;
    char folder[64];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(socket_path(), '/') - socket_path()), socket_path());
    options.flags = STDIO_BUS_LISTEN_SET_GROUP;
    options.unix_group = NOBODY;
    /* Only root may give a file away. */
    if (geteuid() == 0) CHECK(chmod(folder, 0777) == 0 && setegid(1) == 0 && seteuid(1) == 0);
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(lstat(socket_path(), &info) != 0 && errno == ENOENT);
    if (geteuid() != getuid()) CHECK(seteuid(0) == 0);
    stdio_bus_destroy(bus);
    remove_folder();
}

static void leave_a_stale_socket(const char *path)
{
    struct sockaddr_un name = unix_name(path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof name) == 0);
    close(fd);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_in_use(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus = start(CONFIG), *second = create(CONFIG);
    leave_a_stale_socket(socket_path());
    CHECK(stdio_bus_listen(bus, &options) == 0);
    CHECK(stdio_bus_listen(second, &options) == STDIO_BUS_EINVAL);
    CHECK(strstr(error, socket_path()) != NULL && strstr(error, "in use") != NULL);
    is_served(bus, connect_unix(socket_path()));
    stdio_bus_destroy(second);
    is_served(bus, connect_unix(socket_path()));
    finish(bus);
    remove_folder();
}

static void what_is_no_socket_is_never_touched(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus = create(CONFIG);
    struct stat info;
    char target[80];
    int fd = open(socket_path(), O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, "data", 4) == 4);
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(strstr(error, "not a socket") != NULL);
    CHECK(stat(socket_path(), &info) == 0 && S_ISREG(info.st_mode) && info.st_size == 4);
    /* Nor is a link, even to a stale socket. */
    snprintf(target, sizeof target, "%s.target", socket_path());
    leave_a_stale_socket(target);
    CHECK(unlink(socket_path()) == 0 && symlink(target, socket_path()) == 0);
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(strstr(error, "not a socket") != NULL && stat(target, &info) == 0);
    CHECK(unlink(socket_path()) == 0 && unlink(target) == 0);
    stdio_bus_destroy(bus);
    close(fd);
    remove_folder();
}

static void a_path_that_is_too_long_is_refused_by_name(void)
{
    stdio_bus_t *bus = create(CONFIG);
    char path[200] = "/tmp/";
    stdio_bus_listen_options_t options = unix_options(path);
    memset(path + 5, 'x', 103); /* 108 bytes: no room for the NUL */
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(strstr(error, path) != NULL && strstr(error, "1 to 107 bytes") != NULL);
    path[107] = '\0';
    CHECK(stdio_bus_listen(bus, &options) == 0);
    stdio_bus_destroy(bus);
    CHECK(access(path, F_OK) != 0);
}

static void a_lock_file_that_is_a_link_or_held_is_refused(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus = create(CONFIG);
    struct stat info;
    char lock[80], target[80];
    int fd;
    snprintf(lock, sizeof lock, "%s.lock", socket_path());
    snprintf(target, sizeof target, "%s.target", socket_path());
    CHECK(symlink(target, lock) == 0);
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(access(target, F_OK) != 0); /* not created through the link */
    CHECK(lstat(lock, &info) == 0 && S_ISLNK(info.st_mode) && unlink(lock) == 0);

    fd = open(lock, O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(strstr(error, "another process is binding it") != NULL);
    close(fd);
    /* One that a bus that was killed has left is in nobody's way. */
    CHECK(stdio_bus_listen(bus, &options) == 0);
    CHECK(access(lock, F_OK) != 0);
    stdio_bus_destroy(bus);
    remove_folder();
}

static void a_socket_file_is_removed_at_the_end_only_if_it_is_still_the_same(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    for (int replaced = 0; replaced < 2; replaced++) {
        stdio_bus_t *bus = start(CONFIG);
        CHECK(stdio_bus_listen(bus, &options) == 0);
        CHECK(access(socket_path(), F_OK) == 0);
        if (replaced) {
            CHECK(unlink(socket_path()) == 0);
            leave_a_stale_socket(socket_path());
        }
        finish(bus);
        CHECK((access(socket_path(), F_OK) == 0) == replaced);
    }
    CHECK(unlink(socket_path()) == 0);
    remove_folder();
}

/* ---- what is taken over ------------------------------------------------------------------------------------------ */

static void a_bound_descriptor_becomes_a_listener_and_its_file_stays(void)
{
    struct sockaddr_un name = unix_name(socket_path());
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_FD};
    stdio_bus_t *bus = start(CONFIG);
    int local = socket(AF_UNIX, SOCK_STREAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0), closed = dup(0);
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(local, (struct sockaddr *)&name, sizeof name) == 0);
    CHECK(bind(tcp, (struct sockaddr *)&v4, sizeof v4) == 0 && listen(tcp, 5) == 0);
    options.fd = local;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    options.fd = tcp;
    CHECK(stdio_bus_listen(bus, &options) == 1);
    CHECK_STR(address_of(bus, 0), socket_path());
    is_served(bus, connect_unix(socket_path()));
    is_served(bus, connect_tcp(address_of(bus, 1)));
    CHECK(fcntl(local, F_GETFD) & FD_CLOEXEC);
    close(closed);
    options.fd = closed;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL && strstr(error, "Bad file descriptor") != NULL);
    finish(bus);
    CHECK(fcntl(local, F_GETFD) == -1 && fcntl(tcp, F_GETFD) == -1);
    CHECK(access(socket_path(), F_OK) == 0 && unlink(socket_path()) == 0);
    remove_folder();
}

static void a_pair_of_pipes_becomes_a_client(void)
{
    int in[2], out[2], in_copy = -1, out_copy = -1;
    stdio_bus_client_options_t options = {.size = sizeof options};
    stdio_bus_t *bus = start(CONFIG);
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    CHECK((in_copy = dup(in[0])) >= 0 && (out_copy = dup(out[1])) >= 0);
    options.pool = "none";
    CHECK(stdio_bus_adopt_client_with(bus, in[0], out[1], &options) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_adopt_client(bus, in[0], out[1]) > 0);
    CHECK(fcntl(in_copy, F_GETFL) & O_NONBLOCK);
    CHECK(write(in[1], "{\"id\":1,\"method\":\"m\"}\n", 22) == 22);
    CHECK(close(in[1]) == 0); /* the end of input; answers can still come */
    CHECK_STR(worker_reads(bus, to_worker), "{\"id\":1,\"method\":\"m\"}");
    worker_says("{\"id\":1,\"result\":true}\n");
    check_hears(bus, out[0], "{\"id\":1,\"result\":true}\n");
    STEP_UNTIL(bus, disconnects == 1);
    CHECK_STR(reason, "closed");
    /* Who else has these descriptors finds them as they were. */
    CHECK(!(fcntl(in_copy, F_GETFL) & O_NONBLOCK) && !(fcntl(out_copy, F_GETFL) & O_NONBLOCK));
    finish(bus);
}

static void a_pair_whose_reading_side_is_gone_is_closed(void)
{
    int in[2], out[2];
    stdio_bus_t *bus = start(CONFIG);
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    CHECK(stdio_bus_adopt_client(bus, in[0], out[1]) > 0);
    CHECK(write(in[1], "{\"id\":1,\"method\":\"m\"}\n", 22) == 22);
    worker_reads(bus, to_worker);
    CHECK(close(out[0]) == 0);
    STEP_UNTIL(bus, disconnects == 1);
    CHECK(stdio_bus_pending_count(bus) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(several_listeners_of_every_kind_serve_at_once),
    TEST(a_connection_is_kept_alive_and_not_delayed),
    TEST(a_port_can_be_bound_again_at_once),
    TEST(that_others_can_connect_without_a_token_is_warned_of_once),
    TEST(a_socket_file_has_the_mode_and_group_it_should_whatever_the_umask_is),
    TEST(a_socket_file_that_cannot_have_its_group_is_removed_again),
    TEST(a_stale_socket_is_replaced_and_a_live_one_is_in_use),
    TEST(what_is_no_socket_is_never_touched),
    TEST(a_path_that_is_too_long_is_refused_by_name),
    TEST(a_lock_file_that_is_a_link_or_held_is_refused),
    TEST(a_socket_file_is_removed_at_the_end_only_if_it_is_still_the_same),
    TEST(a_bound_descriptor_becomes_a_listener_and_its_file_stays),
    TEST(a_pair_of_pipes_becomes_a_client),
    TEST(a_pair_whose_reading_side_is_gone_is_closed),
};

TEST_MAIN(tests)
