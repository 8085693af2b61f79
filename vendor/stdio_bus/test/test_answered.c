/* test_answered.c - how long answers took, per pool, by a clock that the test sets. */
#include <stdlib.h>
#include <unistd.h>

#include "../src/bus.h"
#include "fixture.h"

#define ASK "{\"id\":1,\"method\":\"m\"}"
#define ANSWER "{\"id\":1,\"result\":0}\n"

static uint64_t now_us;

static uint64_t told(void *arg)
{
    (void)arg;
    return now_us;
}

/* From now on time is what `now_us` says. */
static void take_clock(stdio_bus_t *bus)
{
    now_us = sb_clock_micros(&bus->ctx.loop.clock) / SB_TICK_US * SB_TICK_US;
    bus->ctx.loop.clock.now = told;
    stdio_bus_step(bus, 0);
}

static stdio_bus_t *start_with_clock(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    seen.count = 0;
    take_clock(bus);
    return bus;
}

static void answers_after(stdio_bus_t *bus, uint64_t micros, const char *answer)
{
    int before = seen.count;
    now_us += micros;
    worker_says(answer);
    STEP_UNTIL(bus, seen.count > before);
}

static void ask_and_answer(stdio_bus_t *bus, uint64_t micros)
{
    CHECK(ingest(bus, ASK) == STDIO_BUS_OK);
    worker_reads(bus);
    answers_after(bus, micros, ANSWER);
}

static void answers_are_counted_with_their_time(void)
{
    stdio_bus_t *bus = start_with_clock();
    stdio_bus_pool_info_t info = pool_info(bus, 0);
    CHECK(info.answered == 0 && info.p50_us == 0 && info.p99_us == 0 && info.max_us == 0);
    for (int i = 0; i < 98; i++) ask_and_answer(bus, 1600);
    ask_and_answer(bus, 160000);
    ask_and_answer(bus, 16000000);
    info = pool_info(bus, 0);
    CHECK(info.answered == 100 && info.requests == 100 && info.max_us == 16000000);
    CHECK(info.p50_us >= 1600 && info.p50_us <= 1700 && info.p90_us == info.p50_us);
    CHECK(info.p99_us >= 160000 && info.p99_us <= 170001);
    finish(bus);
}

static void an_error_of_a_worker_is_an_answer(void)
{
    stdio_bus_t *bus = start_with_clock();
    CHECK(ingest(bus, ASK) == STDIO_BUS_OK);
    worker_reads(bus);
    answers_after(bus, 32, "{\"id\":1,\"error\":{\"code\":1,\"message\":\"no\"}}\n");
    CHECK(pool_info(bus, 0).answered == 1 && pool_info(bus, 0).max_us == 32);
    finish(bus);
}

static void what_was_given_up_and_what_the_bus_answers_itself_is_not_counted(void)
{
    stdio_bus_t *bus = start_with_clock();
    CHECK(ingest(bus, ASK) == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_OK);
    now_us += 1000;
    worker_says(ANSWER);
    STEP_UNTIL(bus, ext_stats(bus).late_answers == 1);
    CHECK(ingest(bus, ASK) == STDIO_BUS_OK);
    worker_reads(bus);
    goes(played);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(strstr(seen.frame[0].text, "worker_exited") != NULL);
    CHECK(pool_info(bus, 0).requests == 2 && pool_info(bus, 0).answered == 0 && pool_info(bus, 0).max_us == 0);
    finish(bus);
}

static void the_time_in_the_queue_of_a_pool_counts(void)
{
    const char *initialize = "{\"pools\":[{\"id\":\"p\",\"command\":\"true\",\"instances\":0,\"protocol\":\"mcp\","
                             "\"initialize\":{\"protocolVersion\":\"2025-06-18\"}}]}";
    stdio_bus_t *bus = create(initialize, 0);
    char hello[96];
    const char *line;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    played = embed(bus, "p");
    line = worker_reads(bus);
    CHECK(line != NULL && strstr(line, "initialize") != NULL);
    take_clock(bus);
    CHECK(ingest(bus, ASK) == STDIO_BUS_OK);
    stdio_bus_step(bus, 0);
    CHECK(pool_info(bus, 0).queued == 1);
    now_us += 4800;
    line = strstr(line, "\"id\":");
    CHECK(line != NULL);
    snprintf(hello, sizeof hello, "{\"id\":%lu,\"result\":{\"protocolVersion\":\"2025-06-18\"}}\n",
             strtoul(line + 5, NULL, 10));
    worker_says(hello);
    do line = worker_reads(bus);
    while (strstr(line, "\"m\"") == NULL);
    line = strstr(line, "\"id\":");
    CHECK(line != NULL);
    snprintf(hello, sizeof hello, "{\"id\":%lu,\"result\":0}\n", strtoul(line + 5, NULL, 10));
    answers_after(bus, 1600, hello);
    CHECK(pool_info(bus, 0).answered == 1 && pool_info(bus, 0).max_us == 6400);
    finish(bus);
}

static void what_clients_ask_is_counted_too(void)
{
    stdio_bus_t *bus = start_with_clock();
    int client = connect_pair(bus);
    client_says(client, ASK "\n");
    worker_reads(bus);
    now_us += 320;
    worker_says(ANSWER);
    client_hears(bus, client, ANSWER);
    CHECK(pool_info(bus, 0).answered == 1 && pool_info(bus, 0).max_us == 320);
    close(client);
    finish(bus);
}

static void a_host_that_waits_itself_has_not_asked_before_it_did(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_get_poll_fd(bus) >= 0);
    take_clock(bus);
    seen.count = 0;
    now_us += 5000000;
    ask_and_answer(bus, 160);
    CHECK(pool_info(bus, 0).max_us == 160);
    finish(bus);
}

static void pools_are_measured_each_for_itself(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    worker_t other = embed(bus, "q");
    take_clock(bus);
    seen.count = 0;
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"pool\":\"q\"}") == STDIO_BUS_OK);
    CHECK(reads(bus, other) != NULL);
    now_us += 16;
    says(other, ANSWER);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(pool_info(bus, 0).answered == 0 && pool_info(bus, 1).answered == 1 && pool_info(bus, 1).p50_us == 16);
    finish(bus);
}

static void the_answers_of_a_private_worker_outlive_it_in_its_pool(void)
{
    static const char config[] = "{\"pools\":[{\"id\":\"p\",\"command\":\"sed\",\"args\":[\"-u\","
                                 "\"s/.method.:.[a-z]*./\\\"result\\\":0/\"],\"clients\":\"exclusive\"}]}";
    stdio_bus_t *bus = create(config, 0);
    int client;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    client = connect_pair(bus);
    client_says(client, ASK "\n");
    client_hears(bus, client, ANSWER);
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0 && pool_info(bus, 0).workers == 0);
    CHECK(pool_info(bus, 0).answered == 1);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(answers_are_counted_with_their_time),
    TEST(an_error_of_a_worker_is_an_answer),
    TEST(what_was_given_up_and_what_the_bus_answers_itself_is_not_counted),
    TEST(the_time_in_the_queue_of_a_pool_counts),
    TEST(what_clients_ask_is_counted_too),
    TEST(a_host_that_waits_itself_has_not_asked_before_it_did),
    TEST(pools_are_measured_each_for_itself),
    TEST(the_answers_of_a_private_worker_outlive_it_in_its_pool),
};

TEST_MAIN(tests)
