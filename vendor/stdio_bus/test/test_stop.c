/* test_stop.c - how workers are stopped, within the time there is, and that nothing is left of them. Programs are real. */
#include "supervise.h"

/* ---- stop -------------------------------------------------------------------------------------------- */

static void a_worker_that_ends_at_end_of_input_ends_at_once(void)
{
    stdio_bus_t *bus = start(CONFIG("\"cat\""));
    CHECK(stop_and_destroy(bus, 9000) < 800);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->code == 0);
}

static void a_worker_that_needs_sigterm_gets_it_after_a_third_of_the_time(void)
{
    stdio_bus_t *bus = start(CONFIG("\"sleep\",\"args\":[\"60\"]"));
    long took = stop_and_destroy(bus, 2400);
    CHECK(took >= 790 && took < 1500);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGTERM);
}

static void sigterm_comes_after_two_seconds_however_much_time_there_is(void)
{
    stdio_bus_t *bus = start(CONFIG("\"sleep\",\"args\":[\"60\"]"));
    long took = stop_and_destroy(bus, 60000);
    CHECK(took >= 1990 && took < 3000);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGTERM);
}

static void a_worker_that_needs_sigkill_gets_it_a_second_before_the_end(void)
{
    stdio_bus_t *bus = start(CONFIG(SHELL(STUBBORN)));
    long took;
    STEP_UNTIL(bus, messages == 1);
    took = stop_and_destroy(bus, 3000);
    CHECK(took >= 1990 && took < 3000);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGKILL);
}

static void a_stop_with_no_time_kills_at_once(void)
{
    stdio_bus_t *bus = start(CONFIG(SHELL(STUBBORN)));
    STEP_UNTIL(bus, messages == 1);
    CHECK(stop_and_destroy(bus, 0) < 500);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGKILL);
}

static void a_stop_that_takes_its_time_can_be_hastened(void)
{
    stdio_bus_t *bus = start(CONFIG(SHELL(STUBBORN)));
    STEP_UNTIL(bus, messages == 1);
    CHECK(stdio_bus_stop(bus, 60) == STDIO_BUS_OK);
    CHECK(stdio_bus_stop(bus, 30) == STDIO_BUS_OK);
    stdio_bus_step(bus, 0);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPING);
    CHECK(stop_and_destroy(bus, 0) < 500);
}

static void what_is_queued_is_written_before_the_input_is_closed(void)
{
    char config[256], path[64], text[64] = "";
    stdio_bus_t *bus;
    int fd;
    snprintf(path, sizeof path, "/tmp/stdio_bus-test-flush-%d", (int)getpid());
    snprintf(config, sizeof config, CONFIG(SHELL("sleep 0.3; wc -c >%s")), path);
    bus = start(config);
    for (int i = 0; i < 4; i++) CHECK(ingest(bus, request(i, 1 << 20)) == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"last\"}") == STDIO_BUS_OK);
    stop_and_destroy(bus, 10000);
    CHECK((fd = open(path, O_RDONLY)) >= 0 && read(fd, text, sizeof text - 1) > 0);
    CHECK(atoi(text) == 4 * ((1 << 20) + 1) + 18);
    unlink(path);
}

/* A worker behind a shell, which says the process id of what it leaves in the background. */
#define WRAPPER SHELL("sleep 1000 & echo '{\\\"method\\\":\\\"pid\\\",\\\"params\\\":'$!'}'; cat >/dev/null")

static int grandchild(stdio_bus_t *bus)
{
    const char *params;
    STEP_UNTIL(bus, messages == 1);
    params = strstr(last_message, "\"params\":");
    CHECK(params != NULL);
    return atoi(params + 9);
}

/* Gone, or ended and not reaped: an orphan is not the bus's to reap. */
static bool has_ended(int pid)
{
    char path[64], state = '\0';
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "r");
    if (file == NULL) return true;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
    fclose(file);
    return state == 'Z' || state == 'X';
}

static void a_wrapper_leaves_nothing_behind_when_it_is_stopped(void)
{
    stdio_bus_t *bus = start(CONFIG(WRAPPER));
    int pid = grandchild(bus);
    long deadline = now_ms() + BOUND_MS;
    CHECK(pid > 0 && !has_ended(pid));
    CHECK(stop_and_destroy(bus, 9000) < 1500);
    while (!has_ended(pid)) CHECK(now_ms() < deadline);
}

static void a_wrapper_leaves_nothing_behind_when_it_is_killed(void)
{
    stdio_bus_t *bus = start(CONFIG(WRAPPER));
    int pid = grandchild(bus);
    CHECK(pid > 0 && !has_ended(pid));
    CHECK(kill(info_of(bus, 0).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, has_ended(pid));
    stop_and_destroy(bus, 0);
}

static const sb_test tests[] = {
    TEST(a_worker_that_ends_at_end_of_input_ends_at_once),
    TEST(a_worker_that_needs_sigterm_gets_it_after_a_third_of_the_time),
    TEST(sigterm_comes_after_two_seconds_however_much_time_there_is),
    TEST(a_worker_that_needs_sigkill_gets_it_a_second_before_the_end),
    TEST(a_stop_with_no_time_kills_at_once),
    TEST(a_stop_that_takes_its_time_can_be_hastened),
    TEST(what_is_queued_is_written_before_the_input_is_closed),
    TEST(a_wrapper_leaves_nothing_behind_when_it_is_stopped),
    TEST(a_wrapper_leaves_nothing_behind_when_it_is_killed),
};

TEST_MAIN(tests)
