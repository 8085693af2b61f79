#include "share.h"

void sb_shares_free(sb_shares *shares)
{
    sb_free(shares->ring);
    memset(shares, 0, sizeof *shares);
}

static sb_share *at(const sb_shares *shares, size_t n)
{
    return &shares->ring[(shares->head + n) & (shares->cap - 1)];
}

static bool grow(sb_shares *shares)
{
    size_t cap = shares->cap ? shares->cap * 2 : 8;
    sb_share *ring = sb_alloc(cap * sizeof *ring);
    if (ring == NULL) return false;
    for (size_t i = 0; i < shares->count; i++) ring[i] = *at(shares, i);
    sb_free(shares->ring);
    shares->ring = ring;
    shares->cap = cap;
    shares->head = 0;
    return true;
}

/* The bytes of a share leave the outbox. */
static void release(sb_router *router, const sb_share *share, size_t bytes)
{
    sb_link *link;
    /* 0: bytes that are nobody's. */
    if (share->client_key == 0) return;
    link = sb_router_link_at(router, share->link);
    if (link->client_key == share->client_key) link->queued -= bytes;
}

void sb_shares_add(sb_shares *shares, sb_router *router, uint32_t link, size_t len)
{
    uint32_t key = link != SB_NONE ? sb_router_link_at(router, link)->client_key : 0;
    sb_share *newest = shares->count > 0 ? at(shares, shares->count - 1) : NULL;
    if (newest != NULL && newest->client_key == key && (key == 0 || newest->link == link)) {
        newest->bytes += len;
    } else if (shares->count < shares->cap || grow(shares)) {
        newest = at(shares, shares->count++);
        newest->link = link;
        newest->client_key = key;
        newest->bytes = len;
    } else {
        return;
    }
    if (key != 0) sb_router_link_at(router, link)->queued += len;
}

void sb_shares_take(sb_shares *shares, sb_router *router, size_t len)
{
    while (len > 0 && shares->count > 0) {
        sb_share *oldest = at(shares, 0);
        size_t part = oldest->bytes < len ? oldest->bytes : len;
        release(router, oldest, part);
        oldest->bytes -= part;
        len -= part;
        if (oldest->bytes > 0) return;
        shares->head = (shares->head + 1) & (shares->cap - 1);
        shares->count--;
    }
}

void sb_shares_clear(sb_shares *shares, sb_router *router)
{
    while (shares->count > 0) sb_shares_take(shares, router, at(shares, 0)->bytes);
}
