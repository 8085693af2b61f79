#include "../src/latency.h"
#include "test.h"

static sb_latency latency;

static void nothing_added_is_nothing_measured(void)
{
    CHECK(latency.count == 0 && latency.max == 0);
    for (unsigned percent = 0; percent <= 100; percent++) CHECK(sb_latency_quantile(&latency, percent) == 0);
}

static bool is_near(uint64_t got, uint64_t exact)
{
    return got >= exact && got <= exact + exact / SB_LATENCY_STEPS + 1;
}

static void quantiles_are_near_what_was_added_and_never_above_the_longest(void)
{
    for (uint64_t ms = 1; ms <= 1000; ms++) sb_latency_add(&latency, ms * 1000);
    CHECK(latency.count == 1000 && latency.max == 1000000);
    CHECK(is_near(sb_latency_quantile(&latency, 50), 500000));
    CHECK(is_near(sb_latency_quantile(&latency, 90), 900000));
    CHECK(is_near(sb_latency_quantile(&latency, 99), 990000));
    CHECK(sb_latency_quantile(&latency, 100) == 1000000 && is_near(sb_latency_quantile(&latency, 0), 1000));
}

static void a_single_time_is_every_quantile(void)
{
    for (unsigned bit = 0; bit < 36; bit++) {
        uint64_t times[] = {((uint64_t)1 << bit) - 1, (uint64_t)1 << bit, ((uint64_t)1 << bit) + 1, (uint64_t)3 << bit >> 1};
        for (size_t i = 0; i < SB_COUNT(times); i++) {
            memset(&latency, 0, sizeof latency);
            sb_latency_add(&latency, times[i]);
            CHECK(sb_latency_quantile(&latency, 0) == times[i] && sb_latency_quantile(&latency, 100) == times[i]);
        }
    }
}

/* With one longer time beside it, what is told of the shorter one is the end of its bucket. */
static void a_bucket_is_at_most_a_sixteenth_wide(void)
{
    uint64_t longest = ((uint64_t)1 << 36) - 1;
    for (uint64_t time = 1; time < longest / 2; time += 1 + time / 37) {
        memset(&latency, 0, sizeof latency);
        sb_latency_add(&latency, time);
        sb_latency_add(&latency, longest);
        CHECK(is_near(sb_latency_quantile(&latency, 50), time));
    }
}

static void what_is_longer_than_the_last_bucket_is_counted_there(void)
{
    sb_latency_add(&latency, UINT64_MAX);
    sb_latency_add(&latency, (uint64_t)1 << 36);
    CHECK(latency.count == 2 && latency.max == UINT64_MAX);
    CHECK(latency.buckets[SB_LATENCY_BUCKETS - 1] == 2);
    CHECK(sb_latency_quantile(&latency, 50) == ((uint64_t)1 << 36) - 1);
}

static void a_full_bucket_makes_what_came_lately_weigh_more(void)
{
    sb_latency_add(&latency, 10);
    latency.buckets[10] = UINT32_MAX;
    for (int i = 0; i < 1000; i++) sb_latency_add(&latency, 20);
    CHECK(sb_latency_quantile(&latency, 50) == 10);
    sb_latency_add(&latency, 10);
    CHECK(latency.buckets[10] == UINT32_MAX / 2 + 1 && latency.buckets[20] == 500);
    CHECK(latency.count == 1002 && latency.max == 20);
    CHECK(sb_latency_quantile(&latency, 50) == 10 && sb_latency_quantile(&latency, 100) == 20);
}

static void ticks_may_wrap_between_two_times(void)
{
    CHECK(sb_ticks_between(sb_ticks(1600), sb_ticks(3200)) == 1600);
    CHECK(sb_ticks_between(UINT32_MAX, 1) == 2 * SB_TICK_US);
    CHECK(sb_ticks_between(sb_ticks(((uint64_t)1 << 36) - 16), sb_ticks(((uint64_t)1 << 36) + 16)) == 32);
}

static void a_pool_needs_little_more_than_two_kilobytes(void)
{
    CHECK(sizeof latency <= 2200);
}

static const sb_test tests[] = {
    TEST(nothing_added_is_nothing_measured),
    TEST(quantiles_are_near_what_was_added_and_never_above_the_longest),
    TEST(a_single_time_is_every_quantile),
    TEST(a_bucket_is_at_most_a_sixteenth_wide),
    TEST(what_is_longer_than_the_last_bucket_is_counted_there),
    TEST(a_full_bucket_makes_what_came_lately_weigh_more),
    TEST(ticks_may_wrap_between_two_times),
    TEST(a_pool_needs_little_more_than_two_kilobytes),
};

TEST_MAIN(tests)
