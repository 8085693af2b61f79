/* test_routing.c - which worker gets a message, which client its answer, and under which ids. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"

#define THREE POOLS(DEAD("p") "," DEAD("q") "," DEAD("r"))
#define THREE_AND_DEFAULT "{\"pools\":[" DEAD("p") "," DEAD("q") "," DEAD("r") "],\"default_pool\":\"r\"}"

/* What a client sends is what this worker reads. */
static void lands(stdio_bus_t *bus, int client, const char *line, worker_t worker)
{
    client_says(client, line);
    client_says(client, "\n");
    CHECK_STR(reads(bus, worker), line);
}

static int connect_to_pool(stdio_bus_t *bus, const char *pool)
{
    stdio_bus_client_options_t options = {0};
    options.size = sizeof options;
    options.pool = pool;
    return connect_pair_with(bus, &options);
}

/* ---- kinds ---------------------------------------------------------------------------------- */

static void only_a_request_is_answered_and_what_is_no_message_is_refused_under_its_id(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played);
    CHECK(stdio_bus_pending_count(bus) == 1);
    lands(bus, client, "{\"method\":\"m\"}", played);
    lands(bus, client, "{\"id\":null,\"method\":\"m\"}", played);
    CHECK(stdio_bus_pending_count(bus) == 1);
    client_says(client, "{\"id\":7}\n");
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32600,\"message\":\"Invalid Request\","
                              "\"data\":{\"source\":\"stdio_bus\",\"reason\":\"invalid_request\"}}}\n");
    finish(bus);
}

static void of_repeated_routing_members_the_last_counts_and_escaped_keys_count_too(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    worker_t q = embed(bus, "q");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"pool\":\"p\",\"pool\":\"q\"}", q);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"p\\u006fol\":\"\\u0071\"}", q);
    finish(bus);
}

/* ---- the pool ------------------------------------------------------------------------------- */

static void a_named_pool_beats_the_agent(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    worker_t q = embed(bus, "q");
    lands(bus, connect_pair(bus), "{\"id\":1,\"method\":\"m\",\"pool\":\"q\",\"agentId\":\"p\"}", q);
    finish(bus);
}

static void an_agent_that_names_a_pool_beats_the_listeners_own_pool(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    worker_t q = embed(bus, "q");
    lands(bus, connect_to_pool(bus, "p"), "{\"id\":1,\"method\":\"m\",\"agentId\":\"q\"}", q);
    finish(bus);
}

static void an_agent_that_names_no_pool_is_passed_over(void)
{
    stdio_bus_t *bus = start(THREE_AND_DEFAULT, 0);
    worker_t r = embed(bus, "r");
    lands(bus, connect_to_pool(bus, "p"), "{\"id\":1,\"method\":\"m\",\"agentId\":\"zz\"}", played);
    lands(bus, connect_pair(bus), "{\"id\":2,\"method\":\"m\",\"agentId\":\"zz\"}", r);
    finish(bus);
}

static void the_listeners_own_pool_beats_the_one_of_the_session(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    worker_t q = embed(bus, "q");
    lands(bus, connect_pair(bus), "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"q\"}", q);
    lands(bus, connect_to_pool(bus, "p"), "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\"}", played);
    finish(bus);
}

static void the_pool_of_the_session_beats_the_default_pool(void)
{
    stdio_bus_t *bus = start(THREE_AND_DEFAULT, 0);
    worker_t q = embed(bus, "q"), r = embed(bus, "r");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"q\"}", q);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\"}", q);
    lands(bus, client, "{\"id\":3,\"method\":\"m\",\"sessionId\":\"other\"}", r);
    finish(bus);
}

static void a_session_bound_in_two_pools_names_neither(void)
{
    stdio_bus_t *bus = start(THREE_AND_DEFAULT, 0);
    worker_t q = embed(bus, "q"), r = embed(bus, "r");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"q\"}", q);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\"}", played);
    lands(bus, client, "{\"id\":3,\"method\":\"m\",\"sessionId\":\"s\"}", r);
    finish(bus);
}

static void a_message_for_no_pool_of_several_is_answered_with_the_candidates(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    int client = connect_pair(bus);
    stdio_bus_stats_t stats;
    client_says(client, "{\"id\":1,\"method\":\"m\",\"pool\":\"\"}\n");
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32010,\"message\":\"No pool named; there are: "
                              "p q r\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"unroutable\",\"sent\":false}}}\n");
    stdio_bus_get_stats(bus, &stats);
    CHECK(stats.routing_errors == 1);
    finish(bus);
}

static void an_agent_that_names_no_pool_of_several_is_named_in_the_answer(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    int client = connect_pair(bus);
    stdio_bus_stats_t stats;
    client_says(client, "{\"id\":1,\"method\":\"m\",\"agentId\":\"z\\\"z\"}\n");
    client_hears(bus, client,
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32010,\"message\":\"agentId \\\"z\\\\\\\"z\\\" names no "
                 "pool; there are: p q r\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"unroutable\",\"sent\":false}}}\n");
    /* Empty names nothing. */
    client_says(client, "{\"id\":2,\"method\":\"m\",\"agentId\":\"\"}\n");
    CHECK(strstr(client_line(bus, client), "\"message\":\"No pool named; there are: p q r\"") != NULL);
    stdio_bus_get_stats(bus, &stats);
    CHECK(stats.routing_errors == 2);
    finish(bus);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static void the_root_session_beats_the_one_of_the_params(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s1\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s2\"}", b);
    lands(bus, client, "{\"id\":3,\"method\":\"m\",\"sessionId\":\"s1\",\"params\":{\"sessionId\":\"s2\"}}", played);
    lands(bus, client, "{\"id\":4,\"method\":\"m\",\"params\":{\"sessionId\":\"s1\"}}", played);
    lands(bus, client, "{\"id\":5,\"method\":\"m\",\"sessionId\":\"\",\"params\":{\"sessionId\":\"s1\"}}", played);
    lands(bus, client, "{\"id\":6,\"method\":\"m\",\"sessionId\":2,\"params\":{\"sessionId\":\"s1\"}}", played);
    CHECK(stdio_bus_session_count(bus) == 2);
    finish(bus);
}

static void a_session_binds_per_pool(void)
{
    stdio_bus_t *bus = start(THREE, 0);
    worker_t q = embed(bus, "q");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"q\"}", q);
    CHECK(stdio_bus_session_count(bus) == 2);
    CHECK(pool_info(bus, 0).sessions == 1 && pool_info(bus, 1).sessions == 1);
    finish(bus);
}

static void a_session_binds_with_its_first_message_and_stays(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"method\":\"news\",\"sessionId\":\"s\"}", played);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"\\u0073\"}", played);
    lands(bus, client, "{\"id\":3,\"method\":\"m\"}", b);
    finish(bus);
}

static void long_sessions_are_compared_to_their_last_byte(void)
{
    char line[2][4096], name[2001];
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    int client = connect_pair(bus);
    memset(name, 's', sizeof name - 1);
    name[2000] = '\0';
    for (int i = 0; i < 2; i++) {
        name[1999] = (char)('a' + i);
        snprintf(line[i], sizeof line[i], "{\"id\":%d,\"method\":\"m\",\"sessionId\":\"%s\"}", i, name);
    }
    lands(bus, client, line[0], played);
    lands(bus, client, line[1], b);
    CHECK(stdio_bus_session_count(bus) == 2);
    finish(bus);
}

static void a_session_of_a_worker_that_went_binds_anew(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 1);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"s\"}", b);
    finish(bus);
}

static void the_session_used_longest_ago_is_evicted_at_the_limit(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_sessions\":2"), 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"a\"}", played);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"b\"}", played);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"a\"}", played);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"c\"}", played);
    CHECK(stdio_bus_session_count(bus) == 2);
    CHECK(stdio_bus_end_session(bus, "p", "b", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_end_session(bus, "p", "a", 1) == STDIO_BUS_OK);
    finish(bus);
}

static void a_session_with_a_request_pending_is_not_evicted(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_sessions\":2"), 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"a\"}", played);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"b\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"c\"}", played);
    CHECK(stdio_bus_end_session(bus, "p", "b", 1) == STDIO_BUS_ENOTFOUND);
    client_says(client, "{\"id\":3,\"method\":\"m\",\"sessionId\":\"d\"}\n");
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32012,\"message\":\"Too many sessions\",\"data\":"
                              "{\"source\":\"stdio_bus\",\"reason\":\"overloaded\",\"pool\":\"p\",\"sent\":false}}}\n");
    finish(bus);
}

static void an_idle_session_ends_and_one_that_waits_does_not(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"session_idle_sec\":1"), 0);
    int client = connect_pair(bus);
    long began = now_ms();
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"waits\"}", played);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"idle\"}", played);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 1);
    CHECK(now_ms() - began >= 900);
    CHECK(stdio_bus_end_session(bus, NULL, "waits", 5) == STDIO_BUS_OK);
    finish(bus);
}

static void the_last_answer_of_a_session_begins_its_idle_time(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"session_idle_sec\":1"), 0);
    int client = connect_pair(bus);
    long asked = now_ms(), answered;
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}", played);
    STEP_UNTIL(bus, now_ms() - asked >= 1200);
    answered = now_ms();
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    CHECK(now_ms() - answered >= 900);
    finish(bus);
}

static void a_session_whose_request_was_cancelled_ends_after_its_idle_time(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"session_idle_sec\":1"), 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static void a_reload_that_shortens_the_idle_time_counts_at_once(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"session_idle_sec\":3600"), 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    CHECK(stdio_bus_reload(bus, NULL, LIMITED(DEAD("p"), "\"session_idle_sec\":1")) == STDIO_BUS_OK);
    CHECK(stdio_bus_session_count(bus) == 1);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static void an_ended_session_binds_anew_and_its_requests_stay_pending(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    worker_t b = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\"}", played);
    CHECK(stdio_bus_end_session(bus, "zz", "s", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_end_session(bus, "q", "s", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_end_session(bus, "p", "t", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_end_session(bus, "p", "s", 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_session_count(bus) == 0 && stdio_bus_pending_count(bus) == 1);
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\"}", b);
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":0}\n");
    CHECK(stdio_bus_end_session(NULL, "p", "s", 1) == STDIO_BUS_ERR_INVALID);
    CHECK(stdio_bus_end_session(bus, "p", NULL, 1) == STDIO_BUS_ERR_INVALID);
    finish(bus);
}

/* ---- the worker -------------------------------------------------------------------------------- */

static void the_least_loaded_worker_is_chosen_and_equals_take_turns(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p"), c = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\"}", b);
    lands(bus, client, "{\"id\":3,\"method\":\"m\"}", c);
    says(b, "{\"id\":2,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":2,\"result\":0}\n");
    lands(bus, client, "{\"id\":4,\"method\":\"m\"}", b);
    finish(bus);
}

static void a_request_given_up_counts_as_load_and_not_as_pending(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_pending_count(bus) == 0 && ext_stats(bus).tombstones == 1);
    for (int i = 0; i < 3; i++) {
        CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_OK);
        CHECK_STR(reads(bus, b), "{\"id\":2,\"method\":\"m\"}");
        says(b, "{\"id\":2,\"result\":0}\n");
        STEP_UNTIL(bus, seen.count == i + 1);
    }
    finish(bus);
}

static void the_tombstones_of_a_worker_end_with_it(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK && ext_stats(bus).tombstones == 1);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(ext_stats(bus).tombstones == 0 && seen.count == 0);
    finish(bus);
}

/* ---- whose a worker's message is ------------------------------------------------------------------ */

static void a_sessions_message_goes_to_who_waits_in_it_and_else_to_its_owner(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int owner = connect_pair(bus), user = connect_pair(bus);
    lands(bus, owner, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    lands(bus, user, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}", played);
    worker_says("{\"method\":\"progress\",\"sessionId\":\"s\"}\n{\"id\":1,\"result\":0}\n");
    worker_says("{\"method\":\"after\",\"params\":{\"sessionId\":\"s\"}}\n");
    client_hears(bus, user, "{\"method\":\"progress\",\"sessionId\":\"s\"}\n{\"id\":1,\"result\":0}\n");
    client_hears(bus, owner, "{\"method\":\"after\",\"params\":{\"sessionId\":\"s\"}}\n");
    finish(bus);
}

static void when_the_owner_leaves_the_next_user_owns_the_session(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int owner = connect_pair(bus), heir = connect_pair(bus), other = connect_pair(bus);
    lands(bus, owner, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    lands(bus, other, "{\"method\":\"m\",\"sessionId\":\"t\"}", played);
    close(owner);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 2);
    lands(bus, heir, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    lands(bus, other, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    worker_says("{\"method\":\"news\",\"sessionId\":\"s\"}\n");
    client_hears(bus, heir, "{\"method\":\"news\",\"sessionId\":\"s\"}\n");
    finish(bus);
}

static void the_owner_of_a_session_stays_so_when_its_worker_is_replaced(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    int owner = connect_pair(bus), user = connect_pair(bus);
    lands(bus, owner, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 1);
    lands(bus, user, "{\"method\":\"m\",\"sessionId\":\"s\"}", b);
    lands(bus, owner, "{\"method\":\"m\",\"sessionId\":\"s\"}", b);
    says(b, "{\"method\":\"news\",\"sessionId\":\"s\"}\n");
    client_hears(bus, owner, "{\"method\":\"news\",\"sessionId\":\"s\"}\n");
    finish(bus);
}

static void an_answer_goes_to_who_asked_whatever_session_it_names(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int owner = connect_pair(bus), user = connect_pair(bus);
    lands(bus, owner, "{\"method\":\"m\",\"sessionId\":\"s\"}", played);
    lands(bus, user, "{\"id\":1,\"method\":\"m\"}", played);
    worker_says("{\"id\":1,\"result\":0,\"sessionId\":\"s\"}\n");
    client_hears(bus, user, "{\"id\":1,\"result\":0,\"sessionId\":\"s\"}\n");
    finish(bus);
}

static void a_message_without_a_session_goes_to_the_only_one_who_waits(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int waits = connect_pair(bus), idle = connect_pair(bus);
    lands(bus, idle, "{\"method\":\"m\"}", played);
    lands(bus, waits, "{\"id\":1,\"method\":\"m\"}", played);
    worker_says("{\"method\":\"news\"}\n");
    client_hears(bus, waits, "{\"method\":\"news\"}\n");
    finish(bus);
}

static void a_message_that_could_be_for_several_is_nobodys_and_counted(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int a = connect_pair(bus), b = connect_pair(bus);
    lands(bus, a, "{\"id\":1,\"method\":\"m\"}", played);
    lands(bus, b, "{\"id\":2,\"method\":\"m\"}", played);
    worker_says("{\"method\":\"news\"}\n{\"id\":9,\"result\":\"nobody asked\"}\n{\"id\":1,\"result\":0}\n");
    client_hears(bus, a, "{\"id\":1,\"result\":0}\n");
    CHECK(ext_stats(bus).unattributed_frames == 2 && events_of(STDIO_BUS_EVENT_UNATTRIBUTED) == 2);
    CHECK(last_event(STDIO_BUS_EVENT_UNATTRIBUTED)->event.worker == played.id);
    finish(bus);
}

/* ---- ids ------------------------------------------------------------------------------------------ */

/* The value of the first member of a frame that begins with its id. */
static void leading_id(const char *frame, char *out, size_t cap)
{
    const char *begin = frame + 6, *end = strstr(frame, ",\"method\"");
    CHECK(strncmp(frame, "{\"id\":", 6) == 0 && end != NULL && (size_t)(end - begin) < cap);
    memcpy(out, begin, (size_t)(end - begin));
    out[end - begin] = '\0';
}

static void an_id_comes_back_byte_for_byte_even_from_a_worker_that_respells(void)
{
    /* Those a JSON library may spell otherwise travel as a number of the bus's own. */
    static const struct {
        const char *id;
        bool travels;
    } cases[] = {
        {"0", true},       {"-1", true},     {"9007199254740992", true}, {"\"x\"", true},    {"\"\"", true},
        {"1.0", false},    {"-0", false},    {"1e3", false},             {"1E+3", false},    {"0.1", false},
        {"9007199254740993", false},         {"123456789012345678901234567890", false},
        {"\"\\u0061\"", false}, {"\"\xc3\xa9\"", false}, {"\"a\\/b\"", false},  {"\"a/b\"", false},
        {"\"a\\\"b\"", false},  {"\"\\ud800\"", false},  {"\"<&'+=`>\"", false}, {"\"\xff\"", false},
    };
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        char line[256], wire[128];
        snprintf(line, sizeof line, "{\"id\":%s,\"method\":\"m\"}\n", cases[i].id);
        client_says(client, line);
        leading_id(worker_reads(bus), wire, sizeof wire);
        CHECK((strcmp(wire, cases[i].id) == 0) == cases[i].travels);
        CHECK(cases[i].travels || strspn(wire, "0123456789") == strlen(wire));
        snprintf(line, sizeof line, "{\"result\":0,\"id\": %s }\n", wire);
        worker_says(line);
        snprintf(line, sizeof line, "{\"result\":0,\"id\": %s }\n", cases[i].id);
        client_hears(bus, client, line);
    }
    finish(bus);
}

static void ids_that_differ_in_type_or_spelling_are_pending_side_by_side(void)
{
    static const char *const ids[] = {"1", "\"1\"", "1.0", "1.00", "\"\\u0031\""};
    char line[64], wire[SB_COUNT(ids)][32];
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    for (size_t i = 0; i < SB_COUNT(ids); i++) {
        snprintf(line, sizeof line, "{\"id\":%s,\"method\":\"m\"}\n", ids[i]);
        client_says(client, line);
        leading_id(worker_reads(bus), wire[i], sizeof wire[i]);
    }
    CHECK(stdio_bus_pending_count(bus) == (int)SB_COUNT(ids));
    for (size_t i = SB_COUNT(ids); i-- > 0;) {
        snprintf(line, sizeof line, "{\"id\":%s,\"result\":%zu}\n", wire[i], i);
        worker_says(line);
        snprintf(line, sizeof line, "{\"id\":%s,\"result\":%zu}\n", ids[i], i);
        client_hears(bus, client, line);
    }
    finish(bus);
}

static void an_id_of_a_hundred_thousand_bytes_comes_back(void)
{
    enum { LEN = 100000 };
    char *id = malloc(LEN + 1), *line = malloc(LEN + 64);
    stdio_bus_t *bus = create(POOLS(ECHO("p")), 0);
    int client;
    const char *got;
    CHECK(id != NULL && line != NULL && bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    memset(id, 'x', LEN);
    id[LEN] = '\0';
    client = connect_pair(bus);
    CHECK(snprintf(line, LEN + 64, "{\"id\":\"%s\",\"method\":\"m\"}\n", id) > LEN);
    client_sends(client, line, strlen(line));
    CHECK(snprintf(line, LEN + 64, "{\"id\":\"%s\",\"result\":0}", id) > LEN);
    got = client_line(bus, client);
    CHECK(got != NULL && strcmp(got, line) == 0);
    finish(bus);
    free(id);
    free(line);
}

static void a_late_answer_for_a_client_that_left_reaches_no_successor(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int gone = connect_pair(bus), next = connect_pair(bus);
    lands(bus, gone, "{\"id\":5,\"method\":\"m\"}", played);
    close(gone);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    client_says(next, "{\"id\":5,\"method\":\"m\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    worker_says("{\"id\":5,\"result\":\"late\"}\n{\"id\":1,\"result\":\"right\"}\n");
    client_hears(bus, next, "{\"id\":5,\"result\":\"right\"}\n");
    CHECK(ext_stats(bus).late_answers == 1 && ext_stats(bus).tombstones == 0);
    finish(bus);
}

/* ---- what workers ask -------------------------------------------------------------------------------- */

static void two_workers_with_the_same_id_get_their_own_answers(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t b = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\"}", b);
    worker_says("{\"id\":5,\"method\":\"from a\"}\n");
    client_hears(bus, client, "{\"id\":5,\"method\":\"from a\"}\n");
    says(b, "{\"id\":5,\"method\":\"from b\"}\n");
    client_hears(bus, client, "{\"id\":1,\"method\":\"from b\"}\n");
    /* Whatever session or pool an answer carries. */
    client_says(client, "{\"id\":1,\"result\":\"to b\",\"sessionId\":\"s\",\"pool\":\"zz\"}\n{\"id\":5,\"result\":\"to a\"}\n");
    CHECK_STR(reads(bus, b), "{\"id\":5,\"result\":\"to b\",\"sessionId\":\"s\",\"pool\":\"zz\"}");
    CHECK_STR(worker_reads(bus), "{\"id\":5,\"result\":\"to a\"}");
    finish(bus);
}

static void an_old_allow_never_approves_what_a_new_worker_asks(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    worker_t fresh;
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played);
    worker_says("{\"id\":5,\"method\":\"session/request_permission\"}\n");
    client_hears(bus, client, "{\"id\":5,\"method\":\"session/request_permission\"}\n");
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(strstr(client_line(bus, client), "\"code\":-32011") != NULL);
    fresh = embed(bus, "p");
    CHECK(fresh.id == played.id && worker_info(bus, fresh.id).generation == 2);
    lands(bus, client, "{\"id\":2,\"method\":\"m\"}", fresh);
    says(fresh, "{\"id\":5,\"method\":\"session/request_permission\"}\n");
    client_hears(bus, client, "{\"id\":1,\"method\":\"session/request_permission\"}\n");
    client_says(client, "{\"id\":5,\"result\":\"allow\"}\n{\"id\":1,\"result\":\"deny\"}\n");
    CHECK_STR(reads(bus, fresh), "{\"id\":5,\"result\":\"deny\"}");
    CHECK(ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void an_answer_that_was_never_asked_for_reaches_no_worker(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus), other = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played);
    worker_says("{\"id\":5,\"method\":\"question\"}\n");
    client_hears(bus, client, "{\"id\":5,\"method\":\"question\"}\n");
    client_says(other, "{\"id\":5,\"result\":\"not asked\"}\n");
    STEP_UNTIL(bus, ext_stats(bus).late_answers == 1);
    client_says(client, "{\"id\":5,\"result\":\"asked\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":5,\"result\":\"asked\"}");
    finish(bus);
}

/* ---- the queue of a pool ------------------------------------------------------------------------------- */

/* A bus whose only worker was killed and comes back soon. */
static stdio_bus_t *start_killed(const char *config)
{
    stdio_bus_t *bus = create(config, 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(kill(worker_info(bus, 0).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    return bus;
}

static void who_leaves_while_its_request_is_queued_leaves_nothing(void)
{
    stdio_bus_t *bus = start_killed(POOLS(ECHO("p")));
    int gone = connect_pair(bus), stays = connect_pair(bus);
    client_says(gone, "{\"id\":1,\"method\":\"gone\"}\n");
    client_says(stays, "{\"id\":1,\"method\":\"stays\"}\n");
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 2);
    CHECK(pool_info(bus, 0).queued == 2 && pool_info(bus, 0).queued_bytes > 0);
    close(gone);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    CHECK(stdio_bus_pending_count(bus) == 1);
    client_hears(bus, stays, "{\"id\":1,\"result\":0}\n");
    CHECK(pool_info(bus, 0).requests == 1 && pool_info(bus, 0).queued == 0 && pool_info(bus, 0).queued_bytes == 0);
    finish(bus);
}

static void a_queue_that_is_full_refuses_and_keeps_what_it_has(void)
{
    static char large[1500];
    stdio_bus_t *bus = start_killed(LIMITED(ECHO("p"), "\"max_output_queue\":1024"));
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    snprintf(large, sizeof large, "{\"id\":2,\"method\":\"m\",\"params\":\"%01200d\"}", 0);
    CHECK(ingest(bus, large) == STDIO_BUS_EFULL);
    CHECK(ext_stats(bus).overload_refusals == 1);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":0}");
    finish(bus);
}

static void what_is_queued_for_a_pool_that_fails_ends_with_an_error_or_a_count(void)
{
    char path[64], config[256];
    FILE *script;
    stdio_bus_t *bus;
    snprintf(path, sizeof path, "/tmp/stdio_bus-test-routing-%d", (int)getpid());
    script = fopen(path, "w");
    CHECK(script != NULL && fputs("#!/bin/sh\nexec cat\n", script) > 0 && fclose(script) == 0 && chmod(path, 0700) == 0);
    snprintf(config, sizeof config, LIMITED("{\"id\":\"p\",\"command\":\"%s\"}", "\"max_restarts\":1"), path);
    bus = create(config, 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(unlink(path) == 0 && kill(worker_info(bus, 0).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(strstr(seen.frame[0].text, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32011,\"message\":\"The pool has no running "
                                     "worker\"") != NULL);
    CHECK(worker_info(bus, 0).state == STDIO_BUS_WORKER_FAILED);
    CHECK(ext_stats(bus).dropped_frames == 1 && events_of(STDIO_BUS_EVENT_DROPPED) == 1);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_ERR_WORKER);
    finish(bus);
}

static void above_max_pending_requests_are_refused_and_notifications_pass(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_pending\":2"), 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played);
    lands(bus, client, "{\"id\":2,\"method\":\"m\"}", played);
    client_says(client, "{\"id\":3,\"method\":\"m\"}\n");
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32012,\"message\":\"Too many requests are "
                              "pending\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"overloaded\",\"pool\":\"p\",\"sent\":"
                              "false}}}\n");
    lands(bus, client, "{\"method\":\"m\"}", played);
    CHECK(ingest(bus, "{\"id\":4,\"method\":\"m\"}") == STDIO_BUS_EFULL);
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":0}\n");
    lands(bus, client, "{\"id\":5,\"method\":\"m\"}", played);
    finish(bus);
}

static void a_request_waits_for_a_worker_no_longer_than_init_timeout_sec(void)
{
    stdio_bus_t *bus = create(LIMITED("{\"id\":\"p\",\"command\":\"false\",\"init_timeout_sec\":1}", "\"max_restarts\":20"), 0);
    const char *late = "No worker of the pool became ready in time";
    long began;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    /* The pauses between its starts grow until one is longer than that. */
    STEP_UNTIL(bus, last_event(STDIO_BUS_EVENT_WORKER_RESTARTING) != NULL &&
                        last_event(STDIO_BUS_EVENT_WORKER_RESTARTING)->event.delay_ms > 1100);
    began = now_ms();
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"n\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(now_ms() - began >= 990);
    CHECK(strstr(seen.frame[0].text, late) != NULL);
    STEP_UNTIL(bus, ext_stats(bus).dropped_frames == 1);
    CHECK(stdio_bus_pending_count(bus) == 0 && pool_info(bus, 0).queued_bytes == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_request_waits_for_a_worker_no_longer_than_init_timeout_sec),
    TEST(only_a_request_is_answered_and_what_is_no_message_is_refused_under_its_id),
    TEST(of_repeated_routing_members_the_last_counts_and_escaped_keys_count_too),
    TEST(a_named_pool_beats_the_agent),
    TEST(an_agent_that_names_a_pool_beats_the_listeners_own_pool),
    TEST(an_agent_that_names_no_pool_is_passed_over),
    TEST(the_listeners_own_pool_beats_the_one_of_the_session),
    TEST(the_pool_of_the_session_beats_the_default_pool),
    TEST(a_session_bound_in_two_pools_names_neither),
    TEST(a_message_for_no_pool_of_several_is_answered_with_the_candidates),
    TEST(an_agent_that_names_no_pool_of_several_is_named_in_the_answer),
    TEST(the_root_session_beats_the_one_of_the_params),
    TEST(a_session_binds_per_pool),
    TEST(a_session_binds_with_its_first_message_and_stays),
    TEST(long_sessions_are_compared_to_their_last_byte),
    TEST(a_session_of_a_worker_that_went_binds_anew),
    TEST(the_session_used_longest_ago_is_evicted_at_the_limit),
    TEST(a_session_with_a_request_pending_is_not_evicted),
    TEST(an_idle_session_ends_and_one_that_waits_does_not),
    TEST(the_last_answer_of_a_session_begins_its_idle_time),
    TEST(a_session_whose_request_was_cancelled_ends_after_its_idle_time),
    TEST(a_reload_that_shortens_the_idle_time_counts_at_once),
    TEST(an_ended_session_binds_anew_and_its_requests_stay_pending),
    TEST(the_least_loaded_worker_is_chosen_and_equals_take_turns),
    TEST(a_request_given_up_counts_as_load_and_not_as_pending),
    TEST(the_tombstones_of_a_worker_end_with_it),
    TEST(a_sessions_message_goes_to_who_waits_in_it_and_else_to_its_owner),
    TEST(when_the_owner_leaves_the_next_user_owns_the_session),
    TEST(the_owner_of_a_session_stays_so_when_its_worker_is_replaced),
    TEST(an_answer_goes_to_who_asked_whatever_session_it_names),
    TEST(a_message_without_a_session_goes_to_the_only_one_who_waits),
    TEST(a_message_that_could_be_for_several_is_nobodys_and_counted),
    TEST(an_id_comes_back_byte_for_byte_even_from_a_worker_that_respells),
    TEST(ids_that_differ_in_type_or_spelling_are_pending_side_by_side),
    TEST(an_id_of_a_hundred_thousand_bytes_comes_back),
    TEST(a_late_answer_for_a_client_that_left_reaches_no_successor),
    TEST(two_workers_with_the_same_id_get_their_own_answers),
    TEST(an_old_allow_never_approves_what_a_new_worker_asks),
    TEST(an_answer_that_was_never_asked_for_reaches_no_worker),
    TEST(who_leaves_while_its_request_is_queued_leaves_nothing),
    TEST(a_queue_that_is_full_refuses_and_keeps_what_it_has),
    TEST(what_is_queued_for_a_pool_that_fails_ends_with_an_error_or_a_count),
    TEST(above_max_pending_requests_are_refused_and_notifications_pass),
};

TEST_MAIN(tests)
