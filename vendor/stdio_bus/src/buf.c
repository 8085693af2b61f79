#include "buf.h"

bool sb_buf_reserve(sb_buf *buf, size_t extra)
{
    size_t waiting = buf->len - buf->pos;
    size_t cap;
    char *data;
    if (buf->pos > 0) {
        memmove(buf->data, buf->data + buf->pos, waiting);
        buf->pos = 0;
        buf->len = waiting;
    }
    if (buf->cap - buf->len >= extra) return true;
    cap = buf->cap + buf->cap / 2;
    if (cap < buf->len + extra) cap = buf->len + extra;
    data = sb_realloc(buf->data, cap);
    if (data == NULL) return false;
    buf->data = data;
    buf->cap = cap;
    return true;
}

bool sb_buf_append(sb_buf *buf, const char *bytes, size_t len)
{
    if (!sb_buf_reserve(buf, len + 1)) return false;
    memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return true;
}

void sb_buf_free(sb_buf *buf)
{
    sb_free(buf->data);
    memset(buf, 0, sizeof *buf);
}

/* Small chunks keep a thousand clients with one answer each cheap; large ones keep the number of pieces low. */
enum { SMALL, LARGE };
static const size_t chunk_cap[2] = {4096 - sizeof(sb_chunk), 65536 - sizeof(sb_chunk)};
static const unsigned chunk_keep[2] = {256, 32};

static sb_chunk *chunk_new(sb_chunks *chunks, size_t len, bool first)
{
    int kind = len <= chunk_cap[SMALL] && first ? SMALL : LARGE;
    size_t cap = chunk_cap[kind];
    sb_chunk *chunk = chunks->free[kind];
    if (len > cap) {
        cap = len;
        chunk = NULL;
    }
    if (chunk != NULL) {
        chunks->free[kind] = chunk->next;
        chunks->count[kind]--;
    } else {
        chunk = sb_alloc(sizeof *chunk + cap);
        if (chunk == NULL) return NULL;
        chunk->cap = cap;
    }
    chunk->next = NULL;
    chunk->start = 0;
    chunk->end = 0;
    return chunk;
}

static void chunk_release(sb_chunks *chunks, sb_chunk *chunk)
{
    for (int kind = SMALL; kind <= LARGE; kind++) {
        if (chunk->cap == chunk_cap[kind] && chunks->count[kind] < chunk_keep[kind]) {
            chunk->next = chunks->free[kind];
            chunks->free[kind] = chunk;
            chunks->count[kind]++;
            return;
        }
    }
    sb_free(chunk);
}

void sb_chunks_free(sb_chunks *chunks)
{
    for (int kind = SMALL; kind <= LARGE; kind++) {
        while (chunks->free[kind] != NULL) {
            sb_chunk *chunk = chunks->free[kind];
            chunks->free[kind] = chunk->next;
            sb_free(chunk);
        }
        chunks->count[kind] = 0;
    }
}

char *sb_outbox_reserve(sb_outbox *outbox, sb_chunks *chunks, size_t len)
{
    sb_chunk *tail = outbox->tail;
    if (tail == NULL || tail->cap - tail->end < len) {
        sb_chunk *chunk = chunk_new(chunks, len, tail == NULL);
        if (chunk == NULL) return NULL;
        if (tail != NULL) {
            tail->next = chunk;
        } else {
            outbox->head = chunk;
        }
        outbox->tail = tail = chunk;
    }
    return tail->data + tail->end;
}

void sb_outbox_commit(sb_outbox *outbox, size_t len)
{
    outbox->tail->end += len;
    outbox->bytes += len;
}

int sb_outbox_pieces(const sb_outbox *outbox, struct iovec *pieces, int max)
{
    int count = 0;
    for (sb_chunk *chunk = outbox->head; chunk != NULL && count < max; chunk = chunk->next) {
        if (chunk->start == chunk->end) continue;
        pieces[count].iov_base = chunk->data + chunk->start;
        pieces[count].iov_len = chunk->end - chunk->start;
        count++;
    }
    return count;
}

void sb_outbox_consume(sb_outbox *outbox, sb_chunks *chunks, size_t len)
{
    outbox->bytes -= len;
    while (outbox->head != NULL) {
        sb_chunk *chunk = outbox->head;
        size_t here = chunk->end - chunk->start;
        if (here > len) {
            chunk->start += len;
            return;
        }
        len -= here;
        outbox->head = chunk->next;
        chunk_release(chunks, chunk);
    }
    outbox->tail = NULL;
}

void sb_outbox_clear(sb_outbox *outbox, sb_chunks *chunks)
{
    sb_outbox_consume(outbox, chunks, outbox->bytes);
}
