/*
 * bytes.h - for tests of the pure files: seeded random numbers, and text that
 * ends at an unreadable page.
 */
#ifndef SB_TEST_BYTES_H
#define SB_TEST_BYTES_H

#include "test.h"

#define SB_PLACE_MAX ((size_t)1 << 16)

/* A copy of `len` bytes that ends at an unreadable page; valid until the next call. */
static inline char *place(const char *data, size_t len)
{
    static char *end;
    if (end == NULL) {
        static const char zeros[SB_PLACE_MAX];
        end = sb_test_guarded(zeros, sizeof zeros) + sizeof zeros;
    }
    CHECK(len <= SB_PLACE_MAX);
    if (len > 0) memmove(end - len, data, len);
    return end - len;
}

static inline sb_span place_span(sb_span text)
{
    sb_span placed = {place(text.ptr, text.len), text.len};
    return placed;
}

static inline sb_span place_text(const char *text)
{
    return place_span(sb_span_of(text));
}

/* xorshift; `seed` must not be 0. */
static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static inline size_t random_below(uint64_t *seed, size_t limit)
{
    return (size_t)(next_random(seed) >> 11) % limit;
}

#endif
