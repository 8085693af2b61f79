/* test_clients.c - how clients of listeners leave, where their messages go, and when there are too many of them. */
#include "listening.h"

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
        CHECK_STR(hears(bus, fd, SIZE_MAX),
                  "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32013,\"message\":\"No answer within drain_timeout_sec after "
                  "the end of the client's input\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"drain_timeout\"}}}\n");
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

static const sb_test tests[] = {
    TEST(a_client_that_closed_its_sending_side_still_gets_its_answer),
    TEST(a_half_closed_client_is_closed_after_the_drain_timeout),
    TEST(a_client_that_hangs_up_gives_up_its_requests_at_once),
    TEST(messages_go_to_the_pool_of_their_listener),
    TEST(a_listener_may_frame_by_length),
    TEST(more_than_max_clients_are_refused_until_one_leaves),
    TEST(without_descriptors_accepting_pauses_and_goes_on),
};

TEST_MAIN(tests)
