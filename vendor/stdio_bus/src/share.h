/*
 * share.h - whose bytes a worker's outbox holds, oldest first, so that one
 * client can't fill it for the others. Pure.
 */
#ifndef SB_SHARE_H
#define SB_SHARE_H

#include "router.h"

typedef struct {
    uint32_t link;
    uint32_t client_key; /* of the link's client: a link that is gone has another, or none */
    size_t bytes;
} sb_share;

typedef struct {
    sb_share *ring;
    size_t cap; /* a power of two, or 0 */
    size_t head;
    size_t count;
} sb_shares;

void sb_shares_free(sb_shares *shares);

/*
 * `len` bytes were queued, for the client of the link or (SB_NONE) for nobody.
 * Without memory they go uncounted: shares are then freed a little early.
 */
void sb_shares_add(sb_shares *shares, sb_router *router, uint32_t link, size_t len);

/* The first `len` bytes have been written. */
void sb_shares_take(sb_shares *shares, sb_router *router, size_t len);

/* The outbox was emptied. */
void sb_shares_clear(sb_shares *shares, sb_router *router);

#endif
