/* test_stall.c - workers that don't read, and what queues for them. The test plays them, to read or not as it likes. */
#include "supervise.h"

/* ---- a worker that doesn't read ------------------------------------------------------------------ */

#define PLAYED "{\"id\":\"p\",\"command\":\"true\",\"restart\":\"never\"}"

typedef struct {
    int id;
    int in, out; /* its stdin and stdout, as it sees them */
} played_t;

static played_t play(stdio_bus_t *bus)
{
    played_t played;
    int to[2], from[2];
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    played.id = stdio_bus_register_embedded_worker(bus, to[1], from[0], "p");
    CHECK(played.id >= 0);
    played.in = to[0];
    played.out = from[1];
    CHECK(fcntl(played.in, F_SETFL, O_NONBLOCK) == 0);
    return played;
}

/* A bus whose one process has ended, so that all its workers are played. */
static stdio_bus_t *start_played(const char *limits)
{
    char config[512];
    stdio_bus_t *bus;
    snprintf(config, sizeof config, "{\"pools\":[" PLAYED "],\"limits\":{%s}}", limits);
    bus = start(config);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    event_count = 0;
    return bus;
}

/* Everything in its stdin, until the bus has no more; returns the bytes and the number of lines. */
static size_t read_all(stdio_bus_t *bus, const played_t *played, int *lines)
{
    static char bytes[65536];
    size_t total = 0;
    long deadline = now_ms() + BOUND_MS;
    stdio_bus_pool_info_t info = {0};
    info.size = sizeof info;
    for (;;) {
        ssize_t n = read(played->in, bytes, sizeof bytes);
        CHECK(now_ms() < deadline);
        if (n > 0) {
            total += (size_t)n;
            for (ssize_t i = 0; i < n; i++) *lines += bytes[i] == '\n';
            continue;
        }
        CHECK(n < 0 && errno == EAGAIN);
        stdio_bus_step(bus, 0);
        CHECK(stdio_bus_pool_info(bus, 0, &info) == STDIO_BUS_OK);
        if (info.outbox_bytes == 0 && read(played->in, bytes, 0) == 0) {
            struct pollfd wait = {played->in, POLLIN, 0};
            if (poll(&wait, 1, 0) == 0) return total;
        }
    }
}

static void a_worker_that_does_not_read_is_left_out_until_it_reads_again(void)
{
    stdio_bus_t *bus = start_played("");
    played_t deaf = play(bus), good;
    int lines = 0;
    long asked = now_ms();
    CHECK(ingest(bus, request(1, 200000)) == STDIO_BUS_OK);
    stdio_bus_step(bus, 0);
    good = play(bus);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STALLED) == 1);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STALLED, 1)->worker == deaf.id);
    CHECK(now_ms() - asked >= 4900 && now_ms() - asked < 8000);
    CHECK(sb_worker_takes(bus->workers[deaf.id])); /* busy is not broken: it isn't stopped */

    /* With the same load, each would get half of these. */
    for (int id = 2; id <= 11; id++) CHECK(ingest(bus, request(id, 100)) == STDIO_BUS_OK);
    CHECK(info_of(bus, deaf.id).pending == 1 && info_of(bus, good.id).pending == 10);

    event_count = 0;
    CHECK(read_all(bus, &deaf, &lines) == 200001 && lines == 1);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_READY) == 1);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_READY, 1)->worker == deaf.id);
    CHECK(ingest(bus, request(12, 100)) == STDIO_BUS_OK);
    CHECK(info_of(bus, deaf.id).pending == 2);
    stop_and_destroy(bus, 0);
}

static void the_only_worker_of_a_pool_gets_messages_even_if_it_does_not_read(void)
{
    stdio_bus_t *bus = start_played("");
    played_t deaf = play(bus);
    CHECK(ingest(bus, request(1, 200000)) == STDIO_BUS_OK);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STALLED) == 1);
    CHECK(ingest(bus, request(2, 100)) == STDIO_BUS_OK);
    CHECK(info_of(bus, deaf.id).pending == 2);
    stop_and_destroy(bus, 0);
}

static void a_worker_that_does_not_read_is_stopped_after_the_stall_timeout(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL("\"sleep\",\"args\":[\"60\"]") "],\"limits\":{\"stall_timeout_sec\":1}}");
    long asked = now_ms(), took;
    CHECK(ingest(bus, request(1, 200000)) == STDIO_BUS_OK);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    took = now_ms() - asked;
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGTERM);
    /* A second of silence, then two for end of input, which a sleeping program doesn't see. */
    CHECK(took >= 2900 && took < 4900);
    CHECK(messages == 1 && strstr(last_message, "-32011") != NULL);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STARTED) == 2);
    stop_and_destroy(bus, 0);
}

/* ---- queues to a worker ---------------------------------------------------------------------------- */

static void client_says(int fd, const char *text)
{
    size_t len = strlen(text);
    CHECK(send(fd, text, len, 0) == (ssize_t)len && send(fd, "\n", 1, 0) == 1);
}

/* Whether the client has been refused something by now. */
static bool was_refused(int fd)
{
    char text[2048];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (n < 0) return false;
    text[n] = '\0';
    CHECK(strstr(text, "\"code\":-32012") != NULL && strstr(text, "\"reason\":\"overloaded\"") != NULL);
    CHECK(strstr(text, "\"sent\":false") != NULL);
    return true;
}

static int connect_client(stdio_bus_t *bus)
{
    int pair[2], size = 1 << 20;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    CHECK(stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    return pair[0];
}

static void one_client_fills_half_of_a_workers_queue_and_another_still_gets_in(void)
{
    enum { FRAME = 20000 };
    stdio_bus_t *bus = start_played("\"max_output_queue\":1048576");
    played_t deaf = play(bus);
    int greedy = connect_client(bus), modest = connect_client(bus);
    int accepted = 0, lines = 0;
    stdio_bus_ext_stats_t stats = {0};
    stats.size = sizeof stats;
    for (bool refused = false; !refused; accepted++) {
        CHECK(accepted < 100);
        client_says(greedy, request(accepted, FRAME));
        STEP_UNTIL(bus, (refused = was_refused(greedy)) || info_of(bus, deaf.id).pending == (uint32_t)accepted + 1);
    }
    accepted--; /* the last one was refused */
    /* Half of 1 MiB, and what the pipe has taken. */
    CHECK(accepted >= 524288 / FRAME && accepted <= (524288 + 2 * 65536) / FRAME + 1);
    for (int id = 0; id < 20; id++) {
        client_says(modest, request(100 + id, FRAME));
        STEP_UNTIL(bus, info_of(bus, deaf.id).pending == (uint32_t)(accepted + id + 1));
    }
    CHECK(!was_refused(modest));
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK);
    CHECK(stats.overload_refusals == 1 && stats.outbox_bytes <= 1048576);

    /* Nothing was lost on the way, and the host hears that there is room again, once. */
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_WRITABLE) == 0);
    CHECK(read_all(bus, &deaf, &lines) == (size_t)(accepted + 20) * (FRAME + 1));
    CHECK(lines == accepted + 20);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_WRITABLE) == 1);
    client_says(greedy, request(999, FRAME));
    STEP_UNTIL(bus, info_of(bus, deaf.id).pending == (uint32_t)(accepted + 21));
    stop_and_destroy(bus, 0);
}

static void a_full_queue_refuses_the_host_with_a_status(void)
{
    stdio_bus_t *bus = start_played("\"max_output_queue\":1048576");
    played_t deaf = play(bus);
    int accepted = 0, lines = 0;
    while (ingest(bus, request(accepted, 100000)) == STDIO_BUS_OK) {
        CHECK(++accepted < 20);
        stdio_bus_step(bus, 0);
    }
    CHECK(ingest(bus, request(99, 100000)) == STDIO_BUS_EFULL);
    CHECK(stdio_bus_pending_count(bus) == accepted);
    CHECK(read_all(bus, &deaf, &lines) == (size_t)accepted * 100001 && lines == accepted);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_WRITABLE) == 1);
    CHECK(messages == 0); /* what is refused with a status has no answer too */
    stop_and_destroy(bus, 0);
}

static const sb_test tests[] = {
    TEST(a_worker_that_does_not_read_is_left_out_until_it_reads_again),
    TEST(the_only_worker_of_a_pool_gets_messages_even_if_it_does_not_read),
    TEST(a_worker_that_does_not_read_is_stopped_after_the_stall_timeout),
    TEST(one_client_fills_half_of_a_workers_queue_and_another_still_gets_in),
    TEST(a_full_queue_refuses_the_host_with_a_status),
};

TEST_MAIN(tests)
