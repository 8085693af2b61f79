/*
 * test.h - the test harness: each test runs in a process of its own, in a
 * process group of its own, with a timeout.
 */
#ifndef SB_TEST_H
#define SB_TEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../src/base.h"

typedef struct {
    const char *name; /* a sentence with underscores */
    void (*run)(void);
} sb_test;

/* Runs the tests (those whose name contains argv[1], if given); returns main's exit status. */
int sb_test_main(int argc, char **argv, const sb_test *tests, size_t count);

/* Ends the running test as failed. */
void sb_test_fail(const char *file, int line, const char *what);

#define CHECK(cond) \
    do { \
        if (!(cond)) sb_test_fail(__FILE__, __LINE__, #cond); \
    } while (0)

#define CHECK_STR(got, want) \
    do { \
        const char *got_ = (got), *want_ = (want); \
        if (got_ == NULL || strcmp(got_, want_) != 0) { \
            fprintf(stderr, "got:  %s\nwant: %s\n", got_ ? got_ : "(null)", want_); \
            sb_test_fail(__FILE__, __LINE__, #got " is " #want); \
        } \
    } while (0)

#define TEST(fn) {#fn, fn}

#define TEST_MAIN(tests) \
    int main(int argc, char **argv) { return sb_test_main(argc, argv, tests, SB_COUNT(tests)); }

/*
 * Allocation number `n` from now (1 is the next) fails, and all later ones if
 * `sticky`; 0 turns it off. Returns how many allocations were made since the
 * last call. Needs the archive built with SB_TEST_ALLOC.
 */
size_t sb_test_fail_alloc(size_t n, bool sticky);

/* A copy of `len` bytes that ends exactly at an unreadable page. Never freed. */
char *sb_test_guarded(const void *data, size_t len);

#endif
