/* test_supervision.c - how workers are started, watched and started again. Programs are real. */
#include "supervise.h"

/* ---- spawn ------------------------------------------------------------------------ */

/* 32 and 33: glibc keeps them to itself, and its posix_spawn (as make uses it) leaves them ignored. */
#define LIBC_SIGNALS (3ull << 31)

/* The value of a line of /proc/PID/status, as a hexadecimal number. */
static unsigned long long status_of(int pid, const char *name)
{
    char path[64], line[256];
    unsigned long long value = ~0ull;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) value = strtoull(line + strlen(name), NULL, 16);
    }
    fclose(file);
    return value;
}

static void a_worker_has_a_group_of_its_own_default_signals_and_three_descriptors(void)
{
    char path[64];
    sigset_t blocked;
    stdio_bus_t *bus;
    int pid;
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGHUP, SIG_IGN) != SIG_ERR);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGTERM);
    CHECK(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    open_many(1500);

    bus = start(CONFIG(ECHO));
    /* Once it has answered it is past its own start, in which it opens its libraries. */
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, messages == 1);
    pid = info_of(bus, 0).pid;
    CHECK(getpgid(pid) == pid);
    CHECK(status_of(pid, "SigBlk:") == 0);
    CHECK((status_of(pid, "SigIgn:") & ~LIBC_SIGNALS) == 0);
    CHECK(status_of(pid, "SigCgt:") == 0);
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    CHECK(count_entries(path) == 3);
    CHECK(stop_and_destroy(bus, 0) < 1000);
}

static void a_bus_works_above_descriptor_1024(void)
{
    open_many(1500);
    for (unsigned flags = 0; flags <= STDIO_BUS_CREATE_POLL; flags += STDIO_BUS_CREATE_POLL) {
        stdio_bus_t *bus = start_with(CONFIG(ECHO), flags);
        messages = 0;
        CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
        STEP_UNTIL(bus, messages == 1);
        stop_and_destroy(bus, 2000);
    }
}

static void hundreds_of_workers_are_started_and_stopped(void)
{
    stdio_bus_t *bus;
    open_many(0);
    bus = start("{\"pools\":[{\"id\":\"p\",\"command\":\"cat\",\"instances\":400}]}");
    CHECK(stdio_bus_worker_count(bus) == 400);
    CHECK(count_entries("/proc/self/fd") > 1024);
    stop_and_destroy(bus, 10000);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 400);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static void a_program_that_vanishes_fails_its_restarts_and_then_the_pool(void)
{
    char path[64], config[256];
    stdio_bus_t *bus;
    snprintf(path, sizeof path, "/tmp/stdio_bus-test-vanishing-%d", (int)getpid());
    CHECK(symlink("/bin/cat", path) == 0);
    snprintf(config, sizeof config, "{\"pools\":[{\"id\":\"p\",\"command\":\"%s\"}],\"limits\":{\"max_restarts\":2}}", path);
    bus = start(config);
    CHECK(unlink(path) == 0);
    CHECK(kill(info_of(bus, 0).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_STARTED) == 1); /* what isn't executed hasn't started */
    CHECK(info_of(bus, 0).state == STDIO_BUS_WORKER_FAILED);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_ERR_WORKER);
    stop_and_destroy(bus, 1000);
}

/* ---- stderr --------------------------------------------------------------------------- */

static void a_line_of_stderr_is_cut_at_16_kib(void)
{
    stdio_bus_t *bus = start(CONFIG(SHELL("head -c 40000 /dev/zero | tr '\\\\0' x >&2; echo >&2; echo next >&2; exec cat")));
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STDERR) == 2);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STDERR, 1)->text_len == 16 * 1024);
    CHECK_STR(nth_event(STDIO_BUS_EVENT_WORKER_STDERR, 2)->text, "next");
    stop_and_destroy(bus, 2000);
}

static void the_newest_64_kib_of_stderr_are_kept_in_whole_lines(void)
{
    static char tail[100000];
    stdio_bus_t *bus = start(CONFIG(SHELL("seq -f 'line %07g' 20000 >&2; echo '{\\\"method\\\":\\\"done\\\"}'; exec cat")));
    int len = 0;
    /* 20,000 lines of 13 bytes: each is an event too, which are not counted here. */
    bus->ext.on_event = NULL;
    STEP_UNTIL(bus, (len = stdio_bus_worker_stderr(bus, 0, tail, sizeof tail)) > 0 && strstr(tail, "0020000\n") != NULL);
    CHECK(len > 65536 - 64 && len <= 65536);
    CHECK(strncmp(tail, "line ", 5) == 0 && len % 13 == 0);
    bus->ext.on_event = on_event;
    stop_and_destroy(bus, 2000);
}

static void stderr_is_logged_inherited_or_thrown_away_as_the_pool_says(void)
{
    static const struct {
        const char *mode;
        unsigned flags;
        const char *target; /* NULL: the host's own */
    } cases[] = {
        {"", 0, "pipe:"},
        {",\"stderr\":\"log\"", STDIO_BUS_CREATE_STDERR_INHERIT, "pipe:"},
        {",\"stderr\":\"null\"", 0, "/dev/null"},
        {",\"stderr\":\"inherit\"", 0, NULL},
        {"", STDIO_BUS_CREATE_STDERR_INHERIT, NULL},
    };
    char config[256], path[64], own[256] = "", link[256];
    CHECK(readlink("/proc/self/fd/2", own, sizeof own - 1) > 0);
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        stdio_bus_t *bus;
        snprintf(config, sizeof config, "{\"pools\":[{\"id\":\"p\",\"command\":\"cat\"%s}]}", cases[i].mode);
        bus = start_with(config, cases[i].flags);
        snprintf(path, sizeof path, "/proc/%d/fd/2", info_of(bus, 0).pid);
        memset(link, 0, sizeof link);
        CHECK(readlink(path, link, sizeof link - 1) > 0);
        if (cases[i].target != NULL) {
            CHECK(strncmp(link, cases[i].target, strlen(cases[i].target)) == 0 && strcmp(link, own) != 0);
        } else {
            CHECK_STR(link, own);
        }
        stop_and_destroy(bus, 2000);
    }
}

static void a_line_of_stderr_says_whether_its_pool_says_what_becomes_of_it(void)
{
    static const struct {
        const char *mode;
        uint32_t flags;
    } cases[] = {{"", STDIO_BUS_EVENT_STDERR_UNSAID}, {",\"stderr\":\"log\"", 0}};
    char config[256];
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        stdio_bus_t *bus;
        snprintf(config, sizeof config,
                 "{\"pools\":[{\"id\":\"p\",\"command\":\"sh\",\"args\":[\"-c\",\"echo out >&2; cat\"]%s}]}", cases[i].mode);
        event_count = 0;
        bus = start_with(config, 0);
        STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STDERR) == 1);
        CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STDERR, 1)->flags == cases[i].flags);
        CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STARTED, 1)->flags == 0);
        stop_and_destroy(bus, 2000);
    }
}

/* ---- restarts ----------------------------------------------------------------------------- */

static void a_worker_that_ends_is_reaped_before_its_event(void)
{
    stdio_bus_t *bus = start(CONFIG("\"cat\""));
    int pid = info_of(bus, 0).pid;
    CHECK(kill(pid, SIGKILL) == 0);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    CHECK(kill(pid, 0) == -1 && errno == ESRCH);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGKILL);
    stop_and_destroy(bus, 2000);
}

static void the_policy_of_the_pool_decides_which_exits_are_followed_by_a_restart(void)
{
    static const struct {
        const char *policy, *script;
        bool restarted;
    } cases[] = {
        {"", "exit 0", true},
        {",\"restart\":\"always\"", "exit 0", true},
        {",\"restart\":\"always\"", "exit 3", true},
        {",\"restart\":\"on-failure\"", "exit 0", false},
        {",\"restart\":\"on-failure\"", "exit 3", true},
        {",\"restart\":\"on-failure\"", "kill -9 $$", true},
        {",\"restart\":\"never\"", "exit 3", false},
        {",\"restart\":\"never\"", "kill -9 $$", false},
    };
    char config[256];
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        stdio_bus_t *bus;
        event_count = 0;
        snprintf(config, sizeof config, "{\"pools\":[{\"id\":\"p\",\"command\":\"sh\",\"args\":[\"-c\",\"%s\"]%s}]}",
                 cases[i].script, cases[i].policy);
        bus = start(config);
        STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
        /* What becomes of it has been decided by now. */
        CHECK(count_events(STDIO_BUS_EVENT_WORKER_RESTARTING) == cases[i].restarted);
        CHECK(info_of(bus, 0).state == (cases[i].restarted ? STDIO_BUS_WORKER_BACKOFF : STDIO_BUS_WORKER_STOPPED));
        stop_and_destroy(bus, 0);
    }
}

static void with_max_restarts_0_nothing_is_restarted(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL("\"false\"") "],\"limits\":{\"max_restarts\":0}}");
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    CHECK(info_of(bus, 0).state == STDIO_BUS_WORKER_STOPPED);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_ERR_WORKER);
    stop_and_destroy(bus, 0);
}

static void restarts_are_spaced_by_a_backoff_that_doubles(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL("\"false\"") "],\"limits\":{\"max_restarts\":4}}");
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_RESTARTING) == 4);
    for (int n = 1; n <= 4; n++) {
        const event_t *planned = nth_event(STDIO_BUS_EVENT_WORKER_RESTARTING, n);
        const event_t *started = nth_event(STDIO_BUS_EVENT_WORKER_STARTED, n + 1);
        uint32_t full = 100u << (n - 1);
        CHECK(planned->delay_ms <= full && planned->delay_ms >= full - full / 4);
        CHECK(started->at - planned->at + 2 >= (long)planned->delay_ms);
        CHECK(started->at - planned->at < (long)planned->delay_ms + 1000);
    }
    stop_and_destroy(bus, 0);
}

static void workers_that_die_together_do_not_come_back_together(void)
{
    stdio_bus_t *bus = start("{\"pools\":[{\"id\":\"p\",\"command\":\"cat\",\"instances\":16}]}");
    int differing = 0;
    for (int i = 0; i < 16; i++) CHECK(kill(info_of(bus, i).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_RESTARTING) == 16);
    for (int n = 2; n <= 16; n++) {
        differing += nth_event(STDIO_BUS_EVENT_WORKER_RESTARTING, n)->delay_ms !=
                     nth_event(STDIO_BUS_EVENT_WORKER_RESTARTING, 1)->delay_ms;
    }
    CHECK(differing >= 8);
    stop_and_destroy(bus, 2000);
}

static uint32_t delay_after(uint32_t backoffs, uint64_t uptime_ms)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL("\"cat\"") "],\"limits\":{\"max_restarts\":99}}");
    uint32_t delay;
    event_count = 0;
    bus->workers[0]->restarts.backoffs = backoffs;
    bus->workers[0]->started_at -= uptime_ms;
    CHECK(kill(info_of(bus, 0).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_RESTARTING) == 1);
    delay = nth_event(STDIO_BUS_EVENT_WORKER_RESTARTING, 1)->delay_ms;
    stop_and_destroy(bus, 0);
    return delay;
}

static void a_backoff_is_30_seconds_at_most(void)
{
    static const uint32_t many[] = {9, 10, 40, UINT32_MAX - 1};
    for (size_t i = 0; i < SB_COUNT(many); i++) {
        uint32_t delay = delay_after(many[i], 0);
        CHECK(delay >= 22500 && delay <= 30000);
    }
}

static void a_worker_that_had_run_for_more_than_10_seconds_is_started_at_once(void)
{
    CHECK(delay_after(5, 10100) == 0);
    CHECK(delay_after(5, 8000) >= 2400);
}

static void a_worker_that_fails_too_often_rests_until_the_window_has_passed(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL("\"false\"") "],\"limits\":{\"max_restarts\":1,\"restart_window_sec\":1}}");
    long first;
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_STARTED) == 2);
    CHECK(info_of(bus, 0).state == STDIO_BUS_WORKER_FAILED);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_ERR_WORKER);
    first = nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->at;
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STARTED) == 3);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STARTED, 3)->at - first >= 990);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STARTED, 3)->at - first < 3000);
    stop_and_destroy(bus, 0);
}

static void a_worker_that_fails_too_often_leaves_its_pool_serving(void)
{
    stdio_bus_t *bus = start("{\"pools\":[{\"id\":\"p\",\"command\":" ECHO ",\"instances\":2}],"
                             "\"limits\":{\"max_restarts\":1,\"restart_window_sec\":3600}}");
    for (uint32_t n = 1; n <= 2; n++) {
        STEP_UNTIL(bus, info_of(bus, 0).state == STDIO_BUS_WORKER_READY && info_of(bus, 0).generation == n);
        CHECK(kill(info_of(bus, 0).pid, SIGKILL) == 0);
        STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == (int)n);
    }
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_FAILED) == 1 && info_of(bus, 0).state == STDIO_BUS_WORKER_FAILED);
    CHECK(stdio_bus_worker_count(bus) == 1 && info_of(bus, 1).restarts == 0);
    for (int i = 1; i <= 10; i++) {
        CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
        STEP_UNTIL(bus, messages == i);
        CHECK(strcmp(last_message, "{\"id\":1,\"result\":true}") == 0);
    }
    /* The window has passed. */
    sb_timer_set(&bus->ctx.loop.timers, &bus->workers[0]->timer, bus->ctx.loop.now);
    STEP_UNTIL(bus, info_of(bus, 0).state == STDIO_BUS_WORKER_READY);
    CHECK(info_of(bus, 0).generation == 3 && stdio_bus_worker_count(bus) == 2);
    stop_and_destroy(bus, 2000);
}

static void the_time_for_initialize_ends_with_the_worker(void)
{
    stdio_bus_t *bus = start("{\"pools\":[{\"id\":\"p\",\"command\":\"false\",\"protocol\":\"mcp\",\"initialize\":{},"
                             "\"init_timeout_sec\":1}],\"limits\":{\"max_restarts\":1,\"restart_window_sec\":3600}}");
    long failed;
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    failed = now_ms();
    STEP_UNTIL(bus, now_ms() - failed > 1200);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 2 && count_events(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_RESTARTING) == 1 && info_of(bus, 0).state == STDIO_BUS_WORKER_FAILED);
    stop_and_destroy(bus, 0);
}

static void a_worker_whose_end_is_noticed_before_its_start_gets_no_messages(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL(ECHO) "],\"limits\":{\"max_restarts\":1000}}");
    sb_worker *worker = bus->workers[0];
    siginfo_t info;
    CHECK(kill(worker->pid, SIGKILL) == 0);
    STEP_UNTIL(bus, worker->state == SB_WORKER_STARTING);
    CHECK(kill(worker->pid, SIGKILL) == 0 && waitid(P_PID, (id_t)worker->pid, &info, WEXITED | WNOWAIT) == 0);
    /* Which descriptor comes first is the poller's choice. */
    worker->process.on_ready(&worker->process, SB_READ);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 2 && worker->pool->balance.count == 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, messages == 1);
    CHECK(strcmp(last_message, "{\"id\":1,\"result\":true}") == 0);
    stop_and_destroy(bus, 2000);
}

static void every_event_carries_the_generation(void)
{
    stdio_bus_t *bus = start(CONFIG("\"cat\""));
    for (int n = 1; n <= 3; n++) {
        const event_t *ready, *stopped;
        STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_READY) == n);
        ready = nth_event(STDIO_BUS_EVENT_WORKER_READY, n);
        CHECK(ready->generation == (uint32_t)n && info_of(bus, 0).generation == (uint32_t)n);
        CHECK(kill(ready->pid, SIGKILL) == 0);
        STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == n);
        stopped = nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, n);
        CHECK(stopped->generation == (uint32_t)n && stopped->worker == 0);
        CHECK(nth_event(STDIO_BUS_EVENT_WORKER_RESTARTING, n)->generation == (uint32_t)n);
    }
    stop_and_destroy(bus, 0);
}

/* ---- output closed ---------------------------------------------------------------------------- */

static void a_worker_that_closes_its_output_is_out_of_routing_and_replaced(void)
{
    /* Each of the two says that it is up; the one that can make the folder closes its output then. */
    char config[512], path[64];
    int closer;
    stdio_bus_t *bus;
    snprintf(path, sizeof path, "/tmp/stdio_bus-test-mute-%d", (int)getpid());
    snprintf(config, sizeof config,
             "{\"pools\":[{\"id\":\"p\",\"command\":\"sh\",\"instances\":2,\"args\":[\"-c\",\"if mkdir %s; then exec sleep 60 "
             ">&-; else exec sed -u s/method.:../result\\\\\\\":\\\\\\\"/; fi\"]}]}", path);
    bus = start(config);
    STEP_UNTIL(bus, !sb_worker_takes(bus->workers[0]) || !sb_worker_takes(bus->workers[1]));
    closer = sb_worker_takes(bus->workers[0]) ? 1 : 0;
    for (int i = 0; i < 10; i++) {
        CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
        CHECK(info_of(bus, closer).pending == 0);
    }
    STEP_UNTIL(bus, messages == 10);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 0); /* it still lives, and nobody noticed */
    /* End of input does not end it, SIGTERM does; then there is another one. */
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STARTED) == 3);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->worker == closer);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGTERM);
    CHECK(rmdir(path) == 0);
    stop_and_destroy(bus, 2000);
}

static void a_worker_that_closes_its_output_and_ignores_sigterm_is_killed(void)
{
    stdio_bus_t *bus = start(CONFIG(SHELL("trap '' TERM; exec >&-; while :; do sleep 1; done")));
    long began = now_ms();
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGKILL);
    CHECK(now_ms() - began < 7000);
    stop_and_destroy(bus, 0);
}

static const sb_test tests[] = {
    TEST(a_worker_has_a_group_of_its_own_default_signals_and_three_descriptors),
    TEST(a_bus_works_above_descriptor_1024),
    TEST(hundreds_of_workers_are_started_and_stopped),
    TEST(a_program_that_vanishes_fails_its_restarts_and_then_the_pool),
    TEST(a_line_of_stderr_is_cut_at_16_kib),
    TEST(the_newest_64_kib_of_stderr_are_kept_in_whole_lines),
    TEST(stderr_is_logged_inherited_or_thrown_away_as_the_pool_says),
    TEST(a_line_of_stderr_says_whether_its_pool_says_what_becomes_of_it),
    TEST(a_worker_that_ends_is_reaped_before_its_event),
    TEST(the_policy_of_the_pool_decides_which_exits_are_followed_by_a_restart),
    TEST(with_max_restarts_0_nothing_is_restarted),
    TEST(restarts_are_spaced_by_a_backoff_that_doubles),
    TEST(workers_that_die_together_do_not_come_back_together),
    TEST(a_backoff_is_30_seconds_at_most),
    TEST(a_worker_that_had_run_for_more_than_10_seconds_is_started_at_once),
    TEST(a_worker_that_fails_too_often_rests_until_the_window_has_passed),
    TEST(a_worker_that_fails_too_often_leaves_its_pool_serving),
    TEST(a_worker_whose_end_is_noticed_before_its_start_gets_no_messages),
    TEST(the_time_for_initialize_ends_with_the_worker),
    TEST(every_event_carries_the_generation),
    TEST(a_worker_that_closes_its_output_is_out_of_routing_and_replaced),
    TEST(a_worker_that_closes_its_output_and_ignores_sigterm_is_killed),
};

TEST_MAIN(tests)
