/*
 * test_bus.c - the public API over embedded workers: the test itself plays the
 * worker on the other end of the pipes, so that every order of events is the
 * test's to choose.
 */
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

/* ---- messages -------------------------------------------------------------------- */

static void a_request_is_answered_under_both_pollers(void)
{
    for (unsigned flags = 0; flags <= STDIO_BUS_CREATE_POLL; flags += STDIO_BUS_CREATE_POLL) {
        stdio_bus_t *bus = start(CONFIG, flags);
        seen.count = 0;
        CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}\n") == STDIO_BUS_OK);
        CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
        CHECK(stdio_bus_pending_count(bus) == 1);
        worker_says("{\"id\":1,\"result\":2}\n");
        STEP_UNTIL(bus, seen.count == 1);
        CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":2}");
        CHECK(stdio_bus_pending_count(bus) == 0);
        finish(bus);
    }
}

static void a_newline_between_tokens_is_flattened(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\r\n\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,  \"method\":\"m\"}");
    finish(bus);
}

static void what_is_no_message_is_refused_and_nothing_follows(void)
{
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"", STDIO_BUS_ERR_INVALID},        {"hello", STDIO_BUS_ERR_INVALID},
        {"[1]", STDIO_BUS_ERR_INVALID},     {"{\"id\":1", STDIO_BUS_ERR_INVALID},
        {"{\"id\":1}", STDIO_BUS_ERR_INVALID}, {"{\"id\":1,\"method\":\"m\",\"id\":2}", STDIO_BUS_ERR_INVALID}, {"{\"id\":1,\"method\":\"m\",\"pool\":\"zz\"}", STDIO_BUS_ERR_ROUTING},
    };
    stdio_bus_t *bus = start(CONFIG, 0);
    for (size_t i = 0; i < SB_COUNT(cases); i++) CHECK(ingest(bus, cases[i].text) == cases[i].status);
    for (int i = 0; i < 5; i++) stdio_bus_step(bus, 0);
    CHECK(seen.count == 0 && stdio_bus_pending_count(bus) == 0);
    finish(bus);
}

static void null_arguments_have_a_status(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_get_state(NULL) == STDIO_BUS_STATE_STOPPED);
    CHECK(stdio_bus_start(NULL) == STDIO_BUS_ERR_INVALID && stdio_bus_step(NULL, 0) == STDIO_BUS_ERR_INVALID);
    CHECK(stdio_bus_ingest(bus, NULL, 3) == STDIO_BUS_ERR_INVALID && stdio_bus_stop(NULL, 1) == STDIO_BUS_ERR_INVALID);
    CHECK(stdio_bus_worker_count(NULL) == STDIO_BUS_ERR_INVALID && stdio_bus_get_poll_fd(NULL) == -1);
    CHECK(stdio_bus_wakeup(NULL) == STDIO_BUS_ERR_INVALID && stdio_bus_create(NULL) == NULL);
    stdio_bus_get_stats(NULL, NULL);
    stdio_bus_destroy(NULL);
    finish(bus);
}

static void two_pools_need_a_name(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_ERR_ROUTING);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"agentId\":\"p\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(ingest(bus, "{\"id\":3,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":3,\"method\":\"m\",\"sessionId\":\"s\"}");
    finish(bus);
}

static void refusals_become_answers_where_that_was_asked_for(void)
{
    stdio_bus_submit_options_t options = {0};
    const char *msg = "{\"id\":\"x\",\"method\":\"m\",\"pool\":\"zz\"}";
    stdio_bus_t *bus = start(CONFIG, 0);
    options.size = sizeof options;
    options.flags = STDIO_BUS_SUBMIT_ANSWER_ERRORS;
    CHECK(stdio_bus_submit(bus, msg, strlen(msg), &options) == STDIO_BUS_OK);
    CHECK(seen.count == 0);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":{\"code\":-32010,\"message\":\"Unknown pool: \\\"zz\\\"\","
                            "\"data\":{\"source\":\"stdio_bus\",\"reason\":\"unroutable\",\"sent\":false}}}");
    finish(bus);
}

static void a_mcp_pool_sees_no_routing_members_and_only_issued_ids(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD_WITH("p", "\"protocol\":\"mcp\"")), 0);
    CHECK(ingest(bus, "{\"sessionId\":\"s\",\"id\":\"mine\",\"method\":\"m\",\"pool\":\"p\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    worker_says("{\"id\":1,\"result\":{}}\n");
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"id\":\"mine\",\"result\":{}}");
    finish(bus);
}

static void a_cancelled_request_gets_no_answer_and_its_id_stays_taken(void)
{
    stdio_bus_ext_stats_t stats = {0};
    stdio_bus_t *bus = start(CONFIG, 0);
    stats.size = sizeof stats;
    CHECK(ingest(bus, "{\"id\":7,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_cancel(bus, "8", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_cancel(bus, "7", 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_cancel(bus, "7", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_pending_count(bus) == 0);
    CHECK(ingest(bus, "{\"id\":7,\"method\":\"again\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"again\"}");
    worker_says("{\"id\":7,\"result\":\"late\"}\n{\"id\":1,\"result\":\"right\"}\n");
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"id\":7,\"result\":\"right\"}");
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK && stats.late_answers == 1 && stats.tombstones == 0);
    finish(bus);
}

static void what_a_worker_says_to_nobody_reaches_the_host(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_says("{\"method\":\"news\"}\n{\"id\":0,\"method\":\"question\"}\n");
    STEP_UNTIL(bus, seen.count == 2);
    CHECK_STR(seen.frame[0].text, "{\"method\":\"news\"}");
    CHECK(ingest(bus, "{\"id\":0,\"result\":\"answer\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":0,\"result\":\"answer\"}");
    finish(bus);
}

static void a_question_that_nobody_can_answer_is_declined(void)
{
    stdio_bus_t *bus = start(CONFIG, STDIO_BUS_CREATE_NO_HOST);
    worker_says("{\"id\":0,\"method\":\"question\"}\n");
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{\"code\":-32601,\"message\":\"No client can answer "
                                 "this request\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"no_client\"}}}");
    worker_says("{\"id\":1,\"method\":\"session/request_permission\"}\n");
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"outcome\":{\"outcome\":\"cancelled\"}}}");
    CHECK(seen.count == 0);
    finish(bus);
}

static void a_line_that_is_no_json_is_counted_and_the_worker_lives(void)
{
    stdio_bus_ext_stats_t stats = {0};
    stdio_bus_t *bus = start(CONFIG, 0);
    stats.size = sizeof stats;
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_says("starting up...\n{\"id\":1,\"result\":1}\n");
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK && stats.worker_garbage == 1);
    finish(bus);
}

static void a_worker_that_goes_ends_its_requests(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    worker_says("{\"id\":2,\"result\":\"last words\"}");
    goes(played);
    STEP_UNTIL(bus, seen.count == 2);
    CHECK_STR(seen.frame[0].text, "{\"id\":2,\"result\":\"last words\"}");
    CHECK(strstr(seen.frame[1].text, "\"id\":1,\"error\":{\"code\":-32011") != NULL);
    CHECK(ingest(bus, "{\"id\":3,\"method\":\"m\"}") == STDIO_BUS_ERR_WORKER);
    finish(bus);
}

/* ---- calls from inside callbacks ---------------------------------------------------- */

static void call_everything(stdio_bus_t *bus)
{
    seen.inside = NULL;
    CHECK(stdio_bus_step(bus, 0) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_unregister_embedded_worker(bus, 1) == STDIO_BUS_ERR_STATE);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"nested\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPING);
    CHECK(ingest(bus, "{\"id\":3,\"method\":\"late\"}") == STDIO_BUS_ERR_STATE);
    seen.nested = 1;
}

static void ingest_and_stop_work_inside_a_callback_and_step_says_no(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    seen.inside = call_everything;
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_says("{\"id\":1,\"result\":1}\n{\"method\":\"more\"}\n");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(seen.nested == 1);
    stdio_bus_destroy(bus);
}

static void destroy_inside_a_callback_waits_for_the_step(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    seen.inside = stdio_bus_destroy;
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_says("{\"id\":1,\"result\":1}\n");
    for (long deadline = now_ms() + BOUND_MS; seen.count == 0;) {
        CHECK(now_ms() < deadline);
        stdio_bus_step(bus, 20);
    }
}

/* ---- waiting ---------------------------------------------------------------------------- */

static bool readable(int fd, int timeout_ms)
{
    struct pollfd wait = {fd, POLLIN, 0};
    return poll(&wait, 1, timeout_ms) == 1;
}

/* Steps until the descriptor says that nothing is left to do. */
static void settle(stdio_bus_t *bus, int fd)
{
    for (int i = 0; readable(fd, 0); i++) {
        CHECK(i < 20);
        stdio_bus_step(bus, 0);
    }
}

static void the_poll_fd_is_readable_exactly_when_step_has_work(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int fd = stdio_bus_get_poll_fd(bus);
    CHECK(fd >= 0 && fd == stdio_bus_get_poll_fd(bus));
    settle(bus, fd);
    CHECK(!readable(fd, 100));
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(readable(fd, 0));
    settle(bus, fd);
    worker_reads(bus);
    CHECK(!readable(fd, 50));
    worker_says("{\"id\":1,\"result\":1}\n");
    CHECK(readable(fd, 0));
    settle(bus, fd);
    CHECK(seen.count == 1 && !readable(fd, 50));
    CHECK(stdio_bus_wakeup(bus) == STDIO_BUS_OK && readable(fd, 0));
    settle(bus, fd);
    stdio_bus_destroy(bus);
}

static void the_poll_fd_alone_drives_exits_timers_and_the_stop_ladder(void)
{
    stdio_bus_t *bus = create("{\"pools\":[{\"id\":\"p\",\"command\":\"sh\",\"args\":[\"-c\",\"trap '' TERM; while :; do sleep 9; "
                              "done\"]},{\"id\":\"q\",\"command\":\"false\"}]}", 0);
    int fd;
    stdio_bus_stats_t stats;
    long began;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    fd = stdio_bus_get_poll_fd(bus);
    do {
        CHECK(readable(fd, BOUND_MS));
        stdio_bus_step(bus, 0);
        stdio_bus_get_stats(bus, &stats);
    } while (stats.worker_restarts < 2);
    began = now_ms();
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    while (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) {
        CHECK(readable(fd, BOUND_MS));
        stdio_bus_step(bus, 0);
    }
    CHECK(now_ms() - began < 1500);
    stdio_bus_destroy(bus);
}

static void the_poll_poller_has_no_descriptor(void)
{
    stdio_bus_t *bus = start(CONFIG, STDIO_BUS_CREATE_POLL);
    CHECK(stdio_bus_get_poll_fd(bus) == -1);
    finish(bus);
}

static void a_step_without_work_lasts_as_long_as_it_may(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    long began;
    stdio_bus_step(bus, 0);
    began = now_ms();
    stdio_bus_step(bus, 60);
    CHECK(now_ms() - began >= 59);
    CHECK(stdio_bus_wakeup(bus) == STDIO_BUS_OK);
    began = now_ms();
    stdio_bus_step(bus, 5000);
    CHECK(now_ms() - began < 1000);
    finish(bus);
}

/* ---- clients ------------------------------------------------------------------------------ */

static void two_clients_with_the_same_id_hear_their_own_answers(void)
{
    int a[2], b[2];
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, a) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, b) == 0);
    CHECK(stdio_bus_adopt_client(bus, a[1], a[1]) > 0 && stdio_bus_adopt_client(bus, b[1], b[1]) > 0);
    CHECK(stdio_bus_client_count(bus) == 2);
    client_says(a[0], "{\"id\":1,\"method\":\"a\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"a\"}");
    client_says(b[0], "{\"id\":1,\"method\":\"b\"}\n");
    /* 1 is taken on this worker, so the bus issues the next free number. */
    CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"b\"}");
    worker_says("{\"id\":2,\"result\":\"for b\"}\n{\"id\":1,\"result\":\"for a\"}\n");
    client_hears(bus, b[0], "{\"id\":1,\"result\":\"for b\"}\n");
    client_hears(bus, a[0], "{\"id\":1,\"result\":\"for a\"}\n");
    finish(bus);
}

static void a_bad_line_is_answered_and_the_client_stays(void)
{
    int pair[2];
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    client_says(pair[0], "hello\n[1]\n{\"id\":1,\"method\":\"stdio_bus/auth\"}\n");
    client_hears(bus, pair[0], "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"Parse error\","
                               "\"data\":{\"source\":\"stdio_bus\",\"reason\":\"parse_error\"}}}\n"
                               "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"Batch requests are "
                               "not supported\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"batch\"}}}\n"
                               "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":true}}\n");
    finish(bus);
    CHECK(seen.disconnects == 1);
    CHECK_STR(seen.reason, "shutdown");
}

static void a_client_gives_up_a_request_by_telling_the_bus(void)
{
    int one[2], two[2];
    stdio_bus_ext_stats_t stats = {.size = sizeof stats};
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, one) == 0 && stdio_bus_adopt_client(bus, one[1], one[1]) > 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, two) == 0 && stdio_bus_adopt_client(bus, two[1], two[1]) > 0);
    client_says(one[0], "{\"id\":\"a\",\"method\":\"m\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":\"a\",\"method\":\"m\"}");
    /* Only its own: to another client that id means nothing. */
    client_says(two[0], "{\"id\":1,\"method\":\"stdio_bus/cancel\",\"params\":{\"requestId\":\"a\"}}\n");
    client_hears(bus, two[0], "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":false}}\n");
    CHECK(stdio_bus_pending_count(bus) == 1);
    client_says(one[0], "{\"method\":\"stdio_bus\\/cancel\",\"params\":{\"requestId\":\"a\"}}\n"
                        "{\"id\":2,\"method\":\"stdio_bus/cancel\",\"params\":{\"requestId\":\"a\"}}\n"
                        "{\"id\":3,\"method\":\"stdio_bus/cancel\"}\n{\"id\":\"b\",\"method\":\"m\"}\n");
    client_hears(bus, one[0], "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":false}}\n"
                              "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"ok\":false}}\n");
    /* None of it reached the worker; what comes for the request is swallowed. */
    CHECK_STR(worker_reads(bus), "{\"id\":\"b\",\"method\":\"m\"}");
    worker_says("{\"id\":\"a\",\"result\":1}\n{\"id\":\"b\",\"result\":2}\n");
    client_hears(bus, one[0], "{\"id\":\"b\",\"result\":2}\n");
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK && stats.late_answers == 1 && stats.stale_cancels == 3);
    CHECK(stats.tombstones == 0 && stdio_bus_pending_count(bus) == 0);
    finish(bus);
}

static void a_client_that_closed_its_sending_side_still_gets_its_answers(void)
{
    int pair[2];
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    client_says(pair[0], "{\"id\":1,\"method\":\"m\"}");
    CHECK(shutdown(pair[0], SHUT_WR) == 0);
    worker_reads(bus);
    CHECK(stdio_bus_client_count(bus) == 1);
    worker_says("{\"id\":1,\"result\":1}\n");
    client_hears(bus, pair[0], "{\"id\":1,\"result\":1}\n");
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK_STR(seen.reason, "closed");
    finish(bus);
}

static void a_client_that_leaves_with_questions_open_has_them_declined(void)
{
    int pair[2];
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    client_says(pair[0], "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    worker_says("{\"id\":5,\"method\":\"question\"}\n");
    client_hears(bus, pair[0], "{\"id\":5,\"method\":\"question\"}\n");
    close(pair[0]);
    CHECK(strncmp(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":-32601", 46) == 0);
    worker_says("{\"id\":1,\"result\":\"late\"}\n");
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    finish(bus);
    CHECK(seen.count == 0);
}

/* ---- start --------------------------------------------------------------------------------- */

static void programs_can_be_looked_for_without_being_started(void)
{
    stdio_bus_t *bus = create(POOLS("{\"id\":\"p\",\"command\":\"sh\"},{\"id\":\"q\",\"command\":\"x\",\"instances\":0}"), 0);
    CHECK(bus != NULL && stdio_bus_check(bus) == STDIO_BUS_OK && stdio_bus_worker_count(bus) == 0);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK && stdio_bus_check(bus) == STDIO_BUS_OK);
    finish(bus);
    bus = create(POOLS("{\"id\":\"p\",\"command\":\"sh\"},{\"id\":\"q\",\"command\":\"no-such-program\"}"), 0);
    CHECK(bus != NULL && stdio_bus_check(bus) == STDIO_BUS_ERR_WORKER);
    CHECK_STR(seen.error, "check: cannot execute no-such-program (pool q): No such file or directory");
    stdio_bus_destroy(bus);
    bus = create(POOLS("{\"id\":\"p\",\"command\":\"sh\",\"cwd\":\"/no/such/folder\"}"), 0);
    CHECK(bus != NULL && stdio_bus_check(bus) == STDIO_BUS_ERR_WORKER);
    CHECK_STR(seen.error, "check: cannot enter the directory of sh (pool p, cwd /no/such/folder): No such file or directory");
    stdio_bus_destroy(bus);
    CHECK(stdio_bus_check(NULL) == STDIO_BUS_ERR_INVALID);
}

static void a_missing_program_is_named_with_the_reason(void)
{
    stdio_bus_t *bus = create("{\"pools\":[{\"id\":\"p\",\"command\":\"no-such-program\"}]}", 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_ERR_WORKER);
    CHECK_STR(seen.error, "cannot execute no-such-program (pool p): No such file or directory");
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED && stdio_bus_start(bus) == STDIO_BUS_ERR_STATE);
    stdio_bus_destroy(bus);
    bus = create("{\"pools\":[{\"id\":\"p\",\"command\":\"/dev/null\"}]}", 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_ERR_WORKER);
    CHECK_STR(seen.error, "cannot execute /dev/null (pool p): Permission denied");
    stdio_bus_destroy(bus);
    bus = create("{\"pools\":[{\"id\":\"p\",\"command\":\"cat\",\"cwd\":\"/no/such/place\"}]}", 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_ERR_WORKER);
    CHECK_STR(seen.error, "cannot enter the directory of cat (pool p, cwd /no/such/place): No such file or directory");
    stdio_bus_destroy(bus);
}

static void create_says_what_is_wrong(void)
{
    CHECK(create("{\"pools\":[{\"id\":\"p\"}]}", 0) == NULL);
    CHECK(strncmp(seen.error, "config: line 1, column ", 23) == 0);
    CHECK(create(NULL, 0) == NULL);
    CHECK_STR(seen.error, "config: neither config_path nor config_json is set");
}

/* As many as a pool can have, within the time of a test: each is added in constant time. */
static void a_pool_of_65536_workers_is_made(void)
{
    stdio_bus_t *bus = create("{\"pools\":[{\"id\":\"p\",\"command\":\"c\",\"instances\":65536}]}", 0);
    CHECK(bus != NULL);
    stdio_bus_destroy(bus);
}

static void create_survives_every_failing_allocation(void)
{
    stdio_bus_t *bus = NULL;
    for (size_t n = 1; bus == NULL; n++) {
        CHECK(n < 1000);
        sb_test_fail_alloc(n, true);
        bus = create(CONFIG, 0);
        sb_test_fail_alloc(0, false);
    }
    stdio_bus_destroy(bus);
}

static void requests_wait_while_a_worker_is_being_restarted(void)
{
    stdio_bus_t *bus = create(POOLS(ECHO("p")), 0);
    stdio_bus_worker_info_t info = {0};
    stdio_bus_stats_t stats;
    info.size = sizeof info;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(stdio_bus_worker_info(bus, 0, &info) == STDIO_BUS_OK && info.pid > 0);
    CHECK(kill(info.pid, SIGKILL) == 0);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"id\":3,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_pending_count(bus) == 3);
    CHECK(stdio_bus_cancel(bus, "2", 1) == STDIO_BUS_OK && stdio_bus_pending_count(bus) == 2);
    STEP_UNTIL(bus, seen.count == 2);
    CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":0,\"sessionId\":\"s\"}");
    CHECK_STR(seen.frame[1].text, "{\"id\":3,\"result\":0}");
    stdio_bus_get_stats(bus, &stats);
    CHECK(stats.worker_restarts == 1);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_request_is_answered_under_both_pollers),
    TEST(a_newline_between_tokens_is_flattened),
    TEST(what_is_no_message_is_refused_and_nothing_follows),
    TEST(null_arguments_have_a_status),
    TEST(two_pools_need_a_name),
    TEST(refusals_become_answers_where_that_was_asked_for),
    TEST(a_mcp_pool_sees_no_routing_members_and_only_issued_ids),
    TEST(a_cancelled_request_gets_no_answer_and_its_id_stays_taken),
    TEST(what_a_worker_says_to_nobody_reaches_the_host),
    TEST(a_question_that_nobody_can_answer_is_declined),
    TEST(a_line_that_is_no_json_is_counted_and_the_worker_lives),
    TEST(a_worker_that_goes_ends_its_requests),
    TEST(ingest_and_stop_work_inside_a_callback_and_step_says_no),
    TEST(destroy_inside_a_callback_waits_for_the_step),
    TEST(the_poll_fd_is_readable_exactly_when_step_has_work),
    TEST(the_poll_fd_alone_drives_exits_timers_and_the_stop_ladder),
    TEST(the_poll_poller_has_no_descriptor),
    TEST(a_step_without_work_lasts_as_long_as_it_may),
    TEST(two_clients_with_the_same_id_hear_their_own_answers),
    TEST(a_bad_line_is_answered_and_the_client_stays),
    TEST(a_client_gives_up_a_request_by_telling_the_bus),
    TEST(a_client_that_closed_its_sending_side_still_gets_its_answers),
    TEST(a_client_that_leaves_with_questions_open_has_them_declined),
    TEST(programs_can_be_looked_for_without_being_started),
    TEST(a_missing_program_is_named_with_the_reason),
    TEST(create_says_what_is_wrong),
    TEST(a_pool_of_65536_workers_is_made),
    TEST(create_survives_every_failing_allocation),
    TEST(requests_wait_while_a_worker_is_being_restarted),
};

TEST_MAIN(tests)
