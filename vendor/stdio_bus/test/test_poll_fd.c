/* test_poll_fd.c - a host that only waits for the poll fd misses nothing, however long it was away before a call. */
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "../src/bus.h"
#include "fixture.h"

/* Steps only when the descriptor says so. */
#define POLL_UNTIL(bus, condition) \
    do { \
        struct pollfd ready_ = {stdio_bus_get_poll_fd(bus), POLLIN, 0}; \
        while (!(condition)) { \
            if (poll(&ready_, 1, BOUND_MS) != 1) sb_test_fail(__FILE__, __LINE__, "it says in time: " #condition); \
            CHECK(stdio_bus_step(bus, 0) >= 0); \
        } \
    } while (0)

/* As if the host had last stepped a minute ago. */
static void be_away(stdio_bus_t *bus)
{
    bus->ctx.loop.now -= 60000;
}

static void a_stop_after_a_long_absence_keeps_its_time(void)
{
    stdio_bus_t *bus = create(POOLS(SHELL("p", "trap '' TERM; while :; do sleep 1; done")), 0);
    long began;
    CHECK(bus != NULL && stdio_bus_get_poll_fd(bus) >= 0 && stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(stdio_bus_step(bus, 0) >= 0);
    be_away(bus);
    began = now_ms();
    CHECK(stdio_bus_stop_within(bus, 900) == STDIO_BUS_OK);
    POLL_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(now_ms() - began < 3000);
    stdio_bus_destroy(bus);
}

static void a_drain_ends_with_the_cancellation_of_its_last_request(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_get_poll_fd(bus) >= 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_drain(bus, 60000, 1000) == STDIO_BUS_OK);
    CHECK(stdio_bus_step(bus, 0) >= 0 && stdio_bus_get_state(bus) == STDIO_BUS_STATE_RUNNING);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK);
    POLL_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static void an_idle_session_ends_where_the_host_only_waits(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"session_idle_sec\":1"), 0);
    CHECK(stdio_bus_get_poll_fd(bus) >= 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK);
    POLL_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_stop_after_a_long_absence_keeps_its_time),
    TEST(a_drain_ends_with_the_cancellation_of_its_last_request),
    TEST(an_idle_session_ends_where_the_host_only_waits),
};

TEST_MAIN(tests)
