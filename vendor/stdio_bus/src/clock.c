#include <time.h>

#include "clock.h"

static uint64_t system_now(void *arg)
{
    struct timespec ts;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

sb_clock sb_clock_system(void)
{
    sb_clock clock = {system_now, NULL};
    return clock;
}
