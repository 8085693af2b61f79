#include "sink.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECES 16

/* What one flush may write before others get their turn. */
#define FLUSH_BUDGET (1u << 20)

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

void sb_sink_init(sb_sink *sink, sb_io *io, int fd, sb_sink_fn flushed)
{
    struct stat info;
    memset(sink, 0, sizeof *sink);
    sink->io = io;
    sink->socket = fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
    sink->flushed = flushed;
}

void sb_sink_touch(sb_ctx *ctx, sb_sink *sink)
{
    if (sink->dirty) return;
    sink->dirty = true;
    sink->next_dirty = ctx->dirty;
    ctx->dirty = sink;
}

/* Bytes of the length before a frame (big-endian). */
#define LENGTH_SIZE 4u

char *sb_sink_reserve(sb_ctx *ctx, sb_sink *sink, size_t len)
{
    size_t before = sink->length_framed ? LENGTH_SIZE : 0;
    char *room = sb_outbox_reserve(&sink->outbox, &ctx->chunks, before + len + 1);
    return room == NULL ? NULL : room + before;
}

void sb_sink_commit(sb_ctx *ctx, sb_sink *sink, size_t len)
{
    sb_chunk *tail = sink->outbox.tail;
    char *at = tail->data + tail->end;
    size_t total = len + 1;
    if (sink->length_framed) {
        for (unsigned i = 0; i < LENGTH_SIZE; i++) at[i] = (char)(unsigned char)(len >> (8 * (LENGTH_SIZE - 1 - i)));
        total = len + LENGTH_SIZE;
    } else {
        at[len] = '\n';
    }
    sb_outbox_commit(&sink->outbox, total);
    sink->queued += (uint32_t)total;
    ctx->outbox_bytes += total;
    /* With bytes left from before, the descriptor is full and its readiness is awaited. */
    if (!(sink->io->interest & SB_WRITE)) sb_sink_touch(ctx, sink);
}

/* Writes with SIGPIPE blocked in this thread, and takes back the one that the write itself caused. */
static ssize_t write_masked(int fd, const struct iovec *pieces, int count)
{
    sigset_t pipe_only, before, pending;
    ssize_t n;
    int error;
    bool was_pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    n = writev(fd, pieces, count);
    error = errno;
    if (n < 0 && error == EPIPE && !was_pending) {
#ifdef __APPLE__
        int sig;
        sigpending(&pending);
        if (sigismember(&pending, SIGPIPE) == 1) sigwait(&pipe_only, &sig);
#else
        static const struct timespec at_once = {0, 0};
        while (sigtimedwait(&pipe_only, NULL, &at_once) < 0 && errno == EINTR) {
        }
#endif
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return n;
}

/* A write that never raises SIGPIPE, whatever the host does with that signal. */
static ssize_t write_quietly(sb_ctx *ctx, const sb_sink *sink, const struct iovec *pieces, int count)
{
    if (sink->socket) {
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = (struct iovec *)(uintptr_t)pieces;
        message.msg_iovlen = (__typeof__(message.msg_iovlen))count; /* int or size_t, as the system likes */
        return sendmsg(sink->io->fd, &message, MSG_NOSIGNAL);
    }
#ifdef __linux__
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100
#endif
    if (!ctx->no_quiet_write) {
        ssize_t n = pwritev2(sink->io->fd, pieces, count, -1, RWF_NOSIGNAL);
        if (n >= 0 || (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)) return n;
        ctx->no_quiet_write = true;
    }
#else
    (void)ctx;
#endif
    return write_masked(sink->io->fd, pieces, count);
}

static void want_write(sb_ctx *ctx, sb_sink *sink, bool want)
{
    unsigned interest = sink->io->interest;
    sb_loop_interest(&ctx->loop, sink->io, want ? interest | SB_WRITE : interest & ~SB_WRITE);
}

void sb_sink_flush(sb_ctx *ctx, sb_sink *sink)
{
    struct iovec pieces[PIECES];
    size_t budget = FLUSH_BUDGET;
    int error = 0;
    if (sink->io->fd < 0 || ctx->loop.foreign) return;
    while (sink->outbox.bytes > 0 && budget > 0) {
        size_t offered = 0;
        int count = sb_outbox_pieces(&sink->outbox, pieces, PIECES);
        ssize_t n;
        for (int i = 0; i < count; i++) offered += pieces[i].iov_len;
        n = write_quietly(ctx, sink, pieces, count);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) error = errno;
            break;
        }
        ctx->outbox_bytes -= (size_t)n;
        sink->written += (uint32_t)n;
        sb_outbox_consume(&sink->outbox, &ctx->chunks, (size_t)n);
        budget = (size_t)n < budget ? budget - (size_t)n : 0;
        if ((size_t)n < offered) break;
    }
    want_write(ctx, sink, sink->outbox.bytes > 0 && error == 0);
    sink->flushed(ctx, sink, error);
}

/* Where the frame that begins at `pos` of a chunk ends. Each lies in one chunk, which begins with one. */
static size_t frame_end(const sb_sink *sink, const sb_chunk *chunk, size_t pos)
{
    const unsigned char *at = (const unsigned char *)chunk->data + pos;
    size_t len = 0;
    if (!sink->length_framed) {
        return (size_t)((const char *)memchr(at, '\n', chunk->end - pos) - chunk->data) + 1;
    }
    for (unsigned i = 0; i < LENGTH_SIZE; i++) len = len << 8 | at[i];
    return pos + LENGTH_SIZE + len;
}

/* Counts what is about to be forgotten. The frame that was being written is still whole in its chunk. */
static void count_unsent(sb_sink *sink)
{
    for (const sb_chunk *chunk = sink->outbox.head; chunk != NULL; chunk = chunk->next) {
        size_t end;
        for (size_t pos = 0; pos < chunk->end; pos = end) {
            end = frame_end(sink, chunk, pos);
            if (end <= chunk->start) continue;
            if (sink->unsent++ == 0) sink->unsent_at = sink->written - (uint32_t)(chunk->start - pos);
        }
    }
}

void sb_sink_close(sb_ctx *ctx, sb_sink *sink)
{
    sb_sink **at = &ctx->dirty;
    count_unsent(sink);
    ctx->outbox_bytes -= sink->outbox.bytes;
    sb_outbox_clear(&sink->outbox, &ctx->chunks);
    if (!sink->dirty) return;
    while (*at != sink) at = &(*at)->next_dirty;
    *at = sink->next_dirty;
    sink->dirty = false;
}

void sb_sink_flush_all(sb_ctx *ctx)
{
    while (ctx->dirty != NULL) {
        sb_sink *sink = ctx->dirty;
        ctx->dirty = sink->next_dirty;
        sink->dirty = false;
        sb_sink_flush(ctx, sink);
    }
}
