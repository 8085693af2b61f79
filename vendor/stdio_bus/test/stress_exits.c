/*
 * stress_exits.c - a thousand workers that end at once, each with a request
 * unanswered: every request ends exactly once, every worker is reaped and then
 * started again or given up as its pool's policy says.
 */
#include "stress.h"

enum { RESTARTS = 2, MAX_WORKERS = 1000 };

typedef struct {
    int stopped, ready, failed; /* events, over all workers */
    int results, errors;        /* answers */
    int twice;
    unsigned char answered[(RESTARTS + 1) * 2 * MAX_WORKERS];
} seen_t;

static seen_t seen;

static void on_frame(stdio_bus_t *bus, const stdio_bus_frame_t *frame, void *user_data)
{
    int id = atoi(frame->id);
    (void)bus;
    (void)user_data;
    STRESS_CHECK(frame->kind == STDIO_BUS_FRAME_RESPONSE && id >= 0 && (size_t)id < sizeof seen.answered);
    if (seen.answered[id]++ > 0) seen.twice++;
    if (frame->flags & STDIO_BUS_FRAME_FROM_BUS) {
        STRESS_CHECK(strstr(frame->data, "-32011") != NULL);
        seen.errors++;
    } else {
        char expected[32];
        snprintf(expected, sizeof expected, "\"result\":{\"t\":%d}}", id);
        STRESS_CHECK(strstr(frame->data, expected) != NULL);
        seen.results++;
    }
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)bus;
    (void)user_data;
    if (event->kind == STDIO_BUS_EVENT_WORKER_STOPPED) seen.stopped++;
    if (event->kind == STDIO_BUS_EVENT_WORKER_READY) seen.ready++;
    if (event->kind == STDIO_BUS_EVENT_WORKER_FAILED) seen.failed++;
}

static int count_in_state(stdio_bus_t *bus, unsigned state)
{
    int count = 0;
    for (int i = 0; i < stdio_bus_worker_slots(bus); i++) {
        stdio_bus_worker_info_t info = {0};
        info.size = sizeof info;
        STRESS_CHECK(stdio_bus_worker_info(bus, i, &info) == STDIO_BUS_OK);
        count += info.state == state;
    }
    return count;
}

/* Kills whatever runs, without a step in between. Each has a request: the load is what chooses a worker. */
static void kill_all(stdio_bus_t *bus)
{
    for (int i = 0; i < stdio_bus_worker_slots(bus); i++) {
        stdio_bus_worker_info_t info = {0};
        info.size = sizeof info;
        STRESS_CHECK(stdio_bus_worker_info(bus, i, &info) == STDIO_BUS_OK);
        if (info.pid <= 0) continue;
        if (info.pending != 1) stress_fail("worker %d has %u requests, not 1", i, info.pending);
        STRESS_CHECK(kill(info.pid, SIGKILL) == 0);
    }
}

int main(int argc, char **argv)
{
    int small = stress_begin(argc, argv), id = 0;
    int workers = small ? 200 : MAX_WORKERS, once = workers / 10, always = workers - once;
    int alive = workers, killed = 0;
    long times[4][2] = {{0}}, from;
    char config[1024];
    stress_footprint before = stress_look(), running, now;
    snprintf(config, sizeof config,
             "{\"pools\":["
             "{\"id\":\"always\",\"command\":\"%s\",\"args\":[\"--worker\"],\"instances\":%d},"
             "{\"id\":\"once\",\"command\":\"%s\",\"args\":[\"--worker\"],\"instances\":%d,\"restart\":\"never\"}],"
             "\"limits\":{\"max_restarts\":%d,\"restart_window_sec\":3600}}",
             argv[0], always, argv[0], once, RESTARTS);
    from = stress_now_ms();
    stdio_bus_t *bus = stress_create(config, on_frame, on_event, NULL);
    STRESS_CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    long start_ms = stress_now_ms() - from;
    STRESS_STEP_UNTIL(bus, seen.ready == workers);
    running = stress_look();
    STRESS_CHECK(running.children == workers && running.zombies == 0);

    for (int round = 0; round <= RESTARTS; round++) {
        int errors = seen.errors, results = seen.results;
        for (int i = 0; i < always; i++) stress_ask(bus, "always", "hold", id++);
        for (int i = 0; i < alive - always; i++) stress_ask(bus, "once", "hold", id++);
        stdio_bus_step(bus, 0);
        from = stress_now_ms();
        kill_all(bus);
        killed += alive;
        STRESS_STEP_UNTIL(bus, seen.stopped == killed);
        times[round][0] = stress_now_ms() - from;
        STRESS_CHECK(seen.errors - errors == alive && stdio_bus_pending_count(bus) == 0);
        now = stress_look();
        STRESS_CHECK(now.zombies == 0);
        alive = always;
        if (round == RESTARTS) break;
        STRESS_STEP_UNTIL(bus, seen.ready == workers + always * (round + 1));
        times[round][1] = stress_now_ms() - from;
        now = stress_look();
        STRESS_CHECK(now.children == always && now.zombies == 0);
        STRESS_CHECK(count_in_state(bus, STDIO_BUS_WORKER_READY) == always);
        /* Those that came back work. */
        for (int i = 0; i < always; i++) stress_ask(bus, "always", "ask", id++);
        STRESS_STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 0);
        STRESS_CHECK(seen.results - results == always);
    }
    STRESS_CHECK(seen.failed == always && count_in_state(bus, STDIO_BUS_WORKER_FAILED) == always);
    STRESS_CHECK(count_in_state(bus, STDIO_BUS_WORKER_STOPPED) == once && stdio_bus_worker_count(bus) == 0);
    STRESS_CHECK(seen.twice == 0 && seen.errors + seen.results == id);
    now = stress_look();
    /* The bus itself has an epoll and a wake-up descriptor. */
    STRESS_CHECK(now.children == 0 && now.fds == before.fds + 2);
    stress_stop(bus);
    now = stress_look();
    stress_same(&before, &now, "after destroy");
    printf("exits: %d workers started in %ld ms; %d killed in 3 rounds, reaped in %ld/%ld/%ld ms, "
           "back after %ld/%ld ms (backoff included); %d failed, %d not restarted; %d requests: %d results, %d errors, "
           "0 lost, 0 twice; 0 zombies, fds %d -> %d -> %d, RSS %ld -> %ld -> %ld KiB\n",
           workers, start_ms, killed, times[0][0], times[1][0], times[2][0], times[0][1], times[1][1], seen.failed,
           once, id, seen.results, seen.errors, before.fds, running.fds, now.fds, before.rss_kib, running.rss_kib,
           now.rss_kib);
    return 0;
}
