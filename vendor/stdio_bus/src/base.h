/*
 * base.h - what every file of the library may use: spans, allocation and a
 * few macros. The one internal header the pure files share.
 */
#ifndef SB_BASE_H
#define SB_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "stdio_bus.h"

#if defined(__GNUC__)
#define SB_LIKELY(x) __builtin_expect(!!(x), 1)
#define SB_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define SB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SB_LIKELY(x) (x)
#define SB_UNLIKELY(x) (x)
#define SB_PRINTF(fmt, args)
#endif

#define SB_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SB_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Bytes that belong to somebody else. ptr NULL means absent; an empty value has a ptr. */
typedef struct {
    const char *ptr;
    size_t len;
} sb_span;

static inline sb_span sb_span_of(const char *text)
{
    sb_span span = {text, text ? strlen(text) : 0};
    return span;
}

static inline bool sb_span_eq(sb_span a, sb_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool sb_span_is(sb_span a, const char *text)
{
    return sb_span_eq(a, sb_span_of(text));
}

/*
 * Allocation. All of the library goes through these four, so that a test can
 * make call number n fail. A NULL result is handled by every caller.
 */
void *sb_alloc(size_t size);
void *sb_calloc(size_t count, size_t size);
void *sb_realloc(void *ptr, size_t size);
void sb_free(void *ptr);
char *sb_strndup(const char *text, size_t len);

#endif
