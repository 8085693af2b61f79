/*
 * frame.h - splits a byte stream into frames: lines (NDJSON), or a length of
 * four bytes, big-endian, before each frame. Pure: no I/O, no memory of its
 * own. Any split of the same stream gives the same frames.
 */
#ifndef SB_FRAME_H
#define SB_FRAME_H

#include "base.h"

typedef struct {
    size_t max;     /* longest frame that is delivered, without CR and newline */
    size_t scanned; /* bytes from the first unconsumed one that hold no newline */
    bool skipping;  /* inside the rest of a line that was reported as oversize */
    bool past_start; /* the stream's first bytes have been checked for a BOM */
    bool by_length;  /* a length before each frame; set it before the first call */
} sb_framer;

typedef enum {
    SB_FRAME_NONE,    /* no whole frame left: read more */
    SB_FRAME_READY,   /* `frame` is one line without BOM, CR and newline; never blank */
    SB_FRAME_OVERSIZE /* a line above max: `frame` is its first max bytes; the rest is skipped. By length:
                         `frame` is empty, and the stream can't be read any further */
} sb_frame_result;

void sb_framer_init(sb_framer *framer, size_t max);

/*
 * Takes the next frame from data[*pos .. len) and moves *pos past it. Between
 * calls the caller may append bytes, or drop those before *pos; it must not
 * lose any at or after *pos. After SB_FRAME_NONE at most max + 4 bytes stay
 * unconsumed. Blank lines (spaces, tabs, CR only) and frames of length 0 are
 * consumed silently.
 */
sb_frame_result sb_framer_next(sb_framer *framer, const char *data, size_t len, size_t *pos, sb_span *frame);

/* At end of stream: treats what is left as a line, newline or not. By length, an unfinished frame is dropped. */
sb_frame_result sb_framer_finish(sb_framer *framer, const char *data, size_t len, size_t *pos, sb_span *frame);

#endif
