/*
 * fuzz_frame.c - any split of a stream gives the same frames, and they are
 * those that a description of the format without any state gives.
 *
 * Input: a byte of flags (1: by length), a byte for the longest frame, the stream.
 */
#include "../src/frame.h"
#include "fuzz.h"

#define LOG_MAX (8 * FUZZ_INPUT_MAX)

typedef struct {
    char text[LOG_MAX];
    size_t len;
} frame_log;

static void log_bytes(frame_log *log, const char *bytes, size_t len)
{
    CHECK(log->len + len <= LOG_MAX);
    if (len > 0) memcpy(log->text + log->len, bytes, len);
    log->len += len;
}

static void log_frame(frame_log *log, bool oversize, const char *bytes, size_t len)
{
    const uint32_t head[2] = {oversize, (uint32_t)len};
    log_bytes(log, (const char *)head, sizeof head);
    log_bytes(log, bytes, len);
}

/* ---- as the library reads: what arrives is appended, what is consumed dropped ---- */

typedef sb_frame_result take_fn(sb_framer *, const char *, size_t, size_t *, sb_span *);

/* Takes what there is of data[0 .. *len), and keeps the rest there. False once the stream can't be read further. */
static bool take_all(sb_framer *framer, char *data, size_t *len, take_fn *take, frame_log *log)
{
    const char *bytes = place(data, *len);
    size_t pos = 0;
    sb_span frame;
    sb_frame_result result;
    while ((result = take(framer, bytes, *len, &pos, &frame)) != SB_FRAME_NONE) {
        CHECK(frame.ptr >= bytes && frame.ptr + frame.len <= bytes + *len && frame.len <= framer->max);
        log_frame(log, result == SB_FRAME_OVERSIZE, frame.ptr, frame.len);
        if (result == SB_FRAME_OVERSIZE && framer->by_length) return false;
    }
    CHECK(frame.ptr == NULL && pos <= *len && *len - pos <= framer->max + 4);
    memmove(data, data + pos, *len - pos);
    *len -= pos;
    return true;
}

/* In pieces of `piece` bytes; of random ones for 0. */
static void read_split(frame_log *log, const char *stream, size_t len, bool by_length, size_t max, size_t piece,
                       uint64_t seed)
{
    static char data[FUZZ_INPUT_MAX];
    size_t have = 0;
    sb_framer framer;
    sb_framer_init(&framer, max);
    framer.by_length = by_length;
    log->len = 0;
    for (size_t at = 0; at < len;) {
        size_t step = piece > 0 ? piece : 1 + random_below(&seed, random_below(&seed, 2) == 0 ? 4 : 64);
        if (step > len - at) step = len - at;
        memcpy(data + have, stream + at, step);
        have += step;
        at += step;
        if (!take_all(&framer, data, &have, sb_framer_next, log)) return;
    }
    if (take_all(&framer, data, &have, sb_framer_finish, log)) CHECK(have == 0);
}

/* ---- as the format is described ----------------------------------------------------- */

static void describe_line(frame_log *log, const char *line, size_t len, size_t max)
{
    bool blank = true;
    if (len > 0 && line[len - 1] == '\r') len--;
    for (size_t i = 0; i < len; i++) blank = blank && strchr(" \t\r", line[i]) != NULL && line[i] != '\0';
    if (len > max) {
        log_frame(log, true, line, max);
    } else if (!blank) {
        log_frame(log, false, line, len);
    }
}

static void describe_lines(frame_log *log, const char *p, size_t len, size_t max)
{
    const char *end = p + len;
    if (len >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) p += 3;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *stop = newline != NULL ? newline : end;
        describe_line(log, p, (size_t)(stop - p), max);
        p = newline != NULL ? newline + 1 : end;
    }
}

static void describe_lengths(frame_log *log, const char *p, size_t len, size_t max)
{
    while (len >= 4) {
        size_t size = 0;
        for (size_t i = 0; i < 4; i++) size = size << 8 | (unsigned char)p[i];
        if (size > max) {
            log_frame(log, true, p, 0);
            return;
        }
        if (len - 4 < size) return;
        if (size > 0) log_frame(log, false, p + 4, size);
        p += 4 + size;
        len -= 4 + size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static frame_log want, got;
    if (size < 2 || size > FUZZ_INPUT_MAX) return 0;
    bool by_length = data[0] & 1;
    size_t max = (size_t)data[1] + 1;
    uint64_t seed = fuzz_seed(data, size);
    const char *stream = (const char *)data + 2;
    size_t len = size - 2;

    want.len = 0;
    if (by_length) {
        describe_lengths(&want, stream, len, max);
    } else {
        describe_lines(&want, stream, len, max);
    }
    const size_t pieces[] = {FUZZ_INPUT_MAX, 1, 0, 0};
    for (size_t i = 0; i < SB_COUNT(pieces); i++) {
        read_split(&got, stream, len, by_length, max, pieces[i], seed + 2 * i);
        CHECK(got.len == want.len && memcmp(got.text, want.text, want.len) == 0);
    }
    return 0;
}
