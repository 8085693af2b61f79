#include "source.h"

#include <errno.h>
#include <unistd.h>

/* What is read at a time from a peer whose frames are tiny. */
#define READ_MIN 4096u

/* Room for reading behind the beginning of a split frame. */
#define READ_ROOM (64u * 1024u)

void sb_source_init(sb_source *source, size_t max_frame)
{
    memset(source, 0, sizeof *source);
    sb_framer_init(&source->framer, max_frame);
    source->read_size = SB_SCRATCH_SIZE;
}

void sb_source_free(sb_source *source)
{
    sb_buf_free(&source->rest);
}

typedef sb_frame_result (*next_fn)(sb_framer *framer, const char *data, size_t len, size_t *pos, sb_span *frame);

/* Hands out the frames in data[*pos .. len). False: the owner said stop. */
static bool hand_out(sb_ctx *ctx, sb_source *source, const char *data, size_t len, size_t *pos, next_fn next,
                     const sb_source_fns *fns, void *owner)
{
    for (;;) {
        sb_span frame;
        sb_frame_result result = next(&source->framer, data, len, pos, &frame);
        if (result == SB_FRAME_NONE) return true;
        source->handed_out++;
        if (!(result == SB_FRAME_READY ? fns->frame : fns->oversize)(ctx, owner, frame)) return false;
    }
}

/* Reads into the shared scratch space; only what is left of a split frame is copied. */
static sb_source_result read_scratch(sb_ctx *ctx, sb_source *source, int fd, const sb_source_fns *fns, void *owner)
{
    size_t pos = 0, len;
    ssize_t n = read(fd, ctx->scratch, source->read_size);
    if (n <= 0) return n == 0 ? SB_SOURCE_END : SB_SOURCE_ERROR;
    len = (size_t)n;
    if (!hand_out(ctx, source, ctx->scratch, len, &pos, sb_framer_next, fns, owner)) return SB_SOURCE_GONE;
    if (pos < len) {
        if (!sb_buf_reserve(&source->rest, len - pos + READ_ROOM)) {
            errno = ENOMEM;
            return SB_SOURCE_ERROR;
        }
        memcpy(source->rest.data, ctx->scratch + pos, len - pos);
        source->rest.len = len - pos;
    }
    return SB_SOURCE_MORE;
}

static sb_source_result read_rest(sb_ctx *ctx, sb_source *source, int fd, const sb_source_fns *fns, void *owner)
{
    sb_buf *rest = &source->rest;
    size_t room, pos;
    ssize_t n;
    if (!sb_buf_reserve(rest, READ_ROOM + 1)) {
        errno = ENOMEM;
        return SB_SOURCE_ERROR;
    }
    room = rest->cap - rest->len - 1;
    if (room > source->read_size) room = source->read_size;
    n = read(fd, rest->data + rest->len, room);
    pos = rest->pos;
    if (n < 0) return SB_SOURCE_ERROR;
    if (n == 0) {
        if (!hand_out(ctx, source, rest->data, rest->len, &pos, sb_framer_finish, fns, owner)) return SB_SOURCE_GONE;
        sb_buf_free(rest);
        return SB_SOURCE_END;
    }
    rest->len += (size_t)n;
    if (!hand_out(ctx, source, rest->data, rest->len, &pos, sb_framer_next, fns, owner)) return SB_SOURCE_GONE;
    rest->pos = pos;
    if (rest->pos == rest->len) sb_buf_free(rest);
    return SB_SOURCE_MORE;
}

/* Reads less after a read that brought too many frames, and more again after one that brought few. */
static void adapt(sb_source *source)
{
    size_t size = source->read_size;
    if (source->handed_out > SB_SOURCE_FRAMES) {
        size = size / (source->handed_out / SB_SOURCE_FRAMES + 1);
        source->read_size = size > READ_MIN ? size : READ_MIN;
    } else if (source->handed_out < SB_SOURCE_FRAMES / 4 && size < SB_SCRATCH_SIZE) {
        source->read_size = size * 2 < SB_SCRATCH_SIZE ? size * 2 : SB_SCRATCH_SIZE;
    }
}

sb_source_result sb_source_read(sb_ctx *ctx, sb_source *source, int fd, const sb_source_fns *fns, void *owner)
{
    sb_source_result result;
    source->handed_out = 0;
    do {
        result = source->rest.len > 0 ? read_rest(ctx, source, fd, fns, owner) : read_scratch(ctx, source, fd, fns, owner);
    } while (result == SB_SOURCE_ERROR && errno == EINTR);
    if (result == SB_SOURCE_MORE) adapt(source);
    if (result == SB_SOURCE_ERROR && (errno == EAGAIN || errno == EWOULDBLOCK)) return SB_SOURCE_EMPTY;
    return result;
}
