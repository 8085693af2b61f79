/*
 * sink.h - the writing side of a worker or client: bytes queue in an outbox
 * and are written once per turn, as much as the descriptor takes.
 */
#ifndef SB_SINK_H
#define SB_SINK_H

#include "ctx.h"

/* Called after each flush: error 0, or why nothing can be written any more. */
typedef void (*sb_sink_fn)(sb_ctx *ctx, sb_sink *sink, int error);

struct sb_sink {
    sb_outbox outbox;
    sb_io *io; /* watched descriptor that is written to */
    sb_sink *next_dirty;
    sb_sink_fn flushed;
    uint32_t queued;  /* bytes ever queued and ever written, modulo 2^32 */
    uint32_t written;
    uint32_t unsent;    /* frames that were still queued when it was closed, one that was written in part included */
    uint32_t unsent_at; /* where the first of them begins, as `queued` counts */
    bool dirty;
    bool socket;
    bool length_framed; /* a length goes before each frame, instead of a newline behind it */
};

/* For the descriptor that `io` watches, or is about to. */
void sb_sink_init(sb_sink *sink, sb_io *io, int fd, sb_sink_fn flushed);

/*
 * Room for a frame of `len` bytes; NULL without memory. Filled by the caller
 * and then committed, which adds the newline or the length.
 */
char *sb_sink_reserve(sb_ctx *ctx, sb_sink *sink, size_t len);
void sb_sink_commit(sb_ctx *ctx, sb_sink *sink, size_t len);

/* Marks for the next flush. */
void sb_sink_touch(sb_ctx *ctx, sb_sink *sink);

/* Writes what the descriptor takes, then calls `flushed`. */
void sb_sink_flush(sb_ctx *ctx, sb_sink *sink);

/* Forgets what is queued, but not how much that was, and takes the sink off the list of dirty ones. */
void sb_sink_close(sb_ctx *ctx, sb_sink *sink);

/* Flushes every dirty sink once. */
void sb_sink_flush_all(sb_ctx *ctx);

#endif
