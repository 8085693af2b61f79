/*
 * test_listeners.c - sockets to connect to: who may, where they are, what is
 * left of them, and how clients come and go. The test plays the worker.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/bus.h"
#include "test.h"

#define PLAYED(id) "{\"id\":\"" id "\",\"command\":\"true\",\"restart\":\"never\"}"
#define CONFIG "{\"pools\":[" PLAYED("p") "]}"
#define LIMITED(limits) "{\"pools\":[" PLAYED("p") "],\"limits\":{" limits "}}"
#define AUTH(token) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"" token "\"}}\n"
#define AUTH_OK "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":true}}\n"
#define NOBODY 65534

enum { BOUND_MS = 10000 };

static int connects, disconnects, warnings, messages;
static char reason[32], error[1024], warning[1024];
static int to_worker[2], from_worker[2];

static long now_ms(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    (void)msg;
    (void)len;
    (void)user_data;
    messages++;
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)code;
    (void)user_data;
    snprintf(error, sizeof error, "%s", message);
}

static void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    if (level != 2 || strstr(message, "worker") == message) return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

static void on_connect(stdio_bus_t *bus, int client, const char *peer, void *user_data)
{
    (void)bus;
    (void)client;
    (void)peer;
    (void)user_data;
    connects++;
}

static void on_disconnect(stdio_bus_t *bus, int client, const char *why, void *user_data)
{
    (void)bus;
    (void)client;
    (void)user_data;
    disconnects++;
    snprintf(reason, sizeof reason, "%s", why);
}

#define STEP_UNTIL(bus, condition) \
    do { \
        long deadline_ = now_ms() + BOUND_MS; \
        while (!(condition)) { \
            if (now_ms() >= deadline_) sb_test_fail(__FILE__, __LINE__, "in time: " #condition); \
            CHECK(stdio_bus_step(bus, 10) >= 0); \
        } \
    } while (0)

static stdio_bus_t *create(const char *config)
{
    stdio_bus_options_t options = {0};
    stdio_bus_t *bus;
    options.config_json = config;
    options.on_message = on_message;
    options.on_error = on_error;
    options.on_log = on_log;
    options.on_client_connect = on_connect;
    options.on_client_disconnect = on_disconnect;
    bus = stdio_bus_create(&options);
    CHECK(bus != NULL);
    return bus;
}

static void embed(stdio_bus_t *bus, const char *pool, int to[2], int from[2])
{
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    CHECK(stdio_bus_register_embedded_worker(bus, to[1], from[0], pool) >= 0);
}

/* A started bus whose one worker the test plays. */
static stdio_bus_t *start(const char *config)
{
    stdio_bus_t *bus = create(config);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    embed(bus, "p", to_worker, from_worker);
    return bus;
}

static void finish(stdio_bus_t *bus)
{
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

/* ---- listening ---------------------------------------------------------------------- */

static stdio_bus_listen_options_t tcp_options(const char *host)
{
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_TCP};
    options.tcp_host = host;
    return options;
}

static stdio_bus_listen_options_t unix_options(const char *path)
{
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_UNIX};
    options.unix_path = path;
    return options;
}

/* The address of a listener; static. */
static const char *address_of(stdio_bus_t *bus, int listener)
{
    static char address[256];
    CHECK(stdio_bus_listener_address(bus, listener, address, sizeof address) > 0);
    return address;
}

/* A path for a socket, in a folder of the test's own that anyone may look into. */
static const char *socket_path(void)
{
    static char path[64];
    if (path[0] == '\0') {
        char folder[32];
        snprintf(folder, sizeof folder, "/tmp/sb-listen-%d", (int)getpid());
        CHECK(mkdir(folder, 0700) == 0 && chmod(folder, 0755) == 0);
        snprintf(path, sizeof path, "%s/s", folder);
    }
    return path;
}

static void remove_folder(void)
{
    char path[80];
    strcpy(path, socket_path());
    *strrchr(path, '/') = '\0';
    CHECK(rmdir(path) == 0); /* so nothing is left in it */
}

static struct sockaddr_un unix_name(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    CHECK(strlen(path) < sizeof name.sun_path);
    strcpy(name.sun_path, path);
    return name;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un name = unix_name(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&name, sizeof name) == 0);
    return fd;
}

static int connect_tcp(const char *address)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    in_port_t port = htons((in_port_t)atoi(strrchr(address, ':') + 1));
    bool is_v6 = address[0] == '[';
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    v4.sin_port = v6.sin6_port = port;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v6.sin6_addr = in6addr_loopback;
    CHECK(fd >= 0);
    if (is_v6) CHECK(connect(fd, (struct sockaddr *)&v6, sizeof v6) == 0);
    else CHECK(connect(fd, (struct sockaddr *)&v4, sizeof v4) == 0);
    return fd;
}

static void says(int fd, const char *text)
{
    CHECK(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* What comes until `len` bytes are there, or the other side has closed. Static. */
static const char *hears(stdio_bus_t *bus, int fd, size_t len)
{
    static char got[8192];
    size_t have = 0;
    long deadline = now_ms() + BOUND_MS;
    while (have < len) {
        struct pollfd wait = {fd, POLLIN, 0};
        if (now_ms() >= deadline) sb_test_fail(__FILE__, __LINE__, "the client hears something in time");
        stdio_bus_step(bus, 0);
        if (poll(&wait, 1, 5) == 1) {
            ssize_t n = read(fd, got + have, sizeof got - 1 - have);
            if (n <= 0) break;
            have += (size_t)n;
        }
    }
    got[have] = '\0';
    return got;
}

static void check_hears(stdio_bus_t *bus, int fd, const char *want)
{
    CHECK_STR(hears(bus, fd, strlen(want)), want);
}

static void check_refused(stdio_bus_t *bus, int fd, const char *code)
{
    const char *got = hears(bus, fd, SIZE_MAX); /* to the end: it is closed */
    if (strstr(got, code) == NULL || strchr(got, '\n') != got + strlen(got) - 1) {
        fprintf(stderr, "got: %s\n", got);
        sb_test_fail(__FILE__, __LINE__, "one answer, with the code that was expected");
    }
    close(fd);
}

static void is_served(stdio_bus_t *bus, int fd)
{
    says(fd, AUTH("any"));
    check_hears(bus, fd, AUTH_OK);
}

static const char *worker_reads(stdio_bus_t *bus, int to[2])
{
    static char line[4096];
    size_t len = 0;
    long deadline = now_ms() + BOUND_MS;
    while (len == 0 || line[len - 1] != '\n') {
        struct pollfd wait = {to[0], POLLIN, 0};
        if (now_ms() >= deadline) sb_test_fail(__FILE__, __LINE__, "the worker gets something in time");
        stdio_bus_step(bus, 0);
        if (poll(&wait, 1, 5) == 1) CHECK(read(to[0], line + len++, 1) == 1);
    }
    line[len - 1] = '\0';
    return line;
}

static void worker_says(const char *line)
{
    CHECK(write(from_worker[1], line, strlen(line)) == (ssize_t)strlen(line));
}

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

/* ---- who may connect ---------------------------------------------------------------------------- */

/* A process of another user that connects and asks; its status: 0 served, 1 closed without a word, else a fault. */
static pid_t connect_as(uid_t uid)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    struct sockaddr_un name = unix_name(socket_path());
    char answer[sizeof AUTH_OK];
    size_t have = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(uid) != 0) _exit(2);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) != 0) _exit(3);
    if (send(fd, AUTH("x"), sizeof AUTH("x") - 1, MSG_NOSIGNAL) < 0) _exit(1);
    while (have < sizeof answer - 1) {
        ssize_t n = read(fd, answer + have, sizeof answer - 1 - have);
        if (n <= 0) _exit(1);
        have += (size_t)n;
    }
    _exit(0);
}

static int served_as(stdio_bus_t *bus, uid_t uid)
{
    pid_t pid = connect_as(uid);
    int status = 0;
    STEP_UNTIL(bus, waitpid(pid, &status, WNOHANG) == pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void other_users_are_refused_whatever_the_mode_of_the_file_is(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus;
    const uint32_t uids[] = {1234, NOBODY};
    if (geteuid() != 0) {
        fprintf(stderr, "skipped: only root can become another user\n");
        remove_folder();
        return;
    }
    bus = start(CONFIG);
    umask(0);
    options.unix_mode = 0666;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    CHECK(served_as(bus, NOBODY) == 1);
    CHECK(connects == 0 && warnings == 1);
    CHECK(strstr(warning, "another user") != NULL && strstr(warning, socket_path()) != NULL);
    CHECK(served_as(bus, 0) == 0);
    finish(bus);

    bus = start(CONFIG);
    options.uids = uids;
    options.uid_count = SB_COUNT(uids);
    CHECK(stdio_bus_listen(bus, &options) == 0);
    CHECK(served_as(bus, NOBODY) == 0);
    CHECK(served_as(bus, 1234) == 0);
    CHECK(served_as(bus, 1235) == 1);
    finish(bus);
    remove_folder();
}

/* ---- tokens ------------------------------------------------------------------------------------------ */

/* A bus with a Unix and a TCP listener that ask for a token. */
static stdio_bus_t *start_with_token(const char *config)
{
    stdio_bus_listen_options_t unix_one = unix_options(socket_path()), tcp_one = tcp_options("127.0.0.1");
    stdio_bus_t *bus = start(config);
    unix_one.token = tcp_one.token = "secret-\xc3\xa9";
    unix_one.token_len = tcp_one.token_len = strlen(unix_one.token);
    CHECK(stdio_bus_listen(bus, &unix_one) == 0 && stdio_bus_listen(bus, &tcp_one) == 1);
    return bus;
}

static int connect_either(stdio_bus_t *bus, bool tcp)
{
    return tcp ? connect_tcp(address_of(bus, 1)) : connect_unix(socket_path());
}

static void the_right_token_lets_a_client_in(void)
{
    stdio_bus_t *bus = start_with_token(CONFIG);
    for (int tcp = 0; tcp < 2; tcp++) {
        int fd = connect_either(bus, tcp);
        says(fd, tcp ? AUTH("secret-\xc3\xa9") : AUTH("secret-\\u00e9"));
        check_hears(bus, fd, AUTH_OK);
        CHECK(bus->strangers == 0);
        /* From now on it is a client like others; once more is answered too, and not forwarded. */
        says(fd, AUTH("whatever"));
        check_hears(bus, fd, AUTH_OK);
        says(fd, "{\"id\":2,\"method\":\"m\"}\n");
        CHECK_STR(worker_reads(bus, to_worker), "{\"id\":2,\"method\":\"m\"}");
        worker_says("{\"id\":2,\"result\":true}\n");
        check_hears(bus, fd, "{\"id\":2,\"result\":true}\n");
        close(fd);
    }
    finish(bus);
    remove_folder();
}

static void anything_but_the_right_token_is_answered_and_closed(void)
{
    static const char *const frames[] = {
        AUTH("wrong"), AUTH(""), AUTH("secret-"), AUTH("secret-\xc3\xa9 "),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stdio_bus/auth\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stdio_bus/auth\",\"params\":{\"token\":7}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stdio_bus/auth\",\"params\":[\"secret-\xc3\xa9\"]}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"secret-\xc3\xa9\"}}\n",
        "{\"id\":1,\"method\":\"m\"}\n", "not JSON\n", "[1]\n", "{}\n",
    };
    stdio_bus_ext_stats_t stats = {.size = sizeof stats};
    stdio_bus_t *bus = start_with_token(CONFIG);
    for (size_t i = 0; i < 2 * SB_COUNT(frames); i++) {
        int fd = connect_either(bus, i % 2);
        says(fd, frames[i / 2]);
        check_refused(bus, fd, "\"code\":-32014");
    }
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(bus->strangers == 0);
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK && stats.unauthorized == 2 * SB_COUNT(frames));
    CHECK(bus->stats.messages_in == 0);
    struct pollfd wait = {to_worker[0], POLLIN, 0};
    CHECK(poll(&wait, 1, 0) == 0); /* nothing of it has reached the worker */
    finish(bus);
    remove_folder();
}

static void what_follows_a_wrong_token_is_not_read(void)
{
    stdio_bus_t *bus = start_with_token(CONFIG);
    int fd = connect_unix(socket_path());
    says(fd, AUTH("wrong") AUTH("secret-\xc3\xa9") "{\"id\":2,\"method\":\"m\"}\n");
    check_refused(bus, fd, "\"code\":-32014");
    struct pollfd wait = {to_worker[0], POLLIN, 0};
    CHECK(poll(&wait, 1, 0) == 0);
    finish(bus);
    remove_folder();
}

static void a_first_frame_above_4_kib_is_refused(void)
{
    stdio_bus_t *bus = start_with_token(CONFIG);
    char frame[6000] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"";
    size_t len = strlen(frame);
    int fd = connect_unix(socket_path());
    memset(frame + len, 'x', 5000 - len); /* its end isn't even sent */
    says(fd, frame);
    check_refused(bus, fd, "\"code\":-32014");
    finish(bus);
    remove_folder();
}

static void a_client_that_shows_no_token_is_closed_after_5_seconds(void)
{
    stdio_bus_t *bus = start_with_token(CONFIG);
    long began = now_ms();
    int silent = connect_unix(socket_path()), slow = connect_tcp(address_of(bus, 1));
    says(slow, "{\"jsonrpc\":");
    STEP_UNTIL(bus, disconnects == 2);
    CHECK(now_ms() - began >= 4990 && now_ms() - began < 7000);
    CHECK_STR(reason, "timeout");
    close(silent);
    close(slow);
    finish(bus);
    remove_folder();
}

static void the_65th_stranger_is_refused_and_members_are_not(void)
{
    stdio_bus_t *bus = start_with_token(CONFIG);
    int strangers[64], fd, member = connect_unix(socket_path());
    says(member, AUTH("secret-\xc3\xa9"));
    check_hears(bus, member, AUTH_OK);
    for (int i = 0; i < 64; i++) strangers[i] = connect_unix(socket_path());
    STEP_UNTIL(bus, bus->strangers == 64);
    check_refused(bus, connect_unix(socket_path()), "\"code\":-32012");
    is_served(bus, member);
    /* A place that becomes free can be taken. */
    close(strangers[0]);
    STEP_UNTIL(bus, bus->strangers == 63);
    fd = connect_unix(socket_path());
    says(fd, AUTH("secret-\xc3\xa9"));
    check_hears(bus, fd, AUTH_OK);
    finish(bus);
    remove_folder();
}

static void auth_is_never_forwarded_even_where_no_token_is_set(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus = start(CONFIG);
    int fd;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    fd = connect_unix(socket_path());
    is_served(bus, fd);
    says(fd, "{\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"a secret\"}}\n{\"id\":2,\"method\":\"stdio_bus\\/auth\"}\n");
    check_hears(bus, fd, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":true}}\n");
    says(fd, "{\"id\":3,\"method\":\"m\"}\n");
    CHECK_STR(worker_reads(bus, to_worker), "{\"id\":3,\"method\":\"m\"}");
    finish(bus);
    remove_folder();
}

/* ---- clients that leave --------------------------------------------------------------------------------- */

static stdio_bus_t *start_both(const char *config)
{
    stdio_bus_listen_options_t unix_one = unix_options(socket_path()), tcp_one = tcp_options("127.0.0.1");
    stdio_bus_t *bus = start(config);
    CHECK(stdio_bus_listen(bus, &unix_one) == 0 && stdio_bus_listen(bus, &tcp_one) == 1);
    return bus;
}

static void a_client_that_closed_its_sending_side_still_gets_its_answer(void)
{
    stdio_bus_t *bus = start_both(CONFIG);
    for (int tcp = 0; tcp < 2; tcp++) {
        int fd = connect_either(bus, tcp);
        disconnects = 0;
        says(fd, "{\"id\":1,\"method\":\"m\"}"); /* the last line needs no newline */
        CHECK(shutdown(fd, SHUT_WR) == 0);
        CHECK_STR(worker_reads(bus, to_worker), "{\"id\":1,\"method\":\"m\"}");
        CHECK(stdio_bus_client_count(bus) == 1);
        worker_says("{\"id\":1,\"result\":true}\n");
        CHECK_STR(hears(bus, fd, SIZE_MAX), "{\"id\":1,\"result\":true}\n"); /* and then the end */
        STEP_UNTIL(bus, disconnects == 1);
        CHECK_STR(reason, "closed");
        close(fd);
    }
    finish(bus);
    remove_folder();
}

static void a_half_closed_client_is_closed_after_the_drain_timeout(void)
{
    stdio_bus_t *bus = start_both(LIMITED("\"drain_timeout_sec\":1"));
    for (int tcp = 0; tcp < 2; tcp++) {
        int fd = connect_either(bus, tcp);
        long began;
        disconnects = 0;
        says(fd, "{\"id\":1,\"method\":\"m\"}\n");
        worker_reads(bus, to_worker);
        began = now_ms();
        CHECK(shutdown(fd, SHUT_WR) == 0);
        STEP_UNTIL(bus, disconnects == 1);
        CHECK(now_ms() - began >= 990 && now_ms() - began < 3000);
        CHECK_STR(reason, "timeout");
        CHECK(stdio_bus_pending_count(bus) == 0);
        close(fd);
    }
    finish(bus);
    remove_folder();
}

static void a_client_that_hangs_up_gives_up_its_requests_at_once(void)
{
    stdio_bus_ext_stats_t stats = {.size = sizeof stats};
    stdio_bus_t *bus = start_both(CONFIG);
    struct linger reset = {1, 0};
    for (int tcp = 0; tcp < 2; tcp++) {
        int fd = connect_either(bus, tcp);
        disconnects = 0;
        says(fd, "{\"id\":1,\"method\":\"m\"}\n");
        worker_reads(bus, to_worker);
        CHECK(stdio_bus_pending_count(bus) == 1);
        if (tcp) CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
        close(fd);
        STEP_UNTIL(bus, disconnects == 1);
        CHECK_STR(reason, "closed");
        CHECK(stdio_bus_pending_count(bus) == 0);
    }
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK && stats.tombstones == 2);
    finish(bus);
    CHECK(messages == 0);
    remove_folder();
}

/* ---- pools and framing of a listener ------------------------------------------------------------------------ */

static void messages_go_to_the_pool_of_their_listener(void)
{
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus = create("{\"pools\":[" PLAYED("p") "," PLAYED("q") "]}");
    int to_q[2], from_q[2], fd;
    options.pool = "none";
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ENOTFOUND);
    options.pool = "q";
    CHECK(stdio_bus_listen(bus, &options) == 0);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    embed(bus, "p", to_worker, from_worker);
    embed(bus, "q", to_q, from_q);
    fd = connect_unix(socket_path());
    says(fd, "{\"id\":1,\"method\":\"m\"}\n{\"id\":2,\"method\":\"m\",\"pool\":\"p\"}\n");
    CHECK_STR(worker_reads(bus, to_q), "{\"id\":1,\"method\":\"m\"}");
    CHECK_STR(worker_reads(bus, to_worker), "{\"id\":2,\"method\":\"m\",\"pool\":\"p\"}");
    finish(bus);
    remove_folder();
}

static void says_framed(int fd, const char *text)
{
    size_t len = strlen(text);
    const unsigned char length[4] = {0, 0, (unsigned char)(len >> 8), (unsigned char)len};
    CHECK(send(fd, length, 4, 0) == 4);
    says(fd, text);
}

static void a_listener_may_frame_by_length(void)
{
    static const char answer[] = "{\"id\":1,\"result\":true}";
    stdio_bus_listen_options_t options = unix_options(socket_path());
    stdio_bus_t *bus = start(CONFIG);
    const char *got;
    int fd;
    options.framing = STDIO_BUS_FRAMING_LENGTH;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    fd = connect_unix(socket_path());
    says_framed(fd, "{\"id\":1,\n\"method\":\"m\"}");
    CHECK_STR(worker_reads(bus, to_worker), "{\"id\":1, \"method\":\"m\"}");
    worker_says("{\"id\":1,\"result\":true}\n");
    got = hears(bus, fd, 4 + sizeof answer - 1);
    CHECK(memcmp(got, "\0\0\0", 3) == 0 && got[3] == sizeof answer - 1);
    CHECK_STR(got + 4, answer);
    CHECK(send(fd, "\x7f\xff\xff\xff{\"id\":9", 11, 0) == 11);
    got = hears(bus, fd, SIZE_MAX);
    CHECK(strstr(got + 4, "Frame too large") != NULL);
    finish(bus);
    remove_folder();
}

/* ---- too many ------------------------------------------------------------------------------------------------- */

static void more_than_max_clients_are_refused_until_one_leaves(void)
{
    stdio_bus_t *bus = start_both(LIMITED("\"max_clients\":2"));
    int first = connect_unix(socket_path()), second = connect_tcp(address_of(bus, 1));
    is_served(bus, first);
    is_served(bus, second);
    check_refused(bus, connect_unix(socket_path()), "\"code\":-32012");
    check_refused(bus, connect_tcp(address_of(bus, 1)), "\"code\":-32012");
    is_served(bus, first);
    close(first);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    is_served(bus, connect_unix(socket_path()));
    finish(bus);
    remove_folder();
}

static void without_descriptors_accepting_pauses_and_goes_on(void)
{
    stdio_bus_t *bus = start_both(CONFIG);
    struct rlimit limit, low;
    int member = connect_unix(socket_path()), waiting, steps = 0;
    long began;
    is_served(bus, member);
    waiting = connect_unix(socket_path());
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    low = limit;
    low.rlim_cur = (rlim_t)waiting + 1; /* no number is left below this */
    for (int fd = 0; fd <= waiting; fd++) {
        if (fcntl(fd, F_GETFD) < 0) CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) == fd);
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    STEP_UNTIL(bus, warnings == 1);
    CHECK(strstr(warning, "pauses: Too many open files") != NULL);
    /* It doesn't spin meanwhile: ten tries a second, and others are served. */
    began = now_ms();
    while (now_ms() - began < 500) {
        CHECK(stdio_bus_step(bus, 100) >= 0);
        steps++;
    }
    CHECK(warnings <= 8 && steps < 50);
    is_served(bus, member);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    is_served(bus, waiting);
    finish(bus);
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
    TEST(other_users_are_refused_whatever_the_mode_of_the_file_is),
    TEST(the_right_token_lets_a_client_in),
    TEST(anything_but_the_right_token_is_answered_and_closed),
    TEST(what_follows_a_wrong_token_is_not_read),
    TEST(a_first_frame_above_4_kib_is_refused),
    TEST(a_client_that_shows_no_token_is_closed_after_5_seconds),
    TEST(the_65th_stranger_is_refused_and_members_are_not),
    TEST(auth_is_never_forwarded_even_where_no_token_is_set),
    TEST(a_client_that_closed_its_sending_side_still_gets_its_answer),
    TEST(a_half_closed_client_is_closed_after_the_drain_timeout),
    TEST(a_client_that_hangs_up_gives_up_its_requests_at_once),
    TEST(messages_go_to_the_pool_of_their_listener),
    TEST(a_listener_may_frame_by_length),
    TEST(more_than_max_clients_are_refused_until_one_leaves),
    TEST(without_descriptors_accepting_pauses_and_goes_on),
    TEST(a_bound_descriptor_becomes_a_listener_and_its_file_stays),
    TEST(a_pair_of_pipes_becomes_a_client),
    TEST(a_pair_whose_reading_side_is_gone_is_closed),
};

TEST_MAIN(tests)
