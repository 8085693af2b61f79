/*
 * buf.h - memory for bytes on their way: an input buffer that grows by need
 * and an outbox of chunks. An idle connection holds none of either.
 */
#ifndef SB_BUF_H
#define SB_BUF_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base.h"

/* Bytes [pos, len) of data are waiting. */
typedef struct {
    char *data;
    size_t pos;
    size_t len;
    size_t cap;
} sb_buf;

/* Makes room for `extra` more bytes after len; moves what waits to the front first. False without memory. */
bool sb_buf_reserve(sb_buf *buf, size_t extra);

/* Appends bytes, with a NUL behind them that does not count. False without memory. */
bool sb_buf_append(sb_buf *buf, const char *bytes, size_t len);

void sb_buf_free(sb_buf *buf);

typedef struct sb_chunk sb_chunk;
struct sb_chunk {
    sb_chunk *next;
    size_t start;
    size_t end;
    size_t cap;
    char data[];
};

/* Chunks kept for the next outbox, a bounded number of each size. */
typedef struct {
    sb_chunk *free[2];
    unsigned count[2];
} sb_chunks;

void sb_chunks_free(sb_chunks *chunks);

/* Bytes queued for one sink, in order. */
typedef struct {
    sb_chunk *head;
    sb_chunk *tail;
    size_t bytes;
} sb_outbox;

/* Room for exactly `len` bytes at the end, or NULL without memory. The bytes count once committed. */
char *sb_outbox_reserve(sb_outbox *outbox, sb_chunks *chunks, size_t len);
void sb_outbox_commit(sb_outbox *outbox, size_t len);

/* The first bytes as at most `max` pieces; returns how many. */
int sb_outbox_pieces(const sb_outbox *outbox, struct iovec *pieces, int max);

/* Forgets the first `len` bytes. */
void sb_outbox_consume(sb_outbox *outbox, sb_chunks *chunks, size_t len);

void sb_outbox_clear(sb_outbox *outbox, sb_chunks *chunks);

#endif
