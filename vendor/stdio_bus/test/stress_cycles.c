/*
 * stress_cycles.c - ten thousand times a worker is started and ends, by stop,
 * by reload and by itself. Each gets a request first; nothing of any of them
 * is left.
 */
#include "stress.h"

enum { MAX_IDS = 200000 };

static struct {
    int started, stopped, ready, failed;
    int answers, errors, twice;
    unsigned char answered[MAX_IDS];
} seen;

static int last_id;

static void on_frame(stdio_bus_t *bus, const stdio_bus_frame_t *frame, void *user_data)
{
    int id = atoi(frame->id);
    (void)bus;
    (void)user_data;
    STRESS_CHECK(frame->kind == STDIO_BUS_FRAME_RESPONSE && id >= 0 && id < last_id);
    if (seen.answered[id]++ > 0) seen.twice++;
    seen.answers++;
    if (frame->flags & STDIO_BUS_FRAME_FROM_BUS) seen.errors++;
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)bus;
    (void)user_data;
    if (event->kind == STDIO_BUS_EVENT_WORKER_STARTED) seen.started++;
    if (event->kind == STDIO_BUS_EVENT_WORKER_STOPPED) seen.stopped++;
    if (event->kind == STDIO_BUS_EVENT_WORKER_READY) seen.ready++;
    if (event->kind == STDIO_BUS_EVENT_WORKER_FAILED) seen.failed++;
}

/* The round is part of the environment, so that a reload finds the pool changed. */
static const char *make_config(const char *self, int workers, int round)
{
    static char config[1024];
    snprintf(config, sizeof config,
             "{\"pools\":[{\"id\":\"w\",\"command\":\"%s\",\"args\":[\"--worker\"],\"instances\":%d,"
             "\"env\":{\"ROUND\":\"%d\"}}],\"limits\":{\"max_restarts\":1000}}",
             self, workers, round);
    return config;
}

static void ask_all(stdio_bus_t *bus, int workers, const char *method)
{
    STRESS_CHECK(last_id + workers <= MAX_IDS);
    for (int i = 0; i < workers; i++) stress_ask(bus, "w", method, last_id++);
}

static void by_stop(const char *self, int buses, int workers)
{
    for (int round = 0; round < buses; round++) {
        stdio_bus_t *bus = stress_create(make_config(self, workers, round), on_frame, on_event, NULL);
        STRESS_CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
        ask_all(bus, workers, "ask");
        STRESS_STEP_UNTIL(bus, seen.answers == last_id);
        stress_stop(bus);
    }
}

/* What was asked before the reload is answered by those that leave. */
static void by_reload(stdio_bus_t *bus, const char *self, int reloads, int workers)
{
    static int round;
    while (reloads-- > 0) {
        int stopped = seen.stopped, ready = seen.ready;
        ask_all(bus, workers, "ask");
        STRESS_CHECK(stdio_bus_reload(bus, NULL, make_config(self, workers, ++round)) == STDIO_BUS_OK);
        STRESS_STEP_UNTIL(bus, seen.ready == ready + workers && seen.stopped == stopped + workers);
        STRESS_STEP_UNTIL(bus, seen.answers == last_id);
    }
}

/* An exit unanswered ends its own request with an error. */
static void by_themselves(stdio_bus_t *bus, int rounds, int workers)
{
    for (int round = 0; round < rounds; round++) {
        int ready = seen.ready, stopped = seen.stopped, errors = seen.errors;
        ask_all(bus, workers, "exit");
        STRESS_STEP_UNTIL(bus, seen.ready == ready + workers && seen.stopped == stopped + workers);
        STRESS_CHECK(seen.answers == last_id && seen.errors == errors + workers);
    }
}

int main(int argc, char **argv)
{
    int small = stress_begin(argc, argv);
    int workers = small ? 50 : 400, buses = small ? 4 : 8, reloads = small ? 4 : 14, rounds = small ? 2 : 4;
    stress_footprint before = stress_look(), first, now;
    long times[4], from = stress_now_ms();
    long last_rss;

    by_stop(argv[0], 1, workers);
    first = stress_look();
    stress_same(&before, &first, "after the first bus");
    by_stop(argv[0], buses - 1, workers);
    now = stress_look();
    stress_same(&before, &now, "after the last bus");
    times[0] = stress_now_ms() - from;

    stdio_bus_t *bus = stress_create(make_config(argv[0], workers, 0), on_frame, on_event, NULL);
    STRESS_CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    /* A first reload takes what memory two generations side by side take. */
    by_reload(bus, argv[0], 1, workers);
    first = stress_look();
    from = stress_now_ms();
    by_reload(bus, argv[0], reloads, workers);
    times[1] = stress_now_ms() - from;
    now = stress_look();
    stress_same(&first, &now, "after the reloads");
    from = stress_now_ms();
    by_themselves(bus, rounds, workers);
    times[2] = stress_now_ms() - from;
    now = stress_look();
    stress_same(&first, &now, "after the exits");
    last_rss = now.rss_kib;
    stress_flat(&first, &now, 2048);
    from = stress_now_ms();
    stress_stop(bus);
    times[3] = stress_now_ms() - from;
    now = stress_look();
    stress_same(&before, &now, "after destroy");

    STRESS_CHECK(seen.twice == 0 && seen.answers == last_id && seen.failed == 0);
    STRESS_CHECK(seen.started == seen.stopped && seen.errors == rounds * workers);
    if (!small) STRESS_CHECK(seen.stopped >= 10000);
    printf("cycles: %d started, %d ended: %d by stop in %ld ms, %d by reload in %ld ms, %d by themselves in %ld ms "
           "(backoff included), the rest stopped in %ld ms; %d requests, 0 lost, 0 twice; 0 zombies, 0 children, "
           "fds %d -> %d, RSS %ld -> %ld KiB\n",
           seen.started, seen.stopped, buses * workers, times[0], (reloads + 1) * workers, times[1], rounds * workers,
           times[2], times[3], last_id, before.fds, now.fds, first.rss_kib, last_rss);
    return 0;
}
