/*
 * tsan_wake.c - wake-ups from several threads beside a thread that steps, for
 * `make tsan`. Each producer publishes a number, wakes the bus, and must find
 * its number seen within a bound that is below the steps' timeout: a wake-up
 * that is lost, or that does not publish what came before it, shows as a
 * number that nobody looks at.
 *
 *   tsan_wake [SECONDS]    for each poller
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "stdio_bus_ext.h"

enum { PRODUCERS = 3, STEP_MS = 6000, BOUND_MS = 3000 };

typedef struct {
    stdio_bus_t *bus;
    atomic_ulong published;
    atomic_ulong seen;
    unsigned long count; /* the producer's own */
    unsigned seed;
} producer;

static producer producers[PRODUCERS];
static atomic_bool over;
static atomic_bool lost;

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void await(producer *p, unsigned long number)
{
    long deadline = now_ms() + BOUND_MS;
    while (atomic_load(&p->seen) < number && !atomic_load(&over)) {
        if (now_ms() >= deadline) {
            atomic_store(&lost, true);
            return;
        }
        sched_yield();
    }
}

static void *produce(void *arg)
{
    producer *p = arg;
    unsigned long number = 0;
    while (!atomic_load(&over) && !atomic_load(&lost)) {
        /* Short bursts, so that some wake-ups meet one that is under way, and some come while nobody waits. */
        unsigned burst = 1 + (unsigned)rand_r(&p->seed) % 4;
        while (burst-- > 0) {
            p->count = ++number;
            /* Relaxed: what orders it is the wake-up. */
            atomic_store_explicit(&p->published, number, memory_order_relaxed);
            stdio_bus_wakeup(p->bus);
        }
        await(p, number);
    }
    return NULL;
}

static void look(void)
{
    for (size_t i = 0; i < PRODUCERS; i++) {
        unsigned long number = atomic_load_explicit(&producers[i].published, memory_order_relaxed);
        atomic_store(&producers[i].seen, number);
    }
}

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    (void)msg;
    (void)len;
    (void)user_data;
}

static stdio_bus_t *start(unsigned flags)
{
    stdio_bus_options_t options = {0};
    stdio_bus_ext_options_t ext = {0};
    stdio_bus_t *bus;
    options.config_json = "{\"pools\":[{\"id\":\"p\",\"command\":\"true\",\"restart\":\"never\"}]}";
    options.on_message = on_message;
    options.log_level = 3;
    ext.size = sizeof ext;
    ext.flags = flags;
    bus = stdio_bus_create_ext(&options, &ext);
    if (bus == NULL || stdio_bus_start(bus) != STDIO_BUS_OK) exit(2);
    while (stdio_bus_worker_count(bus) > 0) stdio_bus_step(bus, 100);
    return bus;
}

static unsigned long run(unsigned flags, int seconds)
{
    pthread_t threads[PRODUCERS];
    stdio_bus_t *bus = start(flags);
    long end = now_ms() + (long)seconds * 1000;
    unsigned long total = 0;
    atomic_store(&over, false);
    for (size_t i = 0; i < PRODUCERS; i++) {
        atomic_store(&producers[i].published, 0);
        atomic_store(&producers[i].seen, 0);
        producers[i].bus = bus;
        producers[i].seed = (unsigned)i + 1;
        if (pthread_create(&threads[i], NULL, produce, &producers[i]) != 0) exit(2);
    }
    while (now_ms() < end && !atomic_load(&lost)) {
        stdio_bus_step(bus, STEP_MS);
        look();
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < PRODUCERS; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < PRODUCERS; i++) total += producers[i].count;
    stdio_bus_stop_within(bus, 0);
    while (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) stdio_bus_step(bus, 100);
    stdio_bus_destroy(bus);
    return total;
}

int main(int argc, char **argv)
{
    static const unsigned flags[] = {0, STDIO_BUS_CREATE_POLL};
    int seconds = argc > 1 ? atoi(argv[1]) : 5;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        unsigned long total = run(flags[i], seconds);
        if (atomic_load(&lost)) {
            printf("FAIL %s: a wake-up was lost after %lu\n", i == 0 ? "epoll" : "poll", total);
            return 1;
        }
        printf("ok %s: %lu wake-ups\n", i == 0 ? "epoll" : "poll", total);
    }
    return 0;
}
