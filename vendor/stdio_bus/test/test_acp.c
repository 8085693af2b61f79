/* test_acp.c - pools whose workers speak ACP: sessions that workers create, turns, permissions, cancellation. */
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

#define INITIALIZE(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}"
#define ANSWER(id, result) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"result\":" result "}\n"
#define NEW(id) "{\"id\":" id ",\"method\":\"session/new\",\"params\":{}}"
#define PROMPT(id, session) "{\"id\":" id ",\"method\":\"session/prompt\",\"params\":{\"sessionId\":\"" session "\"}}"
#define UPDATE(session) "{\"method\":\"session/update\",\"params\":{\"sessionId\":\"" session "\"}}\n"
#define PERMISSION(id, session) "{\"id\":" id ",\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"" session "\"}}"
#define CANCEL(session) "{\"jsonrpc\":\"2.0\",\"method\":\"session/cancel\",\"params\":{\"sessionId\":\"" session "\"}}"
#define DECLINED(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"result\":{\"outcome\":{\"outcome\":\"cancelled\"}}}"
#define ACP POOLS(DEAD_WITH("p", "\"protocol\":\"acp\""))

static void tells(int client, const char *line)
{
    client_says(client, line);
    client_says(client, "\n");
}

static void lands(stdio_bus_t *bus, int client, const char *line, worker_t worker, const char *want)
{
    tells(client, line);
    CHECK_STR(reads(bus, worker), want);
}

/* The client opens a session, which the worker calls by this name; `id` is what the worker reads. */
static void opens(stdio_bus_t *bus, int client, worker_t worker, const char *id, const char *session)
{
    char line[256];
    snprintf(line, sizeof line, "{\"id\":%s,\"method\":\"session/new\",\"params\":{}}", id);
    lands(bus, client, NEW("0"), worker, line);
    snprintf(line, sizeof line, "{\"id\":%s,\"result\":{\"sessionId\":\"%s\"}}\n", id, session);
    says(worker, line);
    snprintf(line, sizeof line, "{\"id\":0,\"result\":{\"sessionId\":\"%s\"}}\n", session);
    client_hears(bus, client, line);
}

/* ---- sessions ---------------------------------------------------------------------------- */

static void an_agent_is_initialized_once_and_gets_no_initialized(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, INITIALIZE("0"), played, INITIALIZE("1"));
    worker_says(ANSWER("1", "{\"protocolVersion\":1}"));
    client_hears(bus, one, ANSWER("0", "{\"protocolVersion\":1}"));
    tells(two, INITIALIZE("0"));
    client_hears(bus, two, ANSWER("0", "{\"protocolVersion\":1}"));
    lands(bus, two, NEW("1"), played, NEW("2"));
    finish(bus);
}

static void sessions_are_spread_and_each_stays_with_the_agent_that_made_it(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    opens(bus, client, other, "1", "b");
    opens(bus, client, played, "2", "c");
    lands(bus, client, PROMPT("1", "b"), other, PROMPT("2", "b"));
    lands(bus, client, PROMPT("2", "a"), played, PROMPT("3", "a"));
    lands(bus, client, PROMPT("3", "c"), played, PROMPT("4", "c"));
    lands(bus, client, "{\"id\":4,\"method\":\"session/set_mode\",\"params\":{\"sessionId\":\"b\"},\"sessionId\":\"mine\"}", other,
          "{\"id\":3,\"method\":\"session/set_mode\",\"params\":{\"sessionId\":\"b\"}}");
    finish(bus);
}

static void updates_reach_who_prompts_and_else_the_owner(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    opens(bus, two, played, "2", "b");
    worker_says(UPDATE("a") UPDATE("b"));
    client_hears(bus, one, UPDATE("a"));
    client_hears(bus, two, UPDATE("b"));
    /* A prompt brings the session along. */
    lands(bus, two, PROMPT("1", "a"), played, PROMPT("3", "a"));
    worker_says(UPDATE("a") "{\"id\":3,\"result\":{}}\n" UPDATE("a"));
    client_hears(bus, two, UPDATE("a"));
    client_hears(bus, two, "{\"id\":1,\"result\":{}}\n");
    client_hears(bus, two, UPDATE("a"));
    /* The next one to use it owns it when its owner has left. */
    close(two);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    lands(bus, one, "{\"id\":2,\"method\":\"session/set_mode\",\"params\":{\"sessionId\":\"a\"}}", played,
          "{\"id\":4,\"method\":\"session/set_mode\",\"params\":{\"sessionId\":\"a\"}}");
    worker_says("{\"id\":4,\"result\":{}}\n" UPDATE("a"));
    client_hears(bus, one, "{\"id\":2,\"result\":{}}\n");
    client_hears(bus, one, UPDATE("a"));
    finish(bus);
}

static void a_loaded_session_replays_to_who_loads_it_and_stays_with_its_agent(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    lands(bus, client, "{\"id\":1,\"method\":\"session/load\",\"params\":{\"sessionId\":\"old\"},\"sessionId\":\"x\"}", other,
          "{\"id\":1,\"method\":\"session/load\",\"params\":{\"sessionId\":\"old\"}}");
    says(other, UPDATE("old") "{\"id\":1,\"result\":{}}\n");
    client_hears(bus, client, UPDATE("old"));
    client_hears(bus, client, "{\"id\":1,\"result\":{}}\n");
    lands(bus, client, PROMPT("2", "old"), other, PROMPT("2", "old"));
    finish(bus);
}

static void a_resumed_session_may_go_on_under_another_name(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    lands(bus, client, "{\"id\":1,\"method\":\"session/resume\",\"params\":{\"sessionId\":\"old\"}}", other,
          "{\"id\":1,\"method\":\"session/resume\",\"params\":{\"sessionId\":\"old\"}}");
    says(other, "{\"id\":1,\"result\":{\"sessionId\":\"new\"}}\n");
    CHECK(client_line(bus, client) != NULL);
    lands(bus, client, PROMPT("2", "new"), other, PROMPT("2", "new"));
    lands(bus, client, PROMPT("3", "old"), other, PROMPT("3", "old"));
    says(other, UPDATE("new"));
    client_hears(bus, client, UPDATE("new"));
    goes(other);
    CHECK(strstr(client_line(bus, client), "worker_exited") != NULL);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 1);
    finish(bus);
}

static void a_session_ends_with_its_agent_or_when_it_is_closed(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    opens(bus, client, played, "2", "b");
    CHECK(stdio_bus_session_count(bus) == 2);
    lands(bus, client, "{\"id\":1,\"method\":\"session/close\",\"params\":{\"sessionId\":\"a\"}}", played,
          "{\"id\":3,\"method\":\"session/close\",\"params\":{\"sessionId\":\"a\"}}");
    worker_says("{\"id\":3,\"result\":{}}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":{}}\n");
    CHECK(stdio_bus_session_count(bus) == 1);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static void a_session_with_the_name_of_another_agents_is_an_error(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "same");
    lands(bus, client, NEW("1"), other, NEW("1"));
    says(other, "{\"id\":1,\"result\":{\"sessionId\":\"same\"}}\n");
    CHECK(strstr(client_line(bus, client), "\"id\":1,\"error\":{\"code\":-32603") != NULL);
    lands(bus, client, PROMPT("2", "same"), played, PROMPT("2", "same"));
    finish(bus);
}

static void a_session_for_which_there_is_no_room_is_an_error(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD_WITH("p", "\"protocol\":\"acp\""), "\"max_sessions\":1"), 0);
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    lands(bus, client, NEW("1"), played, NEW("2"));
    worker_says("{\"id\":2,\"result\":{\"sessionId\":\"b\"}}\n");
    CHECK(strstr(client_line(bus, client), "\"id\":1,\"error\":{\"code\":-32012") != NULL);
    lands(bus, client, PROMPT("2", "a"), played, PROMPT("3", "a"));
    finish(bus);
}

static void a_session_that_an_agent_made_names_its_pool(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD_WITH("q", "\"protocol\":\"acp\"") "," DEAD("r")), 0);
    worker_t agent = embed(bus, "q");
    stdio_bus_client_options_t options = {0};
    int client;
    options.size = sizeof options;
    options.pool = "p";
    client = connect_pair_with(bus, &options);
    lands(bus, client, "{\"id\":0,\"method\":\"session/new\",\"params\":{},\"pool\":\"q\"}", agent, NEW("1"));
    says(agent, "{\"id\":1,\"result\":{\"sessionId\":\"a\"}}\n");
    CHECK(client_line(bus, client) != NULL);
    lands(bus, client, PROMPT("1", "a"), agent, PROMPT("2", "a"));
    finish(bus);
}

static void idling_and_eviction_leave_the_sessions_of_agents_alone(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD_WITH("p", "\"protocol\":\"acp\""), "\"max_sessions\":2"), 0);
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    for (int i = 0; i < 3; i++) {
        char line[64];
        snprintf(line, sizeof line, "{\"method\":\"m\",\"sessionId\":\"s%d\"}", i);
        lands(bus, client, line, played, "{\"method\":\"m\"}");
    }
    worker_says(UPDATE("a"));
    client_hears(bus, client, UPDATE("a"));
    finish(bus);
}

/* ---- permissions ----------------------------------------------------------------------------- */

static void permissions_of_two_sessions_are_answered_in_any_order(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    opens(bus, two, played, "2", "b");
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("3", "a"));
    lands(bus, two, PROMPT("1", "b"), played, PROMPT("4", "b"));
    worker_says(PERMISSION("0", "a") "\n" PERMISSION("1", "b") "\n");
    client_hears(bus, one, PERMISSION("1", "a") "\n");
    client_hears(bus, two, PERMISSION("1", "b") "\n");
    lands(bus, two, "{\"id\":1,\"result\":{\"n\":2}}", played, "{\"id\":1,\"result\":{\"n\":2}}");
    lands(bus, one, "{\"id\":1,\"result\":{\"n\":1}}", played, "{\"id\":0,\"result\":{\"n\":1}}");
    finish(bus);
}

static void a_permission_whose_client_has_gone_is_declined_at_once(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(connect_pair(bus) >= 0 && connect_pair(bus) >= 0);
    worker_says(PERMISSION("7", "a") "\n");
    CHECK_STR(worker_reads(bus), DECLINED("7"));
    finish(bus);
}

/* ---- turns that are given up -------------------------------------------------------------------- */

static void a_turn_whose_client_leaves_is_cancelled_and_what_it_still_says_goes_nowhere(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a\\\"");
    lands(bus, one, PROMPT("1", "a\\\""), played, PROMPT("2", "a\\\""));
    worker_says(PERMISSION("0", "a\\\"") "\n");
    client_hears(bus, one, PERMISSION("1", "a\\\"") "\n");
    close(one);
    CHECK_STR(worker_reads(bus), CANCEL("a\\\""));
    CHECK_STR(worker_reads(bus), DECLINED("0"));
    /* Another client takes the session over, and its turn waits for the end of the old one. */
    tells(two, PROMPT("1", "a\\\""));
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 1);
    worker_says(UPDATE("a\\\"") PERMISSION("1", "a\\\"") "\n");
    CHECK_STR(worker_reads(bus), DECLINED("1"));
    worker_says("{\"id\":2,\"result\":{\"stopReason\":\"cancelled\"}}\n");
    CHECK_STR(worker_reads(bus), PROMPT("3", "a\\\""));
    worker_says(UPDATE("a\\\"") "{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}\n");
    client_hears(bus, two, UPDATE("a\\\""));
    client_hears(bus, two, "{\"id\":1,\"result\":{\"stopReason\":\"end_turn\"}}\n");
    CHECK(ext_stats(bus).tombstones == 0 && ext_stats(bus).late_answers == 2);
    finish(bus);
}

static void a_turn_that_the_host_gives_up_withdraws_its_questions(void)
{
    stdio_bus_t *bus = create_with_frames(ACP, 0);
    start_created(bus);
    CHECK(ingest(bus, NEW("0")) == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), NEW("1"));
    worker_says("{\"id\":1,\"result\":{\"sessionId\":\"a\"}}\n");
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(ingest(bus, PROMPT("1", "a")) == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), PROMPT("2", "a"));
    worker_says(PERMISSION("0", "a") "\n");
    STEP_UNTIL(bus, seen.count == 2);
    CHECK_STR(seen.frame[1].request, "1");
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), CANCEL("a"));
    CHECK_STR(worker_reads(bus), DECLINED("0"));
    STEP_UNTIL(bus, seen.count == 3);
    CHECK(seen.frame[2].kind == STDIO_BUS_FRAME_NOTIFICATION && seen.frame[2].flags == STDIO_BUS_FRAME_FROM_BUS);
    CHECK_STR(seen.frame[2].text, "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel_request\",\"params\":{\"requestId\":1}}");
    /* The answer that comes all the same is too late. */
    CHECK(ingest(bus, "{\"id\":1,\"result\":{\"outcome\":{\"outcome\":\"selected\",\"optionId\":\"ok\"}}}") == STDIO_BUS_OK);
    CHECK(ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void a_turn_that_a_client_gives_up_at_the_bus_is_cancelled(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    lands(bus, one, PROMPT("7", "a"), played, PROMPT("2", "a"));
    lands(bus, one, "{\"method\":\"stdio_bus/cancel\",\"params\":{\"requestId\":7}}", played, CANCEL("a"));
    CHECK(stdio_bus_pending_count(bus) == 0 && ext_stats(bus).tombstones == 1);
    worker_says("{\"id\":2,\"result\":{\"stopReason\":\"cancelled\"}}\n");
    STEP_UNTIL(bus, ext_stats(bus).tombstones == 0);
    finish(bus);
}

static void a_turn_that_waits_and_is_cancelled_ends_as_cancelled(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("2", "a"));
    close(one);
    CHECK_STR(worker_reads(bus), CANCEL("a"));
    tells(two, PROMPT("5", "a"));
    tells(two, CANCEL("a"));
    client_hears(bus, two, "{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{\"stopReason\":\"cancelled\"}}\n");
    CHECK_STR(worker_reads(bus), CANCEL("a"));
    worker_says("{\"id\":2,\"result\":{}}\n");
    lands(bus, two, PROMPT("6", "a"), played, PROMPT("3", "a"));
    finish(bus);
}

static void a_turn_does_not_wait_for_ever(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD_WITH("p", "\"protocol\":\"acp\",\"init_timeout_sec\":1")), 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("2", "a"));
    close(one);
    CHECK_STR(worker_reads(bus), CANCEL("a"));
    tells(two, PROMPT("5", "a"));
    CHECK(strstr(client_line(bus, two), "\"id\":5,\"error\":{\"code\":-32012") != NULL);
    finish(bus);
}

static void a_prompt_of_no_session_that_the_agent_knows_is_cancelled_by_its_id(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":7,\"method\":\"session/prompt\",\"params\":{}}", played,
          "{\"id\":1,\"method\":\"session/prompt\",\"params\":{}}");
    lands(bus, two, "{\"id\":7,\"method\":\"session/prompt\",\"params\":{\"sessionId\":\"a\"},\"sessionId\":\"mine\"}", played,
          PROMPT("2", "a"));
    close(one);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel_request\",\"params\":{\"requestId\":1}}");
    close(two);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel_request\",\"params\":{\"requestId\":2}}");
    finish(bus);
}

static void a_turn_does_not_wait_for_an_agent_that_is_gone(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    worker_t other = embed(bus, "p");
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("2", "a"));
    close(one);
    CHECK_STR(worker_reads(bus), CANCEL("a"));
    tells(two, PROMPT("5", "a"));
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 1);
    goes(played);
    /* It knows nothing of that session, and says so. */
    CHECK_STR(reads(bus, other), PROMPT("1", "a"));
    finish(bus);
}

static void a_session_is_loaded_behind_the_turn_that_was_cancelled(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("2", "a"));
    close(one);
    CHECK_STR(worker_reads(bus), CANCEL("a"));
    tells(two, "{\"id\":5,\"method\":\"session/load\",\"params\":{\"sessionId\":\"a\"}}");
    STEP_UNTIL(bus, pool_info(bus, 0).queued == 1);
    worker_says(UPDATE("a") "{\"id\":2,\"result\":{\"stopReason\":\"cancelled\"}}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":3,\"method\":\"session/load\",\"params\":{\"sessionId\":\"a\"}}");
    worker_says(UPDATE("a") "{\"id\":3,\"result\":{}}\n");
    client_hears(bus, two, UPDATE("a"));
    client_hears(bus, two, "{\"id\":5,\"result\":{}}\n");
    finish(bus);
}

static void a_session_is_never_given_to_another_agent(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    /* A handshake that comes late: both agents are in the middle of it, and the other one is done first. */
    tells(client, INITIALIZE("1"));
    CHECK_STR(worker_reads(bus), INITIALIZE("2"));
    CHECK_STR(reads(bus, other), INITIALIZE("1"));
    tells(client, PROMPT("2", "a"));
    says(other, ANSWER("1", "{}"));
    client_hears(bus, client, ANSWER("1", "{}"));
    worker_says(ANSWER("2", "{}"));
    CHECK_STR(worker_reads(bus), PROMPT("3", "a"));
    finish(bus);
}

static void other_requests_are_cancelled_by_their_id_and_still_answered(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":\"x\",\"method\":\"session/list\"}", played, "{\"id\":1,\"method\":\"session/list\"}");
    lands(bus, one, "{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":\"x\"}}", played,
          "{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":1}}");
    worker_says("{\"id\":1,\"error\":{\"code\":-32800,\"message\":\"\"}}\n");
    client_hears(bus, one, "{\"id\":\"x\",\"error\":{\"code\":-32800,\"message\":\"\"}}\n");
    lands(bus, two, "{\"id\":\"x\",\"method\":\"session/list\"}", played, "{\"id\":2,\"method\":\"session/list\"}");
    close(two);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel_request\",\"params\":{\"requestId\":2}}");
    worker_says("{\"id\":2,\"result\":[]}\n");
    STEP_UNTIL(bus, ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void what_an_agent_cancels_is_still_answered(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int client = connect_pair(bus);
    opens(bus, client, played, "1", "a");
    worker_says(PERMISSION("\"x\"", "a") "\n{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":\"x\"}}\n");
    client_hears(bus, client, PERMISSION("1", "a") "\n");
    client_hears(bus, client, "{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":1}}\n");
    lands(bus, client, "{\"id\":1,\"error\":{\"code\":-32800,\"message\":\"\"}}", played,
          "{\"id\":\"x\",\"error\":{\"code\":-32800,\"message\":\"\"}}");
    finish(bus);
}

/* By their form, whatever the pool speaks. */
static void a_plain_pools_messages_find_their_clients_in_the_same_way(void)
{
    static const char changed[] = "{\"method\":\"notifications/prompts/list_changed\"}\n";
    stdio_bus_t *bus = start(POOLS(DEAD_WITH("p", "\"protocol\":\"ndjson\"")), 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("1", "a"));
    lands(bus, two, PROMPT("2", "b"), played, PROMPT("2", "b"));
    worker_says(UPDATE("b") "{\"method\":\"u\",\"sessionId\":\"a\",\"params\":{\"sessionId\":\"b\"}}\n");
    client_hears(bus, two, UPDATE("b"));
    client_hears(bus, one, "{\"method\":\"u\",\"sessionId\":\"a\",\"params\":{\"sessionId\":\"b\"}}\n");
    worker_says(changed);
    client_hears(bus, one, changed);
    client_hears(bus, two, changed);
    worker_says("{\"id\":7,\"method\":\"session/request_permission\",\"params\":{}}\n{\"id\":8,\"method\":\"fs/read_text_file\"}\n");
    CHECK_STR(worker_reads(bus), DECLINED("7"));
    CHECK(strstr(worker_reads(bus), "\"id\":8,\"error\":{\"code\":-32601") != NULL);
    /* Nobody is told that one of them leaves. */
    close(one);
    STEP_UNTIL(bus, ext_stats(bus).tombstones == 1);
    lands(bus, two, "{\"method\":\"n\"}", played, "{\"method\":\"n\"}");
    finish(bus);
}

static void a_turn_is_cancelled_by_nobody_but_who_prompted(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    opens(bus, one, played, "1", "a");
    tells(two, CANCEL("a"));
    STEP_UNTIL(bus, ext_stats(bus).stale_cancels == 1);
    lands(bus, one, PROMPT("1", "a"), played, PROMPT("2", "a"));
    tells(two, CANCEL("a"));
    STEP_UNTIL(bus, ext_stats(bus).stale_cancels == 2);
    lands(bus, one, CANCEL("a"), played, CANCEL("a"));
    finish(bus);
}

static const sb_test tests[] = {
    TEST(an_agent_is_initialized_once_and_gets_no_initialized),
    TEST(sessions_are_spread_and_each_stays_with_the_agent_that_made_it),
    TEST(updates_reach_who_prompts_and_else_the_owner),
    TEST(a_loaded_session_replays_to_who_loads_it_and_stays_with_its_agent),
    TEST(a_resumed_session_may_go_on_under_another_name),
    TEST(a_session_ends_with_its_agent_or_when_it_is_closed),
    TEST(a_session_with_the_name_of_another_agents_is_an_error),
    TEST(a_session_for_which_there_is_no_room_is_an_error),
    TEST(a_session_that_an_agent_made_names_its_pool),
    TEST(idling_and_eviction_leave_the_sessions_of_agents_alone),
    TEST(permissions_of_two_sessions_are_answered_in_any_order),
    TEST(a_permission_whose_client_has_gone_is_declined_at_once),
    TEST(a_turn_whose_client_leaves_is_cancelled_and_what_it_still_says_goes_nowhere),
    TEST(a_turn_that_the_host_gives_up_withdraws_its_questions),
    TEST(a_turn_that_a_client_gives_up_at_the_bus_is_cancelled),
    TEST(a_turn_that_waits_and_is_cancelled_ends_as_cancelled),
    TEST(a_turn_is_cancelled_by_nobody_but_who_prompted),
    TEST(a_turn_does_not_wait_for_ever),
    TEST(a_prompt_of_no_session_that_the_agent_knows_is_cancelled_by_its_id),
    TEST(a_turn_does_not_wait_for_an_agent_that_is_gone),
    TEST(a_session_is_loaded_behind_the_turn_that_was_cancelled),
    TEST(a_session_is_never_given_to_another_agent),
    TEST(other_requests_are_cancelled_by_their_id_and_still_answered),
    TEST(what_an_agent_cancels_is_still_answered),
    TEST(a_plain_pools_messages_find_their_clients_in_the_same_way),
};

TEST_MAIN(tests)
