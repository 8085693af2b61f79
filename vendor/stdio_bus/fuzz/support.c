/* support.c - what test.h declares, for programs without the harness: a failed check aborts. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../test/test.h"

void sb_test_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    abort();
}

static size_t allocations, failing;
static bool failing_is_sticky;

bool sb_test_alloc_fails(void);

bool sb_test_alloc_fails(void)
{
    size_t number = ++allocations;
    return failing != 0 && (number == failing || (failing_is_sticky && number > failing));
}

size_t sb_test_fail_alloc(size_t n, bool sticky)
{
    size_t made = allocations;
    failing = n;
    failing_is_sticky = sticky;
    allocations = 0;
    return made;
}

char *sb_test_guarded(const void *data, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (len + page - 1) / page * page;
    char *map = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED && mprotect(map + size, page, PROT_NONE) == 0);
    char *copy = map + size - len;
    if (len > 0) memcpy(copy, data, len);
    return copy;
}
