#include <stdlib.h>

#include "../src/router.h"
#include "test.h"

static sb_router router;
static sb_peer client[3], worker[3];

static void set_up(void)
{
    sb_router_init(&router, 42, 1000);
    for (int i = 0; i < 3; i++) {
        sb_peer_init(&router, &client[i], false);
        sb_peer_init(&router, &worker[i], true);
    }
}

static void tear_down(void)
{
    uint32_t entry;
    for (int i = 0; i < 3; i++) {
        for (int way = SB_DOWN; way <= SB_UP; way++) {
            while ((entry = sb_router_first(&router, &client[i], (sb_direction)way)) != SB_NONE) {
                sb_router_end(&router, entry);
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        sb_router_remove(&router, &client[i]);
        sb_router_remove(&router, &worker[i]);
    }
    CHECK(router.requests.used == 0 && router.links.used == 0);
    CHECK(router.by_wire.used == 0 && router.by_origin.used == 0 && router.by_pair.used == 0);
    sb_router_free(&router);
}

static sb_span ask(sb_peer *from, sb_peer *to, const char *id, bool issue, char wire[SB_WIRE_MAX])
{
    uint32_t link = sb_router_link(&router, from, to), entry;
    CHECK(link != SB_NONE);
    return sb_router_ask(&router, link, SB_DOWN, sb_span_of(id), issue, SB_NONE, wire, &entry);
}

static sb_peer *answered(sb_peer *by, sb_span wire)
{
    uint32_t entry = sb_router_answered(&router, by, wire);
    return entry == SB_NONE ? NULL : sb_router_asker(&router, sb_router_request(&router, entry));
}

static void a_stable_id_travels_as_it_is(void)
{
    char wire[SB_WIRE_MAX];
    set_up();
    CHECK(sb_span_is(ask(&client[0], &worker[0], "7", false, wire), "7"));
    CHECK(answered(&worker[0], sb_span_of("7")) == &client[0]);
    CHECK(answered(&worker[1], sb_span_of("7")) == NULL);
    CHECK(answered(&worker[0], sb_span_of("\"7\"")) == NULL);
    tear_down();
}

static void two_clients_with_the_same_id_get_their_own_answers(void)
{
    char first[SB_WIRE_MAX], second[SB_WIRE_MAX];
    sb_span one, two;
    sb_text id;
    set_up();
    one = ask(&client[0], &worker[0], "1", false, first);
    two = ask(&client[1], &worker[0], "1", false, second);
    CHECK(!sb_span_eq(one, two));
    CHECK(answered(&worker[0], two) == &client[1]);
    CHECK(answered(&worker[0], one) == &client[0]);
    sb_router_end_take(&router, sb_router_answered(&router, &worker[0], two), &id);
    CHECK(sb_span_is(sb_text_span(&id), "1"));
    sb_text_free(&id);
    tear_down();
}

static void an_id_that_libraries_respell_is_replaced_and_restored(void)
{
    static const char *const ids[] = {"1.0", "1e2", "\"\\u0061\"", "9007199254740993", "\"\xc3\xa9\"",
                                      "\"a string that is too long to be kept inline, and has an \\n escape\""};
    char wire[SB_WIRE_MAX];
    set_up();
    for (size_t i = 0; i < SB_COUNT(ids); i++) {
        sb_span token = ask(&client[0], &worker[0], ids[i], false, wire);
        uint32_t entry = sb_router_answered(&router, &worker[0], token);
        CHECK(!sb_span_is(token, ids[i]));
        CHECK(sb_span_is(sb_text_span(&sb_router_request(&router, entry)->id), ids[i]));
        CHECK(sb_router_asked(&router, &client[0], sb_span_of(ids[i])) == entry);
    }
    tear_down();
}

static void issued_ids_pass_over_those_that_clients_use(void)
{
    char wire[SB_WIRE_MAX];
    set_up();
    ask(&client[0], &worker[0], "1", false, wire);
    ask(&client[0], &worker[0], "2", false, wire);
    CHECK(sb_span_is(ask(&client[1], &worker[0], "\"x\"", true, wire), "3"));
    tear_down();
}

static void a_given_up_request_keeps_its_id_until_the_answer(void)
{
    char wire[SB_WIRE_MAX];
    uint32_t entry;
    set_up();
    ask(&client[0], &worker[0], "5", false, wire);
    sb_router_give_up(&router, sb_router_asked(&router, &client[0], sb_span_of("5")));
    CHECK(router.pending == 0 && worker[0].pending == 0 && worker[0].tombs.count == 1);
    CHECK(sb_peer_load(&worker[0]) == 1);
    CHECK(!sb_span_is(ask(&client[1], &worker[0], "5", false, wire), "5"));
    entry = sb_router_answered(&router, &worker[0], sb_span_of("5"));
    CHECK(sb_router_request(&router, entry)->given_up);
    CHECK(sb_router_asker(&router, sb_router_request(&router, entry)) == NULL);
    CHECK(sb_router_asked(&router, &client[0], sb_span_of("5")) == SB_NONE);
    sb_router_end(&router, entry);
    CHECK(worker[0].tombs.count == 0);
    tear_down();
}

static void tombstones_are_capped(void)
{
    char wire[SB_WIRE_MAX], id[16];
    set_up();
    router.max_tombs = 10;
    for (int i = 0; i < 25; i++) {
        snprintf(id, sizeof id, "%d", i);
        ask(&client[0], &worker[0], id, false, wire);
        sb_router_give_up(&router, sb_router_asked(&router, &client[0], sb_span_of(id)));
    }
    CHECK(worker[0].tombs.count == 10);
    CHECK(sb_router_answered(&router, &worker[0], sb_span_of("14")) == SB_NONE);
    CHECK(sb_router_answered(&router, &worker[0], sb_span_of("15")) != SB_NONE);
    tear_down();
}

static void a_request_given_up_in_a_queue_leaves_nothing(void)
{
    char wire[SB_WIRE_MAX];
    set_up();
    worker[0].queue = true;
    ask(&client[0], &worker[0], "5", false, wire);
    sb_router_give_up(&router, sb_router_asked(&router, &client[0], sb_span_of("5")));
    CHECK(worker[0].tombs.count == 0 && router.requests.used == 0);
    tear_down();
}

static void workers_ask_clients_under_ids_of_their_own(void)
{
    char first[SB_WIRE_MAX], second[SB_WIRE_MAX];
    sb_span one, two;
    uint32_t entry, link0, link1;
    set_up();
    link0 = sb_router_link(&router, &client[0], &worker[0]);
    link1 = sb_router_link(&router, &client[0], &worker[1]);
    one = sb_router_ask(&router, link0, SB_UP, sb_span_of("0"), false, SB_NONE, first, &entry);
    two = sb_router_ask(&router, link1, SB_UP, sb_span_of("0"), false, SB_NONE, second, &entry);
    CHECK(sb_span_is(one, "0") && !sb_span_is(two, "0"));
    CHECK(answered(&client[0], one) == &worker[0]);
    CHECK(answered(&client[0], two) == &worker[1]);
    CHECK(router.pending == 0 && client[0].pending == 2 && worker[0].asked == 1);
    tear_down();
}

static void the_only_client_is_told_by_what_is_pending(void)
{
    char wire[SB_WIRE_MAX];
    set_up();
    CHECK(sb_router_only_client(&router, &worker[0]) == NULL);
    sb_router_link(&router, &client[0], &worker[0]);
    CHECK(sb_router_only_client(&router, &worker[0]) == &client[0]);
    sb_router_link(&router, &client[1], &worker[0]);
    CHECK(sb_router_only_client(&router, &worker[0]) == NULL);
    ask(&client[1], &worker[0], "1", false, wire);
    ask(&client[1], &worker[0], "2", false, wire);
    CHECK(sb_router_only_client(&router, &worker[0]) == &client[1]);
    ask(&client[0], &worker[0], "3", false, wire);
    CHECK(sb_router_only_client(&router, &worker[0]) == NULL);
    sb_router_end(&router, sb_router_asked(&router, &client[0], sb_span_of("3")));
    CHECK(sb_router_only_client(&router, &worker[0]) == &client[1]);
    tear_down();
}

static void a_session_stays_with_its_worker_until_that_goes(void)
{
    uint32_t session;
    set_up();
    session = sb_router_session(&router, 0, sb_span_of("s"), true);
    sb_session_bind(&router, session, &worker[1]);
    CHECK(sb_router_session(&router, 0, sb_span_of("s"), false) == session);
    CHECK(sb_router_session(&router, 1, sb_span_of("s"), false) == SB_NONE);
    CHECK(sb_router_session_at(&router, session)->worker == &worker[1]);
    sb_router_remove(&router, &worker[1]);
    CHECK(sb_router_session_at(&router, session)->worker == NULL);
    tear_down();
}

static void the_session_used_longest_ago_makes_room(void)
{
    char wire[SB_WIRE_MAX], name[16];
    uint32_t link, entry, busy;
    set_up();
    router.max_sessions = 4;
    link = sb_router_link(&router, &client[0], &worker[0]);
    busy = sb_router_session(&router, 0, sb_span_of("busy"), true);
    sb_router_ask(&router, link, SB_DOWN, sb_span_of("1"), false, busy, wire, &entry);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "s%d", i);
        CHECK(sb_router_session(&router, 0, sb_span_of(name), true) != SB_NONE);
    }
    CHECK(sb_router_session(&router, 0, sb_span_of("s0"), false) != SB_NONE);
    CHECK(sb_router_session(&router, 0, sb_span_of("new"), true) != SB_NONE);
    CHECK(sb_router_session(&router, 0, sb_span_of("busy"), false) == busy);
    CHECK(sb_router_session(&router, 0, sb_span_of("s1"), false) == SB_NONE);
    CHECK(sb_router_session(&router, 0, sb_span_of("s0"), false) != SB_NONE);
    CHECK(sb_router_asker(&router, sb_router_request(&router, sb_session_waiting(&router, busy))) == &client[0]);
    tear_down();
}

static uint32_t session_that_waits(uint32_t link, const char *name, const char *id)
{
    char wire[SB_WIRE_MAX];
    uint32_t session = sb_router_session(&router, 0, sb_span_of(name), true), entry;
    CHECK(session != SB_NONE);
    CHECK(sb_router_ask(&router, link, SB_DOWN, sb_span_of(id), false, session, wire, &entry).ptr != NULL);
    return entry;
}

static bool has_session(const char *name)
{
    return sb_router_session(&router, 0, sb_span_of(name), false) != SB_NONE;
}

static void an_idle_session_makes_room_however_many_older_ones_wait(void)
{
    char name[16];
    uint32_t link;
    set_up();
    router.max_sessions = 101;
    link = sb_router_link(&router, &client[0], &worker[0]);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%d", i);
        session_that_waits(link, name, name);
    }
    CHECK(sb_router_session(&router, 0, sb_span_of("idle"), true) != SB_NONE);
    CHECK(sb_router_session(&router, 0, sb_span_of("new"), true) != SB_NONE);
    CHECK(!has_session("idle") && router.sessions.used == 101);
    session_that_waits(link, "new", "x");
    CHECK(sb_router_session(&router, 0, sb_span_of("one too many"), true) == SB_NONE);
    tear_down();
}

static void the_last_answer_of_a_session_counts_as_its_use(void)
{
    uint32_t link, first, second;
    set_up();
    link = sb_router_link(&router, &client[0], &worker[0]);
    first = session_that_waits(link, "waited", "1");
    second = session_that_waits(link, "waited", "2");
    session_that_waits(link, "waits", "3");
    sb_router_session(&router, 0, sb_span_of("idle"), true);
    router.now = 100;
    sb_router_end(&router, first);
    sb_router_end_idle(&router, 100);
    CHECK(!has_session("idle") && router.sessions.used == 2);
    router.now = 200;
    sb_router_give_up(&router, second);
    sb_router_end_idle(&router, 200);
    CHECK(router.sessions.used == 2);
    sb_router_end_idle(&router, 201);
    CHECK(!has_session("waited") && has_session("waits"));
    tear_down();
}

static void the_end_of_a_pool_ends_its_sessions_waiting_or_not(void)
{
    uint32_t link;
    set_up();
    link = sb_router_link(&router, &client[0], &worker[0]);
    for (uint32_t pool = 0; pool < 2; pool++) {
        CHECK(sb_router_session(&router, pool, sb_span_of("idle"), true) != SB_NONE);
        CHECK(sb_router_session(&router, pool, sb_span_of("idle too"), true) != SB_NONE);
    }
    session_that_waits(link, "waits", "1");
    session_that_waits(link, "waits too", "2");
    sb_router_end_sessions(&router, 0);
    CHECK(router.sessions.used == 2 && router.pending == 2);
    CHECK(sb_router_session(&router, 1, sb_span_of("idle"), false) != SB_NONE);
    CHECK(sb_router_session(&router, 1, sb_span_of("idle too"), false) != SB_NONE);
    tear_down();
}

static void the_least_loaded_worker_is_picked_in_turn(void)
{
    sb_balance balance = {0};
    char wire[SB_WIRE_MAX], id[16];
    int picked[3] = {0};
    set_up();
    for (int i = 0; i < 3; i++) CHECK(sb_balance_add(&balance, &worker[i].node, 0));
    for (int i = 0; i < 30; i++) {
        sb_balance_node *node = sb_balance_pick(&balance);
        sb_peer *peer = SB_CONTAINER(node, sb_peer, node);
        snprintf(id, sizeof id, "%d", i);
        ask(&client[0], peer, id, false, wire);
        picked[peer - worker]++;
    }
    for (int i = 0; i < 3; i++) CHECK(picked[i] == 10);
    for (int i = 0; i < 10; i++) sb_router_end(&router, sb_router_first(&router, &worker[2], SB_DOWN));
    for (int i = 0; i < 10; i++) {
        sb_balance_node *node = sb_balance_pick(&balance);
        CHECK(node == &worker[2].node);
        snprintf(id, sizeof id, "%d", 100 + i);
        ask(&client[0], &worker[2], id, false, wire);
    }
    for (int i = 0; i < 3; i++) sb_balance_remove(&worker[i].node);
    CHECK(sb_balance_pick(&balance) == NULL);
    sb_balance_free(&balance);
    tear_down();
}

static void every_allocation_may_fail(void)
{
    char wire[SB_WIRE_MAX];
    for (size_t n = 1; n < 20; n++) {
        uint32_t link, session = SB_NONE, entry;
        bool done = false;
        set_up();
        sb_test_fail_alloc(n, true);
        link = sb_router_link(&router, &client[0], &worker[0]);
        if (link != SB_NONE) session = sb_router_session(&router, 0, sb_span_of("a session with a long name"), true);
        if (session != SB_NONE) {
            done = sb_router_ask(&router, link, SB_DOWN, sb_span_of("\"a long id that is not inline\""), true, session,
                                 wire, &entry).ptr != NULL;
        }
        sb_test_fail_alloc(0, false);
        CHECK(router.pending == (done ? 1u : 0u));
        tear_down();
        if (done) return;
    }
    CHECK(!"it never succeeded");
}

/* What the router must agree with: a plain list of who asked whom what. */
typedef struct {
    int from, to;
    char id[8], wire[SB_WIRE_MAX];
    bool live, given_up;
} model_request;

static uint64_t seed_state;

static unsigned rnd(unsigned n)
{
    seed_state = seed_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed_state >> 33) % n;
}

static model_request model[400];

static void model_ask(model_request *m)
{
    char wire[SB_WIRE_MAX];
    sb_span token;
    m->from = (int)rnd(3);
    m->to = (int)rnd(3);
    snprintf(m->id, sizeof m->id, "%u", rnd(40));
    token = ask(&client[m->from], &worker[m->to], m->id, rnd(4) == 0, wire);
    memcpy(m->wire, token.ptr, token.len);
    m->wire[token.len] = '\0';
    for (size_t i = 0; i < SB_COUNT(model); i++) {
        const model_request *other = &model[i];
        if (other == m || (!other->live && !other->given_up) || other->to != m->to) continue;
        CHECK(strcmp(other->wire, m->wire) != 0);
    }
    m->live = true;
}

static void model_answer(model_request *m)
{
    uint32_t entry = sb_router_answered(&router, &worker[m->to], sb_span_of(m->wire));
    CHECK(entry != SB_NONE);
    CHECK(sb_router_request(&router, entry)->given_up == m->given_up);
    CHECK(sb_span_is(sb_text_span(&sb_router_request(&router, entry)->id), m->id));
    CHECK(sb_router_asker(&router, sb_router_request(&router, entry)) == (m->given_up ? NULL : &client[m->from]));
    sb_router_end(&router, entry);
    m->live = m->given_up = false;
}

static void any_history_agrees_with_a_list(void)
{
    unsigned live = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        seed_state = seed;
        set_up();
        memset(model, 0, sizeof model);
        live = 0;
        for (int round = 0; round < 5000; round++) {
            model_request *m = &model[rnd(SB_COUNT(model))];
            if (!m->live && !m->given_up) {
                model_ask(m);
                live++;
            } else if (m->live && rnd(3) == 0) {
                sb_router_give_up(&router, sb_router_answered(&router, &worker[m->to], sb_span_of(m->wire)));
                m->live = false;
                m->given_up = true;
                live--;
            } else {
                live -= m->live ? 1 : 0;
                model_answer(m);
            }
            CHECK(router.pending == live);
        }
        tear_down();
    }
}

/* A bad hash makes a list of the index, whatever its seed. */
static void names_that_differ_in_one_byte_only_are_spread(void)
{
    for (size_t len = 4; len <= 24; len++) {
        for (size_t at = 0; at < len; at++) {
            char name[24] = "nnnnnnnnnnnnnnnnnnnnnnn";
            bool taken[1024] = {false};
            int places = 0;
            for (int c = 0; c < 256; c++) {
                name[at] = (char)c;
                sb_span bytes = {name, len};
                bool *place = &taken[sb_hash(42, 7, bytes) % 1024];
                places += *place ? 0 : 1;
                *place = true;
            }
            /* 256 thrown at random into 1024 hit 226, give or take 5. */
            CHECK(places > 190);
        }
    }
}

static const sb_test tests[] = {
    TEST(names_that_differ_in_one_byte_only_are_spread),
    TEST(a_stable_id_travels_as_it_is),
    TEST(two_clients_with_the_same_id_get_their_own_answers),
    TEST(an_id_that_libraries_respell_is_replaced_and_restored),
    TEST(issued_ids_pass_over_those_that_clients_use),
    TEST(a_given_up_request_keeps_its_id_until_the_answer),
    TEST(tombstones_are_capped),
    TEST(a_request_given_up_in_a_queue_leaves_nothing),
    TEST(workers_ask_clients_under_ids_of_their_own),
    TEST(the_only_client_is_told_by_what_is_pending),
    TEST(a_session_stays_with_its_worker_until_that_goes),
    TEST(the_session_used_longest_ago_makes_room),
    TEST(an_idle_session_makes_room_however_many_older_ones_wait),
    TEST(the_last_answer_of_a_session_counts_as_its_use),
    TEST(the_end_of_a_pool_ends_its_sessions_waiting_or_not),
    TEST(the_least_loaded_worker_is_picked_in_turn),
    TEST(every_allocation_may_fail),
    TEST(any_history_agrees_with_a_list),
};

TEST_MAIN(tests)
