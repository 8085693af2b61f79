/*
 * test_supervision.c - how workers are started, watched, stopped and started
 * again, and what happens to those that don't read. Programs are real; where a
 * worker has to read or not at the test's command, the test plays it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/bus.h"
#include "test.h"

/* Answers every request with true, and ends at end of input. */
#define ECHO "\"sed\",\"args\":[\"-u\",\"s/\\\"method\\\":\\\"[a-z]*\\\"/\\\"result\\\":true/\"]"
#define SHELL(script) "\"sh\",\"args\":[\"-c\",\"" script "\"]"
#define POOL(command) "{\"id\":\"p\",\"command\":" command "}"
#define CONFIG(command) "{\"pools\":[" POOL(command) "]}"

/* Sees neither end of input nor SIGTERM. */
#define STUBBORN "trap '' TERM; echo '{\\\"method\\\":\\\"up\\\"}'; while :; do sleep 1; done"

enum { BOUND_MS = 15000, EVENTS_MAX = 4096 };

typedef struct {
    uint32_t kind;
    int worker;
    uint32_t generation;
    int pid;
    int code, signal;
    uint32_t delay_ms;
    long at;
    size_t text_len;
    char text[64]; /* its beginning */
} event_t;

static event_t events[EVENTS_MAX];
static int event_count;
static int messages;
static char last_message[512];

static long now_ms(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    (void)user_data;
    messages++;
    snprintf(last_message, sizeof last_message, "%.*s", (int)(len < 500 ? len : 500), msg);
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    event_t *seen = &events[event_count];
    (void)bus;
    (void)user_data;
    CHECK(event_count < EVENTS_MAX);
    seen->kind = event->kind;
    seen->worker = event->worker;
    seen->generation = event->generation;
    seen->pid = event->pid;
    seen->code = event->exit_code;
    seen->signal = event->exit_signal;
    seen->delay_ms = event->delay_ms;
    seen->at = now_ms();
    seen->text_len = event->text_len;
    snprintf(seen->text, sizeof seen->text, "%.60s", event->text != NULL ? event->text : "");
    event_count++;
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    fprintf(stderr, "bus error %d: %s\n", code, message);
}

static void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)level;
    (void)message;
    (void)user_data;
}

static stdio_bus_t *start_with(const char *config, unsigned flags)
{
    stdio_bus_options_t options = {0};
    stdio_bus_ext_options_t ext = {0};
    stdio_bus_t *bus;
    options.config_json = config;
    options.on_message = on_message;
    options.on_error = on_error;
    options.on_log = on_log;
    ext.size = sizeof ext;
    ext.flags = flags;
    ext.on_event = on_event;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

static stdio_bus_t *start(const char *config)
{
    return start_with(config, 0);
}

#define STEP_UNTIL(bus, condition) \
    do { \
        long deadline_ = now_ms() + BOUND_MS; \
        while (!(condition)) { \
            if (now_ms() >= deadline_) sb_test_fail(__FILE__, __LINE__, "in time: " #condition); \
            CHECK(stdio_bus_step(bus, 20) >= 0); \
        } \
    } while (0)

/* How long stopping takes, in milliseconds. */
static long stop_and_destroy(stdio_bus_t *bus, uint32_t timeout_ms)
{
    long began = now_ms(), took;
    CHECK(stdio_bus_stop_within(bus, timeout_ms) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    took = now_ms() - began;
    stdio_bus_destroy(bus);
    return took;
}

/* Event number `nth` (from 1) of this kind, or NULL. */
static const event_t *nth_event(uint32_t kind, int nth)
{
    for (int i = 0; i < event_count; i++) {
        if (events[i].kind == kind && --nth == 0) return &events[i];
    }
    return NULL;
}

static int count_events(uint32_t kind)
{
    int count = 0;
    for (int i = 0; i < event_count; i++) count += events[i].kind == kind;
    return count;
}

static int ingest(stdio_bus_t *bus, const char *msg)
{
    return stdio_bus_ingest(bus, msg, strlen(msg));
}

static stdio_bus_worker_info_t info_of(stdio_bus_t *bus, int worker)
{
    stdio_bus_worker_info_t info = {0};
    info.size = sizeof info;
    CHECK(stdio_bus_worker_info(bus, worker, &info) == STDIO_BUS_OK);
    return info;
}

static int count_entries(const char *path)
{
    int count = -2; /* . and .. */
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count;
}

/* Opens that many descriptors that a program would inherit. */
static void open_many(int count)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 16384 ? limit.rlim_max : 16384;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < count; i++) CHECK(open("/dev/null", O_RDONLY) >= 0);
}

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

/* ---- a worker that doesn't read ------------------------------------------------------------------ */

#define PLAYED "{\"id\":\"p\",\"command\":\"true\",\"restart\":\"never\"}"

typedef struct {
    int id;
    int in, out; /* its stdin and stdout, as it sees them */
} played_t;

static played_t play(stdio_bus_t *bus)
{
    played_t played;
    int to[2], from[2];
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    played.id = stdio_bus_register_embedded_worker(bus, to[1], from[0], "p");
    CHECK(played.id >= 0);
    played.in = to[0];
    played.out = from[1];
    CHECK(fcntl(played.in, F_SETFL, O_NONBLOCK) == 0);
    return played;
}

/* A bus whose one process has ended, so that all its workers are played. */
static stdio_bus_t *start_played(const char *limits)
{
    char config[512];
    stdio_bus_t *bus;
    snprintf(config, sizeof config, "{\"pools\":[" PLAYED "],\"limits\":{%s}}", limits);
    bus = start(config);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    event_count = 0;
    return bus;
}

/* A request of this size; static. */
static const char *request(int id, size_t size)
{
    static char text[4 << 20];
    int len = snprintf(text, sizeof text, "{\"id\":%d,\"method\":\"m\",\"params\":\"", id);
    CHECK(size + 2 < sizeof text && size > (size_t)len + 2);
    memset(text + len, 'x', size - (size_t)len - 2);
    memcpy(text + size - 2, "\"}", 3);
    return text;
}

/* Everything in its stdin, until the bus has no more; returns the bytes and the number of lines. */
static size_t read_all(stdio_bus_t *bus, const played_t *played, int *lines)
{
    static char bytes[65536];
    size_t total = 0;
    long deadline = now_ms() + BOUND_MS;
    stdio_bus_pool_info_t info = {0};
    info.size = sizeof info;
    for (;;) {
        ssize_t n = read(played->in, bytes, sizeof bytes);
        CHECK(now_ms() < deadline);
        if (n > 0) {
            total += (size_t)n;
            for (ssize_t i = 0; i < n; i++) *lines += bytes[i] == '\n';
            continue;
        }
        CHECK(n < 0 && errno == EAGAIN);
        stdio_bus_step(bus, 0);
        CHECK(stdio_bus_pool_info(bus, 0, &info) == STDIO_BUS_OK);
        if (info.outbox_bytes == 0 && read(played->in, bytes, 0) == 0) {
            struct pollfd wait = {played->in, POLLIN, 0};
            if (poll(&wait, 1, 0) == 0) return total;
        }
    }
}

static void a_worker_that_does_not_read_is_left_out_until_it_reads_again(void)
{
    stdio_bus_t *bus = start_played("");
    played_t deaf = play(bus), good;
    int lines = 0;
    long asked = now_ms();
    CHECK(ingest(bus, request(1, 200000)) == STDIO_BUS_OK);
    stdio_bus_step(bus, 0);
    good = play(bus);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STALLED) == 1);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STALLED, 1)->worker == deaf.id);
    CHECK(now_ms() - asked >= 4900 && now_ms() - asked < 8000);
    CHECK(sb_worker_takes(bus->workers[deaf.id])); /* busy is not broken: it isn't stopped */

    /* With the same load, each would get half of these. */
    for (int id = 2; id <= 11; id++) CHECK(ingest(bus, request(id, 100)) == STDIO_BUS_OK);
    CHECK(info_of(bus, deaf.id).pending == 1 && info_of(bus, good.id).pending == 10);

    event_count = 0;
    CHECK(read_all(bus, &deaf, &lines) == 200001 && lines == 1);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_READY) == 1);
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_READY, 1)->worker == deaf.id);
    CHECK(ingest(bus, request(12, 100)) == STDIO_BUS_OK);
    CHECK(info_of(bus, deaf.id).pending == 2);
    stop_and_destroy(bus, 0);
}

static void the_only_worker_of_a_pool_gets_messages_even_if_it_does_not_read(void)
{
    stdio_bus_t *bus = start_played("");
    played_t deaf = play(bus);
    CHECK(ingest(bus, request(1, 200000)) == STDIO_BUS_OK);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STALLED) == 1);
    CHECK(ingest(bus, request(2, 100)) == STDIO_BUS_OK);
    CHECK(info_of(bus, deaf.id).pending == 2);
    stop_and_destroy(bus, 0);
}

static void a_worker_that_does_not_read_is_stopped_after_the_stall_timeout(void)
{
    stdio_bus_t *bus = start("{\"pools\":[" POOL("\"sleep\",\"args\":[\"60\"]") "],\"limits\":{\"stall_timeout_sec\":1}}");
    long asked = now_ms(), took;
    CHECK(ingest(bus, request(1, 200000)) == STDIO_BUS_OK);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    took = now_ms() - asked;
    CHECK(nth_event(STDIO_BUS_EVENT_WORKER_STOPPED, 1)->signal == SIGTERM);
    /* A second of silence, then two for end of input, which a sleeping program doesn't see. */
    CHECK(took >= 2900 && took < 4900);
    CHECK(messages == 1 && strstr(last_message, "-32011") != NULL);
    STEP_UNTIL(bus, count_events(STDIO_BUS_EVENT_WORKER_STARTED) == 2);
    stop_and_destroy(bus, 0);
}

/* ---- queues to a worker ---------------------------------------------------------------------------- */

static void client_says(int fd, const char *text)
{
    size_t len = strlen(text);
    CHECK(send(fd, text, len, 0) == (ssize_t)len && send(fd, "\n", 1, 0) == 1);
}

/* Whether the client has been refused something by now. */
static bool was_refused(int fd)
{
    char text[2048];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (n < 0) return false;
    text[n] = '\0';
    CHECK(strstr(text, "\"code\":-32012") != NULL && strstr(text, "\"reason\":\"overloaded\"") != NULL);
    CHECK(strstr(text, "\"sent\":false") != NULL);
    return true;
}

static int connect_client(stdio_bus_t *bus)
{
    int pair[2], size = 1 << 20;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    CHECK(stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    return pair[0];
}

static void one_client_fills_half_of_a_workers_queue_and_another_still_gets_in(void)
{
    enum { FRAME = 20000 };
    stdio_bus_t *bus = start_played("\"max_output_queue\":1048576");
    played_t deaf = play(bus);
    int greedy = connect_client(bus), modest = connect_client(bus);
    int accepted = 0, lines = 0;
    stdio_bus_ext_stats_t stats = {0};
    stats.size = sizeof stats;
    for (bool refused = false; !refused; accepted++) {
        CHECK(accepted < 100);
        client_says(greedy, request(accepted, FRAME));
        STEP_UNTIL(bus, (refused = was_refused(greedy)) || info_of(bus, deaf.id).pending == (uint32_t)accepted + 1);
    }
    accepted--; /* the last one was refused */
    /* Half of 1 MiB, and what the pipe has taken. */
    CHECK(accepted >= 524288 / FRAME && accepted <= (524288 + 2 * 65536) / FRAME + 1);
    for (int id = 0; id < 20; id++) {
        client_says(modest, request(100 + id, FRAME));
        STEP_UNTIL(bus, info_of(bus, deaf.id).pending == (uint32_t)(accepted + id + 1));
    }
    CHECK(!was_refused(modest));
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK);
    CHECK(stats.overload_refusals == 1 && stats.outbox_bytes <= 1048576);

    /* Nothing was lost on the way, and the host hears that there is room again, once. */
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_WRITABLE) == 0);
    CHECK(read_all(bus, &deaf, &lines) == (size_t)(accepted + 20) * (FRAME + 1));
    CHECK(lines == accepted + 20);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_WRITABLE) == 1);
    client_says(greedy, request(999, FRAME));
    STEP_UNTIL(bus, info_of(bus, deaf.id).pending == (uint32_t)(accepted + 21));
    stop_and_destroy(bus, 0);
}

static void a_full_queue_refuses_the_host_with_a_status(void)
{
    stdio_bus_t *bus = start_played("\"max_output_queue\":1048576");
    played_t deaf = play(bus);
    int accepted = 0, lines = 0;
    while (ingest(bus, request(accepted, 100000)) == STDIO_BUS_OK) {
        CHECK(++accepted < 20);
        stdio_bus_step(bus, 0);
    }
    CHECK(ingest(bus, request(99, 100000)) == STDIO_BUS_EFULL);
    CHECK(stdio_bus_pending_count(bus) == accepted);
    CHECK(read_all(bus, &deaf, &lines) == (size_t)accepted * 100001 && lines == accepted);
    CHECK(count_events(STDIO_BUS_EVENT_WORKER_WRITABLE) == 1);
    CHECK(messages == 0); /* what is refused with a status has no answer too */
    stop_and_destroy(bus, 0);
}

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
    TEST(a_worker_has_a_group_of_its_own_default_signals_and_three_descriptors),
    TEST(a_bus_works_above_descriptor_1024),
    TEST(hundreds_of_workers_are_started_and_stopped),
    TEST(a_program_that_vanishes_fails_its_restarts_and_then_the_pool),
    TEST(a_line_of_stderr_is_cut_at_16_kib),
    TEST(the_newest_64_kib_of_stderr_are_kept_in_whole_lines),
    TEST(stderr_is_logged_inherited_or_thrown_away_as_the_pool_says),
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
    TEST(a_worker_that_does_not_read_is_left_out_until_it_reads_again),
    TEST(the_only_worker_of_a_pool_gets_messages_even_if_it_does_not_read),
    TEST(a_worker_that_does_not_read_is_stopped_after_the_stall_timeout),
    TEST(one_client_fills_half_of_a_workers_queue_and_another_still_gets_in),
    TEST(a_full_queue_refuses_the_host_with_a_status),
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
