#include "../src/diag.h"
#include "test.h"

static char lines[16][64];
static size_t lens[16];
static int count;

static void keep(void *owner, sb_span line)
{
    (void)owner;
    lens[count] = line.len;
    memcpy(lines[count], line.ptr, line.len < 63 ? line.len : 63);
    lines[count++][line.len < 63 ? line.len : 63] = '\0';
}

static void feed(sb_diag *diag, const char *text)
{
    sb_diag_feed(diag, sb_span_of(text), keep, NULL);
}

static void lines_are_whole_however_they_arrive(void)
{
    sb_diag diag = {0};
    feed(&diag, "one\ntw");
    feed(&diag, "o\r\n\nthr");
    feed(&diag, "ee");
    sb_diag_finish(&diag, keep, NULL);
    CHECK(count == 3);
    CHECK_STR(lines[0], "one");
    CHECK_STR(lines[1], "two");
    CHECK_STR(lines[2], "three");
    sb_diag_free(&diag);
}

static void a_line_above_the_cap_is_cut_and_the_next_is_whole(void)
{
    sb_diag diag = {0};
    static char part[1001];
    memset(part, 'x', 1000);
    for (int i = 0; i < 40; i++) feed(&diag, part);
    feed(&diag, "\nnext\n");
    CHECK(count == 2 && lens[0] == SB_DIAG_LINE_MAX);
    CHECK_STR(lines[1], "next");
    sb_diag_free(&diag);
}

static void the_tail_is_the_newest_whole_lines(void)
{
    sb_diag diag = {0};
    char out[32];
    for (int i = 0; i < 10; i++) feed(&diag, "a line\n");
    feed(&diag, "the last\n");
    count = 0;
    CHECK(sb_diag_tail(&diag, false, out, 20) == 16);
    CHECK_STR(out, "a line\nthe last\n");
    CHECK(sb_diag_tail(&diag, false, out, 1) == 0 && out[0] == '\0');
    sb_diag_free(&diag);
}

static void the_tail_keeps_its_cap_over_any_amount(void)
{
    sb_diag diag = {0};
    static char out[SB_DIAG_TAIL_MAX + 1];
    char line[64];
    size_t len;
    for (int i = 0; i < 20000; i++) {
        snprintf(line, sizeof line, "line number %d\n", i);
        count = 0;
        feed(&diag, line);
    }
    CHECK(diag.tail_cap == SB_DIAG_TAIL_MAX);
    len = sb_diag_tail(&diag, false, out, sizeof out);
    CHECK(len > SB_DIAG_TAIL_MAX - 32);
    CHECK(memcmp(out, "line number ", 12) == 0);
    CHECK_STR(out + len - 18, "line number 19999\n");
    sb_diag_free(&diag);
}

static void without_memory_bytes_are_lost_and_nothing_else(void)
{
    for (size_t n = 1; n < 6; n++) {
        sb_diag diag = {0};
        sb_test_fail_alloc(n, true);
        feed(&diag, "some text without an end");
        feed(&diag, " and the end\n");
        sb_test_fail_alloc(0, false);
        count = 0;
        feed(&diag, "fine\n");
        CHECK_STR(lines[count - 1], "fine");
        sb_diag_free(&diag);
    }
}

static const sb_test tests[] = {
    TEST(lines_are_whole_however_they_arrive),
    TEST(a_line_above_the_cap_is_cut_and_the_next_is_whole),
    TEST(the_tail_is_the_newest_whole_lines),
    TEST(the_tail_keeps_its_cap_over_any_amount),
    TEST(without_memory_bytes_are_lost_and_nothing_else),
};

TEST_MAIN(tests)
