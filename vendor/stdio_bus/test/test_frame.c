#include "../src/frame.h"

#include "bytes.h"

#define BOM "\xEF\xBB\xBF"
#define LOG_MAX 4096

/* What came out of a stream: "[frame]" for a frame, "!frame!" for the beginning of an oversize one. */
typedef struct {
    char text[LOG_MAX];
    size_t len;
} frame_log;

static void log_bytes(frame_log *log, const char *bytes, size_t len)
{
    CHECK(log->len + len < LOG_MAX);
    memcpy(log->text + log->len, bytes, len);
    log->len += len;
}

static void log_frame(frame_log *log, sb_frame_result result, sb_span frame)
{
    log_bytes(log, result == SB_FRAME_READY ? "[" : "!", 1);
    log_bytes(log, frame.ptr, frame.len);
    log_bytes(log, result == SB_FRAME_READY ? "]" : "!", 1);
}

/* A reader as the library has one: it appends what arrives and drops what is consumed. */
typedef struct {
    sb_framer framer;
    char bytes[LOG_MAX];
    size_t len;
    frame_log log;
} reader;

static void reader_init(reader *r, size_t max)
{
    sb_framer_init(&r->framer, max);
    r->len = 0;
    r->log.len = 0;
}

typedef sb_frame_result take_fn(sb_framer *, const char *, size_t, size_t *, sb_span *);

static void reader_take(reader *r, take_fn *take)
{
    const char *data = place(r->bytes, r->len);
    size_t pos = 0;
    sb_span frame;
    sb_frame_result result;
    while ((result = take(&r->framer, data, r->len, &pos, &frame)) != SB_FRAME_NONE) {
        log_frame(&r->log, result, frame);
    }
    CHECK(frame.ptr == NULL);
    CHECK(r->len - pos <= r->framer.max + 4);
    memmove(r->bytes, r->bytes + pos, r->len - pos);
    r->len -= pos;
}

static void reader_feed(reader *r, const char *bytes, size_t len)
{
    CHECK(r->len + len <= LOG_MAX);
    if (len > 0) memcpy(r->bytes + r->len, bytes, len);
    r->len += len;
    reader_take(r, sb_framer_next);
}

static void reader_end(reader *r)
{
    reader_take(r, sb_framer_finish);
    CHECK(r->len == 0);
}

static void check_log(const reader *r, sb_span want)
{
    sb_span got = {r->log.text, r->log.len};
    if (sb_span_eq(got, want)) return;
    fprintf(stderr, "got:  %.*s\nwant: %.*s\n", (int)got.len, got.ptr, (int)want.len, want.ptr);
    sb_test_fail(__FILE__, __LINE__, "the frames are the expected ones");
}

/* Max for all streams with an expected result. */
#define MAX 8

typedef struct {
    sb_span stream;
    sb_span want;
} sample;

#define SAMPLE(stream, want) {{stream, sizeof(stream) - 1}, {want, sizeof(want) - 1}}

static const sample plain[] = {
    SAMPLE("", ""),
    SAMPLE("{}\n", "[{}]"),
    SAMPLE("{}\n[]\n", "[{}][[]]"),
    SAMPLE("{\"a\":1}\n{}\nx\n", "[{\"a\":1}][{}][x]"),
    SAMPLE(" {} \n", "[ {} ]"),
    SAMPLE("a\0b\n\0\n", "[a\0b][\0]"),
    SAMPLE("\xFF\xFE\n", "[\xFF\xFE]"),
};

static const sample unterminated[] = {
    SAMPLE("{}", "[{}]"),         SAMPLE("{}\nx", "[{}][x]"),      SAMPLE("{}\r", "[{}]"),     SAMPLE("\r", ""),
    SAMPLE("{}\n \t", "[{}]"),    SAMPLE("12345678", "[12345678]"), SAMPLE("12345678\r", "[12345678]"),
    SAMPLE("123456789", "!12345678!"), SAMPLE("12345678\r\r", "!12345678!"),
};

static const sample carriage_returns[] = {
    SAMPLE("{}\r\n", "[{}]"),
    SAMPLE("{}\r\n[]\r\n", "[{}][[]]"),
    SAMPLE("{}\r\r\n", "[{}\r]"),
    SAMPLE("\r{}\r\n", "[\r{}]"),
    SAMPLE("a\rb\n", "[a\rb]"),
};

static const sample blank[] = {
    SAMPLE("\n", ""),
    SAMPLE("\n\n\n", ""),
    SAMPLE("\r\n\r\n", ""),
    SAMPLE("\r\r\r\n", ""),
    SAMPLE(" \t \r\n{}\n", "[{}]"),
    SAMPLE("{}\n\n  \n[]\n\n", "[{}][[]]"),
    SAMPLE("        \n{}\n", "[{}]"),
    SAMPLE("\v\n", "[\v]"),
};

static const sample boms[] = {
    SAMPLE(BOM "{}\n", "[{}]"),
    SAMPLE(BOM "\n{}\n", "[{}]"),
    SAMPLE(BOM "\r\n" BOM "{}\n", "[" BOM "{}]"),
    SAMPLE(BOM BOM "{}\n", "[" BOM "{}]"),
    SAMPLE("{}\n" BOM "{}\n", "[{}][" BOM "{}]"),
    SAMPLE("\n" BOM "{}\n", "[" BOM "{}]"),
    SAMPLE(" " BOM "\n", "[ " BOM "]"),
    SAMPLE(BOM, ""),
    SAMPLE("\xEF\xBB", "[\xEF\xBB]"),
    SAMPLE("\xEF", "[\xEF]"),
    SAMPLE("\xEF\xBB{}\n", "[\xEF\xBB{}]"),
    SAMPLE("\xEF\n\xBB\xBF\n", "[\xEF][\xBB\xBF]"),
    SAMPLE(BOM "12345678\n", "[12345678]"),
    SAMPLE(BOM "12345678\r\n", "[12345678]"),
    SAMPLE(BOM "123456789\n", "!12345678!"),
};

static const sample oversize[] = {
    SAMPLE("12345678\n", "[12345678]"),
    SAMPLE("12345678\r\n", "[12345678]"),
    SAMPLE("123456789\n", "!12345678!"),
    SAMPLE("123456789\r\n", "!12345678!"),
    SAMPLE("12345678\r\r\n", "!12345678!"),
    SAMPLE("12345678\r9\n{}\n", "!12345678![{}]"),
    SAMPLE("123456789abcdefghijklmnopqrstuvwxyz\n{}\n", "!12345678![{}]"),
    SAMPLE("{}\n123456789\n\n[]\n123456789ab\nx", "[{}]!12345678![[]]!12345678![x]"),
    SAMPLE("123456789\n" BOM "\n", "!12345678![" BOM "]"),
    SAMPLE("123456789\nabcdefghijkl\n{}", "!12345678!!abcdefgh![{}]"),
    SAMPLE("         \n{}\n", "!        ![{}]"),
    SAMPLE("\r\r\r\r\r\r\r\r\r\r\n{}\n", "!\r\r\r\r\r\r\r\r![{}]"),
};

static void run_split(const sample *s, const size_t *cuts, size_t count)
{
    static reader r;
    reader_init(&r, MAX);
    size_t from = 0;
    for (size_t i = 0; i < count; i++) {
        reader_feed(&r, s->stream.ptr + from, cuts[i] - from);
        from = cuts[i];
    }
    reader_feed(&r, s->stream.ptr + from, s->stream.len - from);
    reader_end(&r);
    check_log(&r, s->want);
}

static void run_whole(const sample *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) run_split(&samples[i], NULL, 0);
}

static void each_line_is_a_frame(void)
{
    run_whole(plain, SB_COUNT(plain));
}

static void a_last_line_without_newline_is_a_frame_at_the_end(void)
{
    run_whole(unterminated, SB_COUNT(unterminated));
}

static void one_trailing_carriage_return_is_dropped(void)
{
    run_whole(carriage_returns, SB_COUNT(carriage_returns));
}

static void blank_lines_are_ignored(void)
{
    run_whole(blank, SB_COUNT(blank));
}

static void a_bom_is_dropped_at_the_start_of_the_stream_only(void)
{
    run_whole(boms, SB_COUNT(boms));
}

static void a_line_above_the_limit_is_reported_once_and_the_next_one_is_read(void)
{
    run_whole(oversize, SB_COUNT(oversize));
}

static void a_limit_without_end_takes_any_line(void)
{
    static reader r;
    reader_init(&r, SIZE_MAX - 4);
    reader_feed(&r, "123456789\n", 10);
    reader_feed(&r, "123\r", 4);
    reader_end(&r);
    check_log(&r, sb_span_of("[123456789][123]"));
}

static void a_limit_of_zero_lets_only_blank_lines_pass(void)
{
    static reader r;
    reader_init(&r, 0);
    reader_feed(&r, "\r\n\n", 3);
    reader_feed(&r, "x\n\ny", 4);
    reader_end(&r);
    check_log(&r, sb_span_of("!!!!"));
}

static void an_oversize_line_is_reported_before_its_end_is_known(void)
{
    static reader r;
    reader_init(&r, MAX);
    reader_feed(&r, "123456789", 9);
    check_log(&r, sb_span_of("!12345678!"));
    CHECK(r.len == 0);
}

static void an_oversize_line_that_never_ends_is_not_kept(void)
{
    static reader r;
    reader_init(&r, MAX);
    for (int i = 0; i < 10000; i++) {
        reader_feed(&r, "0123456789", 10);
        CHECK(r.len == 0);
    }
    reader_end(&r);
    check_log(&r, sb_span_of("!01234567!"));
}

static void bytes_are_not_searched_twice_for_a_newline(void)
{
    sb_framer framer;
    sb_framer_init(&framer, 100);
    size_t pos = 0;
    sb_span frame;
    char data[] = "abcdef";
    CHECK(sb_framer_next(&framer, data, 6, &pos, &frame) == SB_FRAME_NONE);
    CHECK(framer.scanned == 6);
    /* Not seen if the search goes on where it ended: no reader may change bytes it has shown. */
    data[2] = '\n';
    CHECK(sb_framer_next(&framer, data, 6, &pos, &frame) == SB_FRAME_NONE);
    CHECK(pos == 0);
}

static void consumed_bytes_may_stay_in_the_buffer(void)
{
    static const char stream[] = BOM "{}\n123456789\n\n[]\r\nx";
    frame_log log = {{0}, 0};
    sb_framer framer;
    sb_framer_init(&framer, MAX);
    size_t pos = 0;
    sb_span frame;
    sb_frame_result result;
    for (size_t len = 0; len < sizeof stream; len++) {
        while ((result = sb_framer_next(&framer, stream, len, &pos, &frame)) != SB_FRAME_NONE) {
            log_frame(&log, result, frame);
        }
    }
    while ((result = sb_framer_finish(&framer, stream, sizeof stream - 1, &pos, &frame)) != SB_FRAME_NONE) {
        log_frame(&log, result, frame);
    }
    log_bytes(&log, "", 1);
    CHECK_STR(log.text, "[{}]!12345678![[]][x]");
}

static void finishing_twice_gives_nothing_more(void)
{
    sb_framer framer;
    sb_framer_init(&framer, MAX);
    size_t pos = 0;
    sb_span frame;
    CHECK(sb_framer_finish(&framer, "{}\nx", 4, &pos, &frame) == SB_FRAME_READY);
    CHECK(sb_span_is(frame, "{}"));
    CHECK(sb_framer_finish(&framer, "{}\nx", 4, &pos, &frame) == SB_FRAME_READY);
    CHECK(sb_span_is(frame, "x"));
    CHECK(sb_framer_finish(&framer, "{}\nx", 4, &pos, &frame) == SB_FRAME_NONE);
    CHECK(pos == 4);
}

static void an_empty_buffer_may_have_no_address(void)
{
    sb_framer framer;
    sb_framer_init(&framer, MAX);
    size_t pos = 0;
    sb_span frame;
    CHECK(sb_framer_next(&framer, NULL, 0, &pos, &frame) == SB_FRAME_NONE);
    CHECK(sb_framer_finish(&framer, NULL, 0, &pos, &frame) == SB_FRAME_NONE);
}

/* One cut at every point, two at every pair of points, and one after every byte. */
static void run_every_split(const sample *s)
{
    size_t cuts[LOG_MAX];
    for (cuts[0] = 0; cuts[0] <= s->stream.len; cuts[0]++) {
        for (cuts[1] = cuts[0]; cuts[1] <= s->stream.len; cuts[1]++) run_split(s, cuts, 2);
    }
    for (size_t i = 0; i < s->stream.len; i++) cuts[i] = i;
    run_split(s, cuts, s->stream.len);
}

static void any_split_of_a_tricky_stream_gives_the_same_frames(void)
{
    static const struct {
        const sample *samples;
        size_t count;
    } corpus[] = {
        {plain, SB_COUNT(plain)}, {unterminated, SB_COUNT(unterminated)}, {carriage_returns, SB_COUNT(carriage_returns)},
        {blank, SB_COUNT(blank)}, {boms, SB_COUNT(boms)},                 {oversize, SB_COUNT(oversize)},
    };
    for (size_t i = 0; i < SB_COUNT(corpus); i++) {
        for (size_t j = 0; j < corpus[i].count; j++) run_every_split(&corpus[i].samples[j]);
    }
}

static size_t random_stream(uint64_t *seed, char *out, size_t max)
{
    static const char *const pieces[] = {"\n", "\n", "\r\n", "\r", " ", "\t", BOM, "\xEF", "{}", "x", "12345678", "abc"};
    size_t len = 0, count = random_below(seed, 30);
    if (random_below(seed, 3) == 0) {
        memcpy(out, BOM, 3);
        len = 3;
    }
    for (size_t i = 0; i < count; i++) {
        sb_span piece = sb_span_of(pieces[random_below(seed, SB_COUNT(pieces))]);
        if (len + piece.len > max) break;
        memcpy(out + len, piece.ptr, piece.len);
        len += piece.len;
    }
    return len;
}

static void random_splits_of_random_streams_give_the_same_frames(void)
{
    static reader whole, split;
    uint64_t seed = 20260101;
    for (int round = 0; round < 20000; round++) {
        char stream[256];
        size_t len = random_stream(&seed, stream, sizeof stream), max = random_below(&seed, 12);
        reader_init(&whole, max);
        reader_feed(&whole, stream, len);
        reader_end(&whole);

        reader_init(&split, max);
        for (size_t from = 0; from < len;) {
            size_t piece = random_below(&seed, 9);
            if (piece > len - from) piece = len - from;
            reader_feed(&split, stream + from, piece);
            from += piece;
        }
        reader_end(&split);
        sb_span want = {whole.log.text, whole.log.len};
        check_log(&split, want);
    }
}

static const sb_test tests[] = {
    TEST(each_line_is_a_frame),
    TEST(a_last_line_without_newline_is_a_frame_at_the_end),
    TEST(one_trailing_carriage_return_is_dropped),
    TEST(blank_lines_are_ignored),
    TEST(a_bom_is_dropped_at_the_start_of_the_stream_only),
    TEST(a_line_above_the_limit_is_reported_once_and_the_next_one_is_read),
    TEST(a_limit_without_end_takes_any_line),
    TEST(a_limit_of_zero_lets_only_blank_lines_pass),
    TEST(an_oversize_line_is_reported_before_its_end_is_known),
    TEST(an_oversize_line_that_never_ends_is_not_kept),
    TEST(bytes_are_not_searched_twice_for_a_newline),
    TEST(consumed_bytes_may_stay_in_the_buffer),
    TEST(finishing_twice_gives_nothing_more),
    TEST(an_empty_buffer_may_have_no_address),
    TEST(any_split_of_a_tricky_stream_gives_the_same_frames),
    TEST(random_splits_of_random_streams_give_the_same_frames),
};

TEST_MAIN(tests)
