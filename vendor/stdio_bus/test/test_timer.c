#include "../src/timer.h"
#include "test.h"

#define MANY 200

static int order[MANY], fired;
static sb_timer timer[MANY];
static sb_timers timers;

static void note(sb_timer *t)
{
    order[fired++] = (int)(t - timer);
}

static void again(sb_timer *t)
{
    fired++;
    sb_timer_set(&timers, t, 5);
}

static void register_all(sb_timer_fn fn)
{
    for (int i = 0; i < MANY; i++) CHECK(sb_timer_register(&timers, &timer[i], fn));
}

static void timers_fire_in_order_of_their_deadlines(void)
{
    register_all(note);
    for (int i = 0; i < MANY; i++) sb_timer_set(&timers, &timer[i], (uint64_t)((i * 37) % MANY));
    CHECK(sb_timers_due(&timers) == 0);
    CHECK(sb_timers_run(&timers, MANY / 2 - 1) == MANY / 2);
    CHECK(sb_timers_run(&timers, MANY) == MANY / 2);
    for (int i = 0; i < MANY; i++) CHECK(timer[order[i]].due == (uint64_t)i);
    CHECK(sb_timers_due(&timers) == UINT64_MAX);
    sb_timers_free(&timers);
}

static void a_cancelled_timer_does_not_fire(void)
{
    register_all(note);
    for (int i = 0; i < MANY; i++) sb_timer_set(&timers, &timer[i], (uint64_t)(i % 7));
    for (int i = 0; i < MANY; i += 2) sb_timer_cancel(&timers, &timer[i]);
    CHECK(sb_timers_run(&timers, 10) == MANY / 2);
    for (int i = 0; i < fired; i++) CHECK(order[i] % 2 == 1);
    sb_timers_free(&timers);
}

static void a_timer_that_is_set_again_has_one_deadline(void)
{
    register_all(note);
    sb_timer_set(&timers, &timer[3], 100);
    sb_timer_set(&timers, &timer[3], 5);
    sb_timer_set(&timers, &timer[3], 50);
    CHECK(sb_timers_run(&timers, 49) == 0);
    CHECK(sb_timers_run(&timers, 50) == 1);
    CHECK(sb_timers_run(&timers, 1000) == 0);
    sb_timers_free(&timers);
}

static void a_timer_that_sets_itself_for_now_fires_once_a_call(void)
{
    CHECK(sb_timer_register(&timers, &timer[0], again));
    sb_timer_set(&timers, &timer[0], 5);
    CHECK(sb_timers_run(&timers, 5) == 1);
    CHECK(sb_timer_is_set(&timer[0]));
    CHECK(fired == 1);
    sb_timers_free(&timers);
}

static void registering_fails_without_memory_and_setting_never_does(void)
{
    sb_test_fail_alloc(1, true);
    CHECK(!sb_timer_register(&timers, &timer[0], note));
    sb_test_fail_alloc(0, false);
    register_all(note);
    sb_test_fail_alloc(1, true);
    for (int i = 0; i < MANY; i++) sb_timer_set(&timers, &timer[i], (uint64_t)i);
    CHECK(sb_timers_run(&timers, MANY) == MANY);
    sb_timers_free(&timers);
}

static const sb_test tests[] = {
    TEST(timers_fire_in_order_of_their_deadlines),
    TEST(a_cancelled_timer_does_not_fire),
    TEST(a_timer_that_is_set_again_has_one_deadline),
    TEST(a_timer_that_sets_itself_for_now_fires_once_a_call),
    TEST(registering_fails_without_memory_and_setting_never_does),
};

TEST_MAIN(tests)
