/* test_exclusive.c - pools that give each client a worker of its own. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "fixture.h"

/* Answers every line, as if it had the id 1, with its pid, and its last client's end with a farewell file. */
#define SCRIPT "while read -r line; do echo '{\\\"id\\\":1,\\\"result\\\":'$$'}'; done"
#define EXCLUSIVE(instances, more)                                                                     \
    "{\"pools\":[{\"id\":\"p\",\"command\":\"sh\",\"args\":[\"-c\",\"" SCRIPT "\"],\"clients\":\"exclusive\"," \
    "\"instances\":" instances more "}]}"
#define ASK "{\"id\":1,\"method\":\"m\"}\n"
#define INITIALIZE "{\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}}\n"

static stdio_bus_t *start_exclusive(const char *config)
{
    stdio_bus_t *bus = create(config, 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

/* The pid in the answer to what was said. */
static long hears_pid(stdio_bus_t *bus, int client)
{
    const char *line = client_line(bus, client), *result;
    CHECK(line != NULL);
    result = strstr(line, "\"result\":");
    CHECK(result != NULL);
    return atol(result + 9);
}

static long asks_pid(stdio_bus_t *bus, int client)
{
    client_says(client, ASK);
    return hears_pid(bus, client);
}

static void each_client_has_a_worker_of_its_own(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("2", ""));
    int one = connect_pair(bus), two = connect_pair(bus);
    long first, second;
    CHECK(stdio_bus_worker_count(bus) == 0);
    first = asks_pid(bus, one);
    CHECK(stdio_bus_worker_count(bus) == 1);
    second = asks_pid(bus, two);
    CHECK(first > 0 && second > 0 && first != second);
    CHECK(asks_pid(bus, one) == first && asks_pid(bus, two) == second);
    CHECK(pool_info(bus, 0).workers == 2 && pool_info(bus, 0).requests == 4);
    finish(bus);
}

static void a_session_of_the_same_name_is_another_one(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("2", ""));
    int one = connect_pair(bus), two = connect_pair(bus);
    long first = asks_pid(bus, one), second = asks_pid(bus, two);
    client_says(one, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}\n");
    client_says(two, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}\n");
    CHECK(hears_pid(bus, one) == first && hears_pid(bus, two) == second);
    CHECK(stdio_bus_session_count(bus) == 2);
    CHECK(stdio_bus_end_session(bus, "p", "s", 1) == STDIO_BUS_OK && stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static void one_more_client_is_refused_until_another_leaves(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("1", ""));
    int one = connect_pair(bus), two = connect_pair(bus);
    long first = asks_pid(bus, one);
    client_says(two, ASK);
    CHECK(strstr(client_line(bus, two), "\"id\":1,\"error\":{\"code\":-32012") != NULL);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_EFULL);
    close(one);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    CHECK(asks_pid(bus, two) != first);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 1);
    CHECK(kill((pid_t)first, 0) != 0);
    finish(bus);
}

static void the_host_may_be_the_one(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("1", ""));
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    client_says(connect_pair(bus), ASK);
    STEP_UNTIL(bus, ext_stats(bus).overload_refusals == 1);
    finish(bus);
}

static void each_client_introduces_itself_to_its_own_worker(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("2", ""));
    int one = connect_pair(bus), two = connect_pair(bus);
    long first, second;
    client_says(one, INITIALIZE);
    client_says(two, INITIALIZE);
    first = hears_pid(bus, one);
    second = hears_pid(bus, two);
    CHECK(first > 0 && second > 0 && first != second);
    finish(bus);
}

static void a_worker_that_dies_is_replaced_for_its_client(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("2", ""));
    int one = connect_pair(bus);
    long first = asks_pid(bus, one), second;
    CHECK(kill((pid_t)first, SIGKILL) == 0);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    second = asks_pid(bus, one);
    CHECK(second > 0 && second != first);
    finish(bus);
}

static void what_a_pool_has_counted_outlives_its_clients(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("1", ""));
    int one = connect_pair(bus), two = connect_pair(bus);
    kill((pid_t)asks_pid(bus, one), SIGKILL);
    STEP_UNTIL(bus, pool_info(bus, 0).restarts == 1 && pool_info(bus, 0).ready == 1);
    CHECK(asks_pid(bus, one) > 0);
    close(one);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(pool_info(bus, 0).requests == 2 && pool_info(bus, 0).restarts == 1);
    CHECK(asks_pid(bus, two) > 0);
    CHECK(pool_info(bus, 0).requests == 3 && pool_info(bus, 0).restarts == 1);
    finish(bus);
}

static void what_a_worker_says_belongs_to_its_client(void)
{
    stdio_bus_t *bus = start_exclusive("{\"pools\":[{\"id\":\"p\",\"command\":\"sh\",\"clients\":\"exclusive\",\"instances\":2,\"args\":"
                                       "[\"-c\",\"read -r l; echo '{\\\"method\\\":\\\"news\\\"}'; read -r l\"]}]}");
    int one = connect_pair(bus), two = connect_pair(bus);
    client_says(two, "{\"method\":\"m\"}\n");
    client_says(one, "{\"method\":\"m\"}\n");
    client_hears(bus, one, "{\"method\":\"news\"}\n");
    client_hears(bus, two, "{\"method\":\"news\"}\n");
    CHECK(seen.count == 0);
    finish(bus);
}

static void after_a_reload_a_client_goes_on_with_a_new_worker(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("2", ""));
    int one = connect_pair(bus);
    long first = asks_pid(bus, one), second;
    CHECK(stdio_bus_reload(bus, NULL, EXCLUSIVE("2", ",\"env\":{\"A\":\"b\"}")) == STDIO_BUS_OK);
    second = asks_pid(bus, one);
    CHECK(second != first);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 1);
    CHECK(kill((pid_t)first, 0) != 0);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(ECHO("p"))) == STDIO_BUS_OK);
    client_says(one, ASK);
    client_hears(bus, one, "{\"id\":1,\"result\":0}\n");
    finish(bus);
}

static void what_waits_for_a_shared_worker_goes_to_an_own_one_after_a_reload(void)
{
    stdio_bus_t *bus = start_exclusive(LIMITED("{\"id\":\"p\",\"command\":\"false\"}", "\"max_restarts\":1000"));
    int client = connect_pair(bus);
    STEP_UNTIL(bus, worker_info(bus, 0).state == STDIO_BUS_WORKER_BACKOFF);
    client_says(client, ASK);
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 1);
    CHECK(stdio_bus_reload(bus, NULL, EXCLUSIVE("2", "")) == STDIO_BUS_OK);
    CHECK(hears_pid(bus, client) > 0);
    finish(bus);
}

static void a_program_that_cannot_be_executed_fails_the_start(void)
{
    stdio_bus_t *bus = create(POOLS("{\"id\":\"p\",\"command\":\"/no/such/program\",\"clients\":\"exclusive\"}"), 0);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_ERR_WORKER);
    CHECK(strstr(seen.error, "/no/such/program") != NULL);
    stdio_bus_destroy(bus);
}

static void an_embedded_worker_belongs_to_no_such_pool(void)
{
    stdio_bus_t *bus = start_exclusive(EXCLUSIVE("2", ""));
    int to[2], from[2];
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    CHECK(stdio_bus_register_embedded_worker(bus, to[1], from[0], "p") == STDIO_BUS_EINVAL);
    for (int i = 0; i < 2; i++) CHECK(close(to[i]) == 0 && close(from[i]) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(each_client_has_a_worker_of_its_own),
    TEST(a_session_of_the_same_name_is_another_one),
    TEST(one_more_client_is_refused_until_another_leaves),
    TEST(the_host_may_be_the_one),
    TEST(each_client_introduces_itself_to_its_own_worker),
    TEST(a_worker_that_dies_is_replaced_for_its_client),
    TEST(what_a_pool_has_counted_outlives_its_clients),
    TEST(what_a_worker_says_belongs_to_its_client),
    TEST(after_a_reload_a_client_goes_on_with_a_new_worker),
    TEST(what_waits_for_a_shared_worker_goes_to_an_own_one_after_a_reload),
    TEST(a_program_that_cannot_be_executed_fails_the_start),
    TEST(an_embedded_worker_belongs_to_no_such_pool),
};

TEST_MAIN(tests)
