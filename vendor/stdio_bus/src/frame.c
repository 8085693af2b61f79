#include "frame.h"

#define BOM "\xEF\xBB\xBF"
#define BOM_LEN ((size_t)3)

void sb_framer_init(sb_framer *framer, size_t max)
{
    memset(framer, 0, sizeof *framer);
    framer->max = max;
}

static size_t without_cr(const char *line, size_t len)
{
    return len > 0 && line[len - 1] == '\r' ? len - 1 : len;
}

static bool is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    }
    return true;
}

/*
 * Judges one line that has been consumed. Length is judged before blankness:
 * of a long line only the beginning may be known when it has to be reported.
 */
static sb_frame_result deliver(const sb_framer *framer, const char *line, size_t len, sb_span *frame)
{
    len = without_cr(line, len);
    if (len > framer->max) {
        frame->ptr = line;
        frame->len = framer->max;
        return SB_FRAME_OVERSIZE;
    }
    if (is_blank(line, len)) return SB_FRAME_NONE;
    frame->ptr = line;
    frame->len = len;
    return SB_FRAME_READY;
}

/* Consumes the rest of an oversize line; false if its end is still to come. */
static bool skip_rest(sb_framer *framer, const char *data, size_t len, size_t *pos)
{
    const char *newline = memchr(data + *pos, '\n', len - *pos);
    if (newline == NULL) {
        *pos = len;
        return false;
    }
    *pos = (size_t)(newline - data) + 1;
    framer->skipping = false;
    return true;
}

/* Consumes a BOM at the start of the stream; false if more bytes are needed to tell. */
static bool skip_bom(sb_framer *framer, const char *data, size_t len, size_t *pos)
{
    size_t have = len - *pos < BOM_LEN ? len - *pos : BOM_LEN;
    if (memcmp(data + *pos, BOM, have) == 0) {
        if (have < BOM_LEN) return false;
        *pos += BOM_LEN;
    }
    framer->past_start = true;
    return true;
}

/* `line` has no newline yet: oversize already, unless its last byte may be the CR of a line of max bytes. */
static sb_frame_result wait_or_skip(sb_framer *framer, const char *line, size_t len, size_t *pos, sb_span *frame)
{
    if (without_cr(line, len) <= framer->max) {
        framer->scanned = len;
        return SB_FRAME_NONE;
    }
    frame->ptr = line;
    frame->len = framer->max;
    framer->skipping = true;
    framer->scanned = 0;
    *pos += len;
    return SB_FRAME_OVERSIZE;
}

/* Bytes of the length before a frame. */
#define LENGTH_SIZE ((size_t)4)

static sb_frame_result next_by_length(const sb_framer *framer, const char *data, size_t len, size_t *pos,
                                      sb_span *frame)
{
    while (len - *pos >= LENGTH_SIZE) {
        const unsigned char *p = (const unsigned char *)data + *pos;
        size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (size > framer->max) {
            frame->ptr = data + *pos;
            *pos = len;
            return SB_FRAME_OVERSIZE;
        }
        if (len - *pos - LENGTH_SIZE < size) return SB_FRAME_NONE;
        *pos += LENGTH_SIZE + size;
        if (size == 0) continue;
        frame->ptr = data + *pos - size;
        frame->len = size;
        return SB_FRAME_READY;
    }
    return SB_FRAME_NONE;
}

sb_frame_result sb_framer_next(sb_framer *framer, const char *data, size_t len, size_t *pos, sb_span *frame)
{
    frame->ptr = NULL;
    frame->len = 0;
    if (framer->by_length) return next_by_length(framer, data, len, pos, frame);
    if (*pos < len && framer->skipping && !skip_rest(framer, data, len, pos)) return SB_FRAME_NONE;
    if (*pos < len && !framer->past_start && !skip_bom(framer, data, len, pos)) return SB_FRAME_NONE;
    while (*pos < len) {
        const char *line = data + *pos;
        size_t left = len - *pos;
        const char *newline = NULL;
        if (framer->scanned < left) newline = memchr(line + framer->scanned, '\n', left - framer->scanned);
        if (newline == NULL) return wait_or_skip(framer, line, left, pos, frame);

        size_t line_len = (size_t)(newline - line);
        *pos += line_len + 1;
        framer->scanned = 0;
        sb_frame_result result = deliver(framer, line, line_len, frame);
        if (result != SB_FRAME_NONE) return result;
    }
    return SB_FRAME_NONE;
}

sb_frame_result sb_framer_finish(sb_framer *framer, const char *data, size_t len, size_t *pos, sb_span *frame)
{
    sb_frame_result result = sb_framer_next(framer, data, len, pos, frame);
    if (result != SB_FRAME_NONE || *pos == len) return result;
    if (framer->by_length) {
        *pos = len;
        return SB_FRAME_NONE;
    }

    const char *line = data + *pos;
    size_t left = len - *pos;
    *pos = len;
    framer->scanned = 0;
    framer->past_start = true;
    return deliver(framer, line, left, frame);
}
