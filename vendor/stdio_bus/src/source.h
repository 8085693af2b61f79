/*
 * source.h - the reading side of a worker or client: bytes become frames.
 */
#ifndef SB_SOURCE_H
#define SB_SOURCE_H

#include "ctx.h"
#include "frame.h"

typedef struct {
    sb_framer framer;
    sb_buf rest; /* the beginning of a frame whose end has not come yet */
    size_t read_size; /* how much is read at a time: less from who sends many small frames */
    unsigned handed_out; /* frames of the present read */
} sb_source;

/* What a source's owner does with a frame; false: stop, the source may be gone. */
typedef struct {
    bool (*frame)(sb_ctx *ctx, void *owner, sb_span frame);
    bool (*oversize)(sb_ctx *ctx, void *owner, sb_span beginning);
} sb_source_fns;

typedef enum {
    SB_SOURCE_MORE,  /* read something, there may be more */
    SB_SOURCE_EMPTY, /* nothing there just now */
    SB_SOURCE_END,   /* end of file; a last unterminated frame has been handed out */
    SB_SOURCE_ERROR, /* errno says why; also out of memory */
    SB_SOURCE_GONE   /* the owner said stop */
} sb_source_result;

void sb_source_init(sb_source *source, size_t max_frame);
void sb_source_free(sb_source *source);

/*
 * Reads once and hands out the frames that are whole. How much is read adapts,
 * so that one turn brings about SB_SOURCE_FRAMES at most: others have their turn
 * soon, however small the frames of a flooding peer are. A frame's bytes may be
 * changed by the owner, and the byte behind.
 */
#define SB_SOURCE_FRAMES 1024u

sb_source_result sb_source_read(sb_ctx *ctx, sb_source *source, int fd, const sb_source_fns *fns, void *owner);

#endif
