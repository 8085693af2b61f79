#include <stdlib.h>

#include "base.h"

#ifdef SB_TEST_ALLOC
/* Provided by the test harness: whether this allocation is to fail. */
bool sb_test_alloc_fails(void);
#define FAILS() sb_test_alloc_fails()
#else
#define FAILS() false
#endif

void *sb_alloc(size_t size)
{
    return FAILS() ? NULL : malloc(size);
}

void *sb_calloc(size_t count, size_t size)
{
    return FAILS() ? NULL : calloc(count, size);
}

void *sb_realloc(void *ptr, size_t size)
{
    return FAILS() ? NULL : realloc(ptr, size);
}

void sb_free(void *ptr)
{
    free(ptr);
}

char *sb_strndup(const char *text, size_t len)
{
    char *copy = sb_alloc(len + 1);
    if (copy != NULL) {
        if (len > 0) memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}
