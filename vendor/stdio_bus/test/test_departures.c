/* test_departures.c - what had not been written when a worker or client goes is counted: never a frame lost in silence. */
#include <stdlib.h>
#include <unistd.h>

#include "fixture.h"

/* More than a pipe takes, and more than a socket. */
enum { FRAME = 1000, FRAMES = 200, CHUNKS = 1000 };

/* A frame of FRAME bytes: these members, then spaces, "}" and the end of the line. */
static const char *frame_of(const char *members)
{
    static char text[FRAME + 1];
    int used = snprintf(text, sizeof text, "{%s", members);
    memset(text + used, ' ', (size_t)(FRAME - used));
    memcpy(text + FRAME - 2, "}\n", 3);
    return text;
}

static void submit_all(stdio_bus_t *bus, bool requests)
{
    char members[64];
    for (int i = 0; i < FRAMES; i++) {
        snprintf(members, sizeof members, requests ? "\"id\":%d,\"method\":\"m\"" : "\"method\":\"m\"", i);
        CHECK(ingest(bus, frame_of(members)) == STDIO_BUS_OK);
    }
}

/* What a pipe or socket still has: its whole lines, and how many bytes. */
static int lines_left(int fd, size_t *bytes)
{
    static char data[FRAME];
    ssize_t n;
    int lines = 0;
    *bytes = 0;
    while ((n = read(fd, data, sizeof data)) > 0) {
        *bytes += (size_t)n;
        for (ssize_t i = 0; i < n; i++) lines += data[i] == '\n';
    }
    return lines;
}

static void told(stdio_bus_t *bus, int count, const char *why, int worker, int client)
{
    char text[128];
    const seen_event *event = last_event(STDIO_BUS_EVENT_DROPPED);
    snprintf(text, sizeof text, "%d unsent message%s: %s", count, count == 1 ? "" : "s", why);
    CHECK(ext_stats(bus).dropped_frames == (uint64_t)count && events_of(STDIO_BUS_EVENT_DROPPED) == 1);
    CHECK_STR(event->text, text);
    CHECK(event->event.worker == worker && event->event.client == client);
}

/* ---- workers ---------------------------------------------------------------------------------- */

static void notifications_a_worker_had_not_been_sent_are_counted_when_it_goes(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    size_t bytes;
    int lines;
    submit_all(bus, false);
    CHECK(stdio_bus_step(bus, 0) >= 0);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    lines = lines_left(played.in, &bytes);
    /* Of one frame a part was written: that one is lost too. */
    CHECK(lines > 0 && bytes % FRAME != 0);
    told(bus, FRAMES - lines, "the worker is gone", played.id, -1);
    finish(bus);
}

static void requests_a_worker_had_not_been_sent_end_with_an_error_and_are_not_counted(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    submit_all(bus, true);
    CHECK(ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_step(bus, 0) >= 0);
    CHECK(stdio_bus_cancel(bus, "199", 3) == STDIO_BUS_OK);
    goes(played);
    STEP_UNTIL(bus, seen.count == FRAMES - 1);
    told(bus, 1, "the worker is gone", played.id, -1);
    finish(bus);
}

static uint64_t received(stdio_bus_t *bus)
{
    stdio_bus_stats_t stats;
    stdio_bus_get_stats(bus, &stats);
    return stats.messages_in;
}

static void an_answer_a_worker_had_not_been_sent_is_counted_when_it_goes(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":\"x\",\"method\":\"m\",\"sessionId\":\"s\"}\n");
    worker_reads(bus);
    worker_says("{\"id\":1,\"method\":\"question\",\"params\":{\"sessionId\":\"s\"}}\n");
    client_hears(bus, client, "{\"id\":1,\"method\":\"question\",\"params\":{\"sessionId\":\"s\"}}\n");
    submit_all(bus, true);
    client_says(client, "{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, received(bus) == FRAMES + 2);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    told(bus, 1, "the worker is gone", played.id, -1);
    finish(bus);
}

static void a_worker_that_was_sent_everything_leaves_no_count(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    worker_reads(bus);
    goes(played);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(ext_stats(bus).dropped_frames == 0 && events_of(STDIO_BUS_EVENT_DROPPED) == 0);
    finish(bus);
}

/* ---- clients ------------------------------------------------------------------------------------ */

/* The worker says more than the client's socket takes; returns how many frames of this size could not be written. */
static int overwhelm(stdio_bus_t *bus, size_t size)
{
    uint64_t queued;
    worker_reads(bus);
    for (int i = 0; i < CHUNKS; i++) {
        worker_says(frame_of("\"method\":\"chunk\""));
        CHECK(stdio_bus_step(bus, 0) >= 0);
    }
    queued = ext_stats(bus).outbox_bytes;
    CHECK(queued > 0 && queued < CHUNKS * size);
    return (int)((queued + size - 1) / size);
}

static int connect_and_ask(stdio_bus_t *bus)
{
    int client = connect_pair(bus);
    client_says(client, "{\"id\":\"x\",\"method\":\"m\"}\n");
    return client;
}

static void what_a_client_had_not_been_sent_is_counted_when_it_closes(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_and_ask(bus), unsent = overwhelm(bus, FRAME);
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    told(bus, unsent, "the client is gone (closed)", -1, 1);
    finish(bus);
}

static void the_same_is_counted_where_a_length_goes_before_each_frame(void)
{
    stdio_bus_client_options_t options = {0};
    stdio_bus_t *bus = start(CONFIG, 0);
    static const char hello[] = "\0\0\0\x15{\"id\":1,\"method\":\"m\"}";
    int client, unsent;
    options.size = sizeof options;
    options.framing = STDIO_BUS_FRAMING_LENGTH;
    client = connect_pair_with(bus, &options);
    client_sends(client, hello, sizeof hello - 1);
    /* Four bytes more, and no end of the line. */
    unsent = overwhelm(bus, FRAME + 3);
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    told(bus, unsent, "the client is gone (closed)", -1, 1);
    finish(bus);
}

static void a_question_a_client_had_not_been_sent_is_declined_and_not_counted(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_and_ask(bus), unsent = overwhelm(bus, FRAME);
    worker_says("{\"id\":1,\"method\":\"question\"}\n");
    CHECK(stdio_bus_step(bus, 0) >= 0);
    close(client);
    CHECK(strncmp(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601", 46) == 0);
    told(bus, unsent, "the client is gone (closed)", -1, 1);
    finish(bus);
}

static void a_client_that_was_sent_everything_leaves_no_count(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":0}\n");
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(ext_stats(bus).dropped_frames == 0 && events_of(STDIO_BUS_EVENT_DROPPED) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(notifications_a_worker_had_not_been_sent_are_counted_when_it_goes),
    TEST(requests_a_worker_had_not_been_sent_end_with_an_error_and_are_not_counted),
    TEST(an_answer_a_worker_had_not_been_sent_is_counted_when_it_goes),
    TEST(a_worker_that_was_sent_everything_leaves_no_count),
    TEST(what_a_client_had_not_been_sent_is_counted_when_it_closes),
    TEST(the_same_is_counted_where_a_length_goes_before_each_frame),
    TEST(a_question_a_client_had_not_been_sent_is_declined_and_not_counted),
    TEST(a_client_that_was_sent_everything_leaves_no_count),
};

TEST_MAIN(tests)
