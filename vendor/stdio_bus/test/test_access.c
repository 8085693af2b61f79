/* test_access.c - who may connect: the users of a Unix socket, and tokens. */
#include "listening.h"

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

static const sb_test tests[] = {
    TEST(other_users_are_refused_whatever_the_mode_of_the_file_is),
    TEST(the_right_token_lets_a_client_in),
    TEST(anything_but_the_right_token_is_answered_and_closed),
    TEST(what_follows_a_wrong_token_is_not_read),
    TEST(a_first_frame_above_4_kib_is_refused),
    TEST(a_client_that_shows_no_token_is_closed_after_5_seconds),
    TEST(the_65th_stranger_is_refused_and_members_are_not),
    TEST(auth_is_never_forwarded_even_where_no_token_is_set),
};

TEST_MAIN(tests)
