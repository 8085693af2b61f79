#include "../src/buf.h"
#include "test.h"

static sb_chunks chunks;
static sb_outbox outbox;

static void put(const char *bytes, size_t len)
{
    char *room = sb_outbox_reserve(&outbox, &chunks, len);
    CHECK(room != NULL);
    memcpy(room, bytes, len);
    sb_outbox_commit(&outbox, len);
}

/* Takes up to `max` bytes as a write would. */
static size_t take(char *out, size_t max)
{
    struct iovec pieces[4];
    int count = sb_outbox_pieces(&outbox, pieces, 4);
    size_t taken = 0;
    for (int i = 0; i < count && taken < max; i++) {
        size_t part = pieces[i].iov_len < max - taken ? pieces[i].iov_len : max - taken;
        memcpy(out + taken, pieces[i].iov_base, part);
        taken += part;
    }
    sb_outbox_consume(&outbox, &chunks, taken);
    return taken;
}

static void bytes_leave_an_outbox_in_order_whatever_the_sizes(void)
{
    static char in[300000], out[300000];
    size_t written = 0, taken = 0, sizes[] = {1, 4000, 5, 70000, 200, 65000, 9, 100000};
    for (size_t i = 0; i < sizeof in; i++) in[i] = (char)(i * 31 % 251);
    for (size_t i = 0; i < SB_COUNT(sizes); i++) {
        put(in + written, sizes[i]);
        written += sizes[i];
        if (i % 2) taken += take(out + taken, sizes[i] / 3);
    }
    CHECK(outbox.bytes == written - taken);
    while (taken < written) taken += take(out + taken, 7777);
    CHECK(memcmp(in, out, written) == 0);
    CHECK(outbox.bytes == 0 && outbox.head == NULL && outbox.tail == NULL);
    sb_chunks_free(&chunks);
}

static void a_large_frame_gives_its_memory_back(void)
{
    static char big[1 << 20];
    put(big, sizeof big);
    sb_outbox_clear(&outbox, &chunks);
    for (int kind = 0; kind < 2; kind++) CHECK(chunks.free[kind] == NULL);
}

static void a_full_system_refuses_room_and_keeps_what_is_there(void)
{
    char out[8];
    put("abc", 3);
    sb_test_fail_alloc(1, true);
    CHECK(sb_outbox_reserve(&outbox, &chunks, 100000) == NULL);
    sb_test_fail_alloc(0, false);
    CHECK(take(out, 8) == 3 && memcmp(out, "abc", 3) == 0);
    sb_chunks_free(&chunks);
}

static void a_buffer_moves_what_waits_to_the_front_before_it_grows(void)
{
    sb_buf buf = {0};
    char *before;
    CHECK(sb_buf_reserve(&buf, 100));
    memcpy(buf.data, "0123456789", 10);
    buf.len = 10;
    buf.pos = 4;
    before = buf.data;
    CHECK(sb_buf_reserve(&buf, 94));
    CHECK(buf.data == before && buf.pos == 0 && buf.len == 6 && memcmp(buf.data, "456789", 6) == 0);
    sb_buf_free(&buf);
}

static const sb_test tests[] = {
    TEST(bytes_leave_an_outbox_in_order_whatever_the_sizes),
    TEST(a_large_frame_gives_its_memory_back),
    TEST(a_full_system_refuses_room_and_keeps_what_is_there),
    TEST(a_buffer_moves_what_waits_to_the_front_before_it_grows),
};

TEST_MAIN(tests)
