/* test_wire.c - frames between sockets and workers: how they begin and end, and what is no frame. */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

#define SMALL LIMITED(DEAD("p"), "\"max_input_buffer\":1024")
#define DATA(reason) "\"data\":{\"source\":\"stdio_bus\",\"reason\":\"" reason "\"}}}\n"
#define NO_ID "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{"
#define PARSE_ERROR NO_ID "\"code\":-32700,\"message\":\"Parse error\"," DATA("parse_error")
#define NO_BATCH NO_ID "\"code\":-32600,\"message\":\"Batch requests are not supported\"," DATA("batch")
#define TOO_LARGE "\"code\":-32600,\"message\":\"Message too large\"," DATA("too_large")

/* A request under this id answered through the worker: both ends still work. */
static void ask(stdio_bus_t *bus, int client, int id)
{
    char request[64], answer[64];
    snprintf(request, sizeof request, "{\"id\":%d,\"method\":\"ask\"}", id);
    snprintf(answer, sizeof answer, "{\"id\":%d,\"result\":0}\n", id);
    client_says(client, request);
    client_says(client, "\n");
    CHECK_STR(worker_reads(bus), request);
    worker_says(answer);
    client_hears(bus, client, answer);
}

/* A text with `size` bytes in the middle, valid until the next call. */
static char *large_request(const char *head, size_t size, const char *tail)
{
    static char text[8192];
    size_t before = strlen(head), after = strlen(tail);
    CHECK(before + size + after < sizeof text);
    memcpy(text, head, before);
    memset(text + before, 'x', size);
    memcpy(text + before + size, tail, after + 1);
    return text;
}

/* ---- lines ------------------------------------------------------------------------------ */

static void a_clients_bom_carriage_returns_and_blank_lines_are_taken_off(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    client_says(client, "\xEF\xBB\xBF{\"id\":1,\"method\":\"m\"}\r\n\r\n \t\n\n{\"id\":2,\"method\":\"m\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"m\"}");
    CHECK(ext_stats(bus).parse_errors == 0);
    finish(bus);
}

static void a_workers_bom_carriage_returns_and_blank_lines_are_taken_off(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_says("\xEF\xBB\xBF{\"method\":\"a\"}\r\n\r\n \t\n\n{\"method\":\"b\"}\n");
    STEP_UNTIL(bus, seen.count == 2);
    CHECK_STR(seen.frame[0].text, "{\"method\":\"a\"}");
    CHECK_STR(seen.frame[1].text, "{\"method\":\"b\"}");
    CHECK(ext_stats(bus).worker_garbage == 0);
    finish(bus);
}

static void any_split_of_a_clients_stream_gives_the_same_frames(void)
{
    static const char stream[] = "{\"id\":1,\"method\":\"a\"}\r\n\n{\"id\":2,\"method\":\"b\"}\n";
    stdio_bus_t *bus = start(CONFIG, 0);
    for (size_t cut = 1; cut < sizeof stream - 1; cut++) {
        int client = connect_pair(bus);
        client_sends(client, stream, cut);
        CHECK(stdio_bus_step(bus, 0) >= 0 && stdio_bus_step(bus, 0) >= 0);
        client_sends(client, stream + cut, sizeof stream - 1 - cut);
        CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"a\"}");
        CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"b\"}");
        worker_says("{\"id\":1,\"result\":0}\n{\"id\":2,\"result\":0}\n");
        client_hears(bus, client, "{\"id\":1,\"result\":0}\n{\"id\":2,\"result\":0}\n");
        close(client);
    }
    finish(bus);
}

static void any_split_of_a_workers_stream_gives_the_same_frames(void)
{
    static const char stream[] = "{\"method\":\"a\"}\r\n\n{\"method\":\"b\"}\n";
    stdio_bus_t *bus = start(CONFIG, 0);
    for (size_t cut = 1; cut < sizeof stream - 1; cut++) {
        char part[sizeof stream];
        seen.count = 0;
        memcpy(part, stream, cut);
        part[cut] = '\0';
        worker_says(part);
        CHECK(stdio_bus_step(bus, 0) >= 0 && stdio_bus_step(bus, 0) >= 0);
        worker_says(stream + cut);
        STEP_UNTIL(bus, seen.count == 2);
        CHECK_STR(seen.frame[0].text, "{\"method\":\"a\"}");
        CHECK_STR(seen.frame[1].text, "{\"method\":\"b\"}");
    }
    finish(bus);
}

static void what_is_no_complete_object_is_answered_and_the_connection_stays(void)
{
    static const struct {
        const char *line, *answer;
    } cases[] = {
        {"hello\n", PARSE_ERROR},
        {"1\n", PARSE_ERROR},
        {"\"text\"\n", PARSE_ERROR},
        {"null\n", PARSE_ERROR},
        {"{\"id\":1,\"method\":\"m\"\n", PARSE_ERROR},
        {"{\"id\":1,\"method\":\"m\"]\n", PARSE_ERROR},
        {"{\"id\":1,\"method\":\"m}\n", PARSE_ERROR},
        {"{\"id\":1,\"method\":\"m\"} {}\n", PARSE_ERROR},
        {"{\"id\":1,\"method\":\"m\"}x\n", PARSE_ERROR},
        {"[{\"id\":1,\"method\":\"m\"}]\n", NO_BATCH},
        {"[]\n", NO_BATCH},
    };
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        client_says(client, cases[i].line);
        client_hears(bus, client, cases[i].answer);
        CHECK(ext_stats(bus).parse_errors == i + 1);
    }
    ask(bus, client, 1);
    finish(bus);
}

static void a_clients_unterminated_last_line_counts_only_if_it_is_complete(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":");
    CHECK(shutdown(client, SHUT_WR) == 0);
    client_hears(bus, client, PARSE_ERROR);
    CHECK(client_line(bus, client) == NULL);
    finish(bus);
}

static void a_workers_unterminated_last_line_counts_only_if_it_is_complete(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_says("{\"method\":");
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(seen.count == 0 && ext_stats(bus).worker_garbage == 1);
    finish(bus);
}

/* ---- the first frame over TCP -------------------------------------------------------------- */

static stdio_bus_t *start_with_tcp(const char *config)
{
    stdio_bus_listen_options_t options = {0};
    stdio_bus_t *bus = start(config, 0);
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    return bus;
}

static void the_body_of_a_browsers_post_to_a_tcp_port_never_arrives(void)
{
    stdio_bus_t *bus = start_with_tcp(CONFIG);
    int client = connect_listener(bus, 0);
    client_says(client, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n{\"id\":1,\"method\":\"evil\"}\n");
    client_hears(bus, client, PARSE_ERROR);
    CHECK(client_line(bus, client) == NULL);
    STEP_UNTIL(bus, seen.disconnects == 1);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"next\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"next\"}");
    finish(bus);
}

static void a_tcp_client_whose_first_frame_is_an_array_is_answered_and_closed(void)
{
    stdio_bus_t *bus = start_with_tcp(CONFIG);
    int client = connect_listener(bus, 0);
    client_says(client, "[]\n");
    client_hears(bus, client, NO_BATCH);
    CHECK(client_line(bus, client) == NULL);
    finish(bus);
}

static void a_bad_line_after_a_good_one_leaves_a_tcp_connection_open(void)
{
    stdio_bus_t *bus = start_with_tcp(CONFIG);
    int client = connect_listener(bus, 0);
    ask(bus, client, 1);
    client_says(client, "hello\n");
    client_hears(bus, client, PARSE_ERROR);
    ask(bus, client, 2);
    finish(bus);
}

static void an_oversize_first_line_lets_no_header_pass_over_tcp(void)
{
    stdio_bus_t *bus = start_with_tcp(SMALL);
    int client = connect_listener(bus, 0);
    client_says(client, large_request("POST /", 4000, " HTTP/1.1\r\nHost: localhost\r\n\r\n{\"id\":1,\"method\":\"m\"}\n"));
    client_hears(bus, client, NO_ID TOO_LARGE PARSE_ERROR);
    CHECK(client_line(bus, client) == NULL);
    finish(bus);
}

/* ---- the limit ------------------------------------------------------------------------------- */

static void a_clients_frame_above_the_limit_is_answered_under_its_id_and_the_next_one_is_read(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    client_says(client, large_request("{\"id\":\"big\",\"method\":\"m\",\"params\":\"", 5000, "\"}\n"));
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":\"big\",\"error\":{" TOO_LARGE);
    CHECK(ext_stats(bus).oversize_frames == 1);
    ask(bus, client, 1);
    finish(bus);
}

static void a_frame_above_the_limit_whose_id_comes_too_late_is_answered_without_one(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    client_says(client, large_request("{\"method\":\"m\",\"params\":\"", 5000, "\",\"id\":1}\n"));
    client_hears(bus, client, NO_ID TOO_LARGE);
    ask(bus, client, 1);
    finish(bus);
}

static void a_frame_that_never_ends_is_answered_at_once_and_not_kept(void)
{
    char block[4096];
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    memset(block, 'x', sizeof block);
    client_says(client, "{\"id\":1,\"params\":\"");
    client_sends(client, block, sizeof block);
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{" TOO_LARGE);
    for (int i = 0; i < 100; i++) {
        client_sends(client, block, sizeof block);
        CHECK(stdio_bus_step(bus, 0) >= 0);
    }
    client_says(client, "\"}\n");
    ask(bus, client, 2);
    CHECK(ext_stats(bus).oversize_frames == 1);
    finish(bus);
}

static void the_limit_is_per_frame_and_not_per_burst(void)
{
    enum { FRAMES = 200 };
    char burst[FRAMES * 40];
    size_t len = 0;
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    for (int i = 0; i < FRAMES; i++) {
        len += (size_t)snprintf(burst + len, sizeof burst - len, "{\"id\":%d,\"method\":\"m\"}\n", i);
    }
    client_sends(client, burst, len);
    for (int i = 0; i < FRAMES; i++) {
        char want[40];
        snprintf(want, sizeof want, "{\"id\":%d,\"method\":\"m\"}", i);
        CHECK_STR(worker_reads(bus), want);
    }
    CHECK(ext_stats(bus).oversize_frames == 0);
    finish(bus);
}

static void a_frame_of_exactly_the_limit_passes(void)
{
    static const char head[] = "{\"id\":1,\"method\":\"m\",\"params\":\"", tail[] = "\"}";
    char *request = large_request(head, 1024 - (sizeof head - 1) - (sizeof tail - 1), tail);
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    CHECK(strlen(request) == 1024);
    client_says(client, request);
    client_says(client, "\n");
    CHECK_STR(worker_reads(bus), request);
    finish(bus);
}

static void a_workers_answer_above_the_limit_ends_its_request_and_the_worker_lives(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":\"q\",\"method\":\"m\"}\n");
    worker_reads(bus);
    worker_says(large_request("{\"id\":\"q\",\"result\":\"", 5000, "\"}\n"));
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"error\":{\"code\":-32603,\"message\":\"The worker's answer is "
                              "larger than max_input_buffer\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"too_large\",\"pool\":\"p\","
                              "\"worker\":1,\"sent\":true}}}\n");
    CHECK(ext_stats(bus).oversize_frames == 1 && stdio_bus_pending_count(bus) == 0);
    ask(bus, client, 1);
    finish(bus);
}

static void a_workers_line_above_the_limit_without_a_readable_id_ends_nothing(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    worker_says(large_request("{\"result\":\"", 5000, "\",\"id\":1}\n{\"id\":1,\"result\":\"short\"}\n"));
    client_hears(bus, client, "{\"id\":1,\"result\":\"short\"}\n");
    finish(bus);
}

static void a_workers_request_above_the_limit_ends_no_request_with_the_same_id(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    worker_says(large_request("{\"id\":1,\"method\":\"question\",\"params\":\"", 5000, "\"}\n{\"id\":1,\"result\":2}\n"));
    client_hears(bus, client, "{\"id\":1,\"result\":2}\n");
    finish(bus);
}

/* ---- a worker's other output ---------------------------------------------------------------------- */

static void a_workers_request_above_the_limit_is_refused(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    worker_says(large_request("{\"method\":\"question\",\"id\":5,\"params\":\"", 5000, "\"}\n"));
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":-32600,\"message\":\"Message too large\","
                                 "\"data\":{\"source\":\"stdio_bus\",\"reason\":\"too_large\"}}}");
    CHECK(seen.count == 0);
    finish(bus);
}

static void a_workers_line_that_is_no_json_is_an_event_with_the_line(void)
{
    static const char *const lines[] = {"starting up...", "[1]", "1", "{\"id\":1}", "{\"id\":1"};
    stdio_bus_t *bus = start(CONFIG, 0);
    for (size_t i = 0; i < SB_COUNT(lines); i++) {
        worker_says(lines[i]);
        worker_says("\n");
        STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_GARBAGE) == (int)i + 1);
        CHECK_STR(last_event(STDIO_BUS_EVENT_WORKER_GARBAGE)->text, lines[i]);
        CHECK(last_event(STDIO_BUS_EVENT_WORKER_GARBAGE)->event.worker == played.id);
    }
    CHECK(seen.count == 0 && ext_stats(bus).worker_garbage == SB_COUNT(lines));
    CHECK(stdio_bus_worker_count(bus) == 1);
    finish(bus);
}

static void of_many_bad_lines_of_a_worker_few_are_logged(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    seen.logs[2] = 0;
    for (int i = 0; i < 200; i++) worker_says("oops\n");
    STEP_UNTIL(bus, ext_stats(bus).worker_garbage == 200);
    CHECK(seen.logs[2] >= 1 && seen.logs[2] <= 20);
    CHECK(strstr(seen.log[2], "oops") != NULL);
    finish(bus);
}

/* ---- lengths ------------------------------------------------------------------------------------------ */

static int connect_by_length(stdio_bus_t *bus)
{
    stdio_bus_client_options_t options = {0};
    options.size = sizeof options;
    options.framing = STDIO_BUS_FRAMING_LENGTH;
    return connect_pair_with(bus, &options);
}

static void send_length(int fd, size_t len)
{
    unsigned char length[4] = {(unsigned char)(len >> 24), (unsigned char)(len >> 16), (unsigned char)(len >> 8),
                               (unsigned char)len};
    client_sends(fd, length, sizeof length);
}

static void send_frame(int fd, const char *text)
{
    send_length(fd, strlen(text));
    client_says(fd, text);
}

static void hear_frame(stdio_bus_t *bus, int fd, const char *want)
{
    unsigned char length[4];
    client_gets(bus, fd, length, sizeof length);
    CHECK(length[0] == 0 && length[1] == 0 && (size_t)(length[2] << 8 | length[3]) == strlen(want));
    client_hears(bus, fd, want);
}

static void frames_by_length_go_both_ways(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_by_length(bus);
    send_frame(client, "{\"id\":1,\"method\":\"a\"}");
    send_length(client, 0);
    send_frame(client, "{\"id\":2,\"method\":\"b\"}");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"a\"}");
    CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"b\"}");
    worker_says("{\"id\":1,\"result\":\"one\"}\n{\"id\":2,\"result\":\"two\"}\n");
    hear_frame(bus, client, "{\"id\":1,\"result\":\"one\"}");
    hear_frame(bus, client, "{\"id\":2,\"result\":\"two\"}");
    finish(bus);
}

static void the_configuration_sets_the_framing_of_clients(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" DEAD("p") "],\"transport\":{\"framing\":\"length\"}}", 0);
    int client = connect_pair(bus);
    send_frame(client, "{\"id\":1,\"method\":\"a\"}");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"a\"}");
    worker_says("{\"id\":1,\"result\":\"one\"}\n");
    hear_frame(bus, client, "{\"id\":1,\"result\":\"one\"}");
    finish(bus);
}

static void any_split_of_frames_by_length_gives_the_same_frames(void)
{
    static const char stream[] = "\0\0\0\x15{\"id\":1,\"method\":\"a\"}\0\0\0\x15{\"id\":2,\"method\":\"b\"}";
    stdio_bus_t *bus = start(CONFIG, 0);
    for (size_t cut = 1; cut < sizeof stream - 1; cut++) {
        int client = connect_by_length(bus);
        client_sends(client, stream, cut);
        CHECK(stdio_bus_step(bus, 0) >= 0 && stdio_bus_step(bus, 0) >= 0);
        client_sends(client, stream + cut, sizeof stream - 1 - cut);
        CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"a\"}");
        CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"b\"}");
        worker_says("{\"id\":1,\"result\":0}\n{\"id\":2,\"result\":0}\n");
        hear_frame(bus, client, "{\"id\":1,\"result\":0}");
        hear_frame(bus, client, "{\"id\":2,\"result\":0}");
        close(client);
    }
    finish(bus);
}

static void newlines_inside_a_frame_by_length_are_flattened_before_the_worker(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_by_length(bus);
    send_frame(client, "{\n\"id\":1,\r\n\"method\":\"m\"\n}\n");
    CHECK_STR(worker_reads(bus), "{ \"id\":1,  \"method\":\"m\" } ");
    finish(bus);
}

static void an_oversize_length_is_answered_and_the_connection_closed(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_by_length(bus);
    send_length(client, 1025);
    hear_frame(bus, client, NO_ID "\"code\":-32600,\"message\":\"Frame too large\",\"data\":{\"source\":\"stdio_bus\","
                                  "\"reason\":\"too_large\"}}}");
    CHECK(client_line(bus, client) == NULL);
    CHECK(ext_stats(bus).oversize_frames == 1);
    finish(bus);
}

static void a_bad_frame_by_length_is_answered_and_the_connection_stays(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_by_length(bus);
    send_frame(client, "hello");
    hear_frame(bus, client, NO_ID "\"code\":-32700,\"message\":\"Parse error\",\"data\":{\"source\":\"stdio_bus\","
                                  "\"reason\":\"parse_error\"}}}");
    send_frame(client, "{\"id\":1,\"method\":\"m\"}");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    finish(bus);
}

static void a_frame_by_length_that_ends_too_early_reaches_nobody(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_by_length(bus);
    send_length(client, 100);
    client_says(client, "{\"id\":1,\"method\":\"m\"}");
    CHECK(shutdown(client, SHUT_WR) == 0);
    CHECK(client_line(bus, client) == NULL);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"next\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"next\"}");
    finish(bus);
}

/* ---- bytes -------------------------------------------------------------------------------------------- */

static void bytes_that_are_no_utf8_pass_between_sockets_as_they_are(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\",\"params\":\"\xff\xc0\x80\xed\xa0\x80\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\",\"params\":\"\xff\xc0\x80\xed\xa0\x80\"}");
    worker_says("{\"id\":1,\"result\":\"\xfe\x80\"}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":\"\xfe\x80\"}\n");
    finish(bus);
}

static void a_hundred_thousand_brackets_pass_both_ways(void)
{
    enum { DEPTH = 100000 };
    char *brackets = malloc(2 * DEPTH + 64), *line = malloc(2 * DEPTH + 64);
    stdio_bus_t *bus = create(POOLS(ECHO("p")), 0);
    int client;
    const char *got;
    CHECK(brackets != NULL && line != NULL && bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    memset(brackets, '[', DEPTH);
    memset(brackets + DEPTH, ']', DEPTH);
    brackets[2 * DEPTH] = '\0';
    client = connect_pair(bus);
    CHECK(snprintf(line, 2 * DEPTH + 64, "{\"id\":1,\"method\":\"m\",\"params\":%s}\n", brackets) > 0);
    for (size_t at = 0; line[at] != '\0';) {
        ssize_t sent = send(client, line + at, strlen(line + at), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) at += (size_t)sent;
        CHECK(stdio_bus_step(bus, sent > 0 ? 0 : 10) >= 0);
    }
    CHECK(snprintf(line, 2 * DEPTH + 64, "{\"id\":1,\"result\":0,\"params\":%s}", brackets) > 0);
    got = client_line(bus, client);
    CHECK(got != NULL && strcmp(got, line) == 0);
    finish(bus);
    free(brackets);
    free(line);
}

static void a_clients_answer_above_the_limit_leaves_no_worker_waiting(void)
{
    stdio_bus_t *bus = start(SMALL, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    worker_says("{\"id\":5,\"method\":\"question\"}\n");
    CHECK_STR(client_line(bus, client), "{\"id\":5,\"method\":\"question\"}");
    client_says(client, large_request("{\"id\":5,\"result\":\"", 5000, "\"}\n"));
    CHECK(strncmp(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":-32601", 46) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_clients_answer_above_the_limit_leaves_no_worker_waiting),
    TEST(a_clients_bom_carriage_returns_and_blank_lines_are_taken_off),
    TEST(a_workers_bom_carriage_returns_and_blank_lines_are_taken_off),
    TEST(any_split_of_a_clients_stream_gives_the_same_frames),
    TEST(any_split_of_a_workers_stream_gives_the_same_frames),
    TEST(what_is_no_complete_object_is_answered_and_the_connection_stays),
    TEST(a_clients_unterminated_last_line_counts_only_if_it_is_complete),
    TEST(a_workers_unterminated_last_line_counts_only_if_it_is_complete),
    TEST(the_body_of_a_browsers_post_to_a_tcp_port_never_arrives),
    TEST(a_tcp_client_whose_first_frame_is_an_array_is_answered_and_closed),
    TEST(a_bad_line_after_a_good_one_leaves_a_tcp_connection_open),
    TEST(an_oversize_first_line_lets_no_header_pass_over_tcp),
    TEST(a_clients_frame_above_the_limit_is_answered_under_its_id_and_the_next_one_is_read),
    TEST(a_frame_above_the_limit_whose_id_comes_too_late_is_answered_without_one),
    TEST(a_frame_that_never_ends_is_answered_at_once_and_not_kept),
    TEST(the_limit_is_per_frame_and_not_per_burst),
    TEST(a_frame_of_exactly_the_limit_passes),
    TEST(a_workers_answer_above_the_limit_ends_its_request_and_the_worker_lives),
    TEST(a_workers_line_above_the_limit_without_a_readable_id_ends_nothing),
    TEST(a_workers_request_above_the_limit_ends_no_request_with_the_same_id),
    TEST(a_workers_request_above_the_limit_is_refused),
    TEST(a_workers_line_that_is_no_json_is_an_event_with_the_line),
    TEST(of_many_bad_lines_of_a_worker_few_are_logged),
    TEST(frames_by_length_go_both_ways),
    TEST(the_configuration_sets_the_framing_of_clients),
    TEST(any_split_of_frames_by_length_gives_the_same_frames),
    TEST(newlines_inside_a_frame_by_length_are_flattened_before_the_worker),
    TEST(an_oversize_length_is_answered_and_the_connection_closed),
    TEST(a_bad_frame_by_length_is_answered_and_the_connection_stays),
    TEST(a_frame_by_length_that_ends_too_early_reaches_nobody),
    TEST(bytes_that_are_no_utf8_pass_between_sockets_as_they_are),
    TEST(a_hundred_thousand_brackets_pass_both_ways),
};

TEST_MAIN(tests)
