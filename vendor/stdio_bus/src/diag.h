/*
 * diag.h - a worker's stderr: cut into lines, and its newest bytes kept for
 * error messages. Pure.
 */
#ifndef SB_DIAG_H
#define SB_DIAG_H

#include "base.h"

#define SB_DIAG_LINE_MAX (16u * 1024u)
#define SB_DIAG_TAIL_MAX (64u * 1024u)

typedef void (*sb_diag_fn)(void *owner, sb_span line);

typedef struct {
    char *line; /* the beginning of a line whose end has not come yet */
    size_t line_len;
    bool cut; /* the line exceeded its cap: what follows up to the newline is dropped */
    char *tail; /* ring of the newest bytes */
    size_t tail_cap;
    size_t tail_len;
    size_t tail_at; /* where the next byte goes */
    size_t fresh;   /* how many of them came since sb_diag_mark */
} sb_diag;

void sb_diag_free(sb_diag *diag);

/* Takes bytes; calls `emit` for each finished line, cut at SB_DIAG_LINE_MAX. Without memory, bytes are lost. */
void sb_diag_feed(sb_diag *diag, sb_span bytes, sb_diag_fn emit, void *owner);

/* A new generation begins: what came before is old. */
void sb_diag_mark(sb_diag *diag);

/* Emits an unfinished last line. */
void sb_diag_finish(sb_diag *diag, sb_diag_fn emit, void *owner);

/*
 * Copies the newest whole lines that fit, and a NUL; returns the length
 * without the NUL. With `fresh`, only those since the mark.
 */
size_t sb_diag_tail(const sb_diag *diag, bool fresh, char *out, size_t cap);

#endif
