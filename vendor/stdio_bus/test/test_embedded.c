/* test_embedded.c - pools without processes of their own: "instances": 0, and only workers that the host registers. */
#include <unistd.h>

#include "fixture.h"

#define OWN(id) "{\"id\":\"" id "\",\"instances\":0}"
#define REQUEST(id) "{\"id\":" id ",\"method\":\"m\"}"

static stdio_bus_t *begin(const char *config)
{
    stdio_bus_t *bus = create_with_frames(config, 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

static void is_served(stdio_bus_t *bus, worker_t worker)
{
    int before = seen.count;
    CHECK(ingest(bus, REQUEST("1")) == STDIO_BUS_OK);
    CHECK_STR(reads(bus, worker), REQUEST("1"));
    says(worker, "{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, seen.count == before + 1);
    CHECK_STR(seen.frame[before].text, "{\"id\":1,\"result\":0}");
}

static void a_pool_without_instances_starts_nothing(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    CHECK(stdio_bus_worker_slots(bus) == 0 && pool_info(bus, 0).workers == 0 && seen.events == 0);
    finish(bus);
}

static void the_first_request_goes_to_the_worker_that_was_registered(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    is_served(bus, embed(bus, "p"));
    finish(bus);
}

static void a_request_before_there_is_a_worker_is_refused(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    stdio_bus_submit_options_t options = {0};
    options.size = sizeof options;
    options.flags = STDIO_BUS_SUBMIT_ANSWER_ERRORS;
    CHECK(ingest(bus, REQUEST("1")) == STDIO_BUS_ERR_WORKER);
    CHECK(stdio_bus_submit(bus, REQUEST("1"), strlen(REQUEST("1")), &options) == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32011,\"message\":\"The pool has no running "
                                  "worker\",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"worker_exited\",\"pool\":\"p\","
                                  "\"sent\":false}}}");
    is_served(bus, embed(bus, "p"));
    finish(bus);
}

static void a_worker_may_come_after_another_one_has_left(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    worker_t worker = embed(bus, "p");
    goes(worker);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(ingest(bus, REQUEST("1")) == STDIO_BUS_ERR_WORKER);
    is_served(bus, embed(bus, "p"));
    finish(bus);
}

static void a_reload_that_leaves_the_pool_as_it_is_leaves_its_workers(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    worker_t worker = embed(bus, "p");
    CHECK(stdio_bus_reload(bus, NULL, POOLS(OWN("p") "," DEAD("q"))) == STDIO_BUS_OK);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(OWN("p"))) == STDIO_BUS_OK);
    is_served(bus, worker);
    finish(bus);
}

static void a_reload_may_take_the_processes_from_a_pool(void)
{
    stdio_bus_t *bus = begin(POOLS(ECHO("p")));
    CHECK(stdio_bus_reload(bus, NULL, POOLS(OWN("p"))) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(pool_info(bus, 0).workers == 0);
    /* It was to end: no news that anybody has to be warned of. */
    CHECK(seen.logs[2] == 0 && seen.logs[1] > 0);
    is_served(bus, embed(bus, "p"));
    finish(bus);
}

static void a_client_is_refused_and_then_served_too(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    int client = connect_pair(bus);
    worker_t worker;
    client_says(client, REQUEST("1") "\n");
    CHECK(strstr(client_line(bus, client), "\"code\":-32011") != NULL);
    worker = embed(bus, "p");
    client_says(client, REQUEST("2") "\n");
    CHECK_STR(reads(bus, worker), REQUEST("2"));
    says(worker, "{\"id\":2,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":2,\"result\":0}\n");
    finish(bus);
}

static void a_drain_with_nothing_registered_stops(void)
{
    stdio_bus_t *bus = begin(POOLS(OWN("p")));
    CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static const sb_test tests[] = {
    TEST(a_pool_without_instances_starts_nothing),
    TEST(the_first_request_goes_to_the_worker_that_was_registered),
    TEST(a_request_before_there_is_a_worker_is_refused),
    TEST(a_worker_may_come_after_another_one_has_left),
    TEST(a_reload_that_leaves_the_pool_as_it_is_leaves_its_workers),
    TEST(a_reload_may_take_the_processes_from_a_pool),
    TEST(a_client_is_refused_and_then_served_too),
    TEST(a_drain_with_nothing_registered_stops),
};

TEST_MAIN(tests)
