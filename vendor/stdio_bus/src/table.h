/*
 * table.h - the containers of the router: seeded hash, slab with stable
 * addresses, index from hash to slab entry, short byte strings. Pure.
 */
#ifndef SB_TABLE_H
#define SB_TABLE_H

#include "base.h"

#define SB_NONE UINT32_MAX

/* Not cryptographic; the seed keeps clients from choosing colliding keys in advance. */
uint32_t sb_hash(uint64_t seed, uint64_t salt, sb_span bytes);

/* Entries of one size, addressed by number, that never move. */
typedef struct {
    char **segments;
    size_t entry_size;
    uint32_t segment_count;
    uint32_t used;  /* entries handed out */
    uint32_t fresh; /* first entry never handed out */
    uint32_t free;  /* head of the free list, whose links are the entries' first 4 bytes */
} sb_slab;

#define SB_SLAB_SEGMENT 256u

void sb_slab_init(sb_slab *slab, size_t entry_size);
void sb_slab_free(sb_slab *slab);

/* A new entry (not cleared), or SB_NONE without memory. */
uint32_t sb_slab_take(sb_slab *slab);
void sb_slab_give(sb_slab *slab, uint32_t entry);

static inline void *sb_slab_at(const sb_slab *slab, uint32_t entry)
{
    return slab->segments[entry / SB_SLAB_SEGMENT] + (size_t)(entry % SB_SLAB_SEGMENT) * slab->entry_size;
}

/* Open addressing from a hash to entry numbers; equal hashes are told apart by the caller. */
typedef struct {
    uint32_t hash;
    uint32_t entry; /* SB_NONE: empty */
} sb_slot;

typedef struct {
    sb_slot *slots;
    uint32_t mask; /* slots - 1, or 0 without slots */
    uint32_t used;
} sb_index;

void sb_index_free(sb_index *index);

/* Makes sure that one insert cannot fail. False without memory. */
bool sb_index_reserve(sb_index *index);
void sb_index_insert(sb_index *index, uint32_t hash, uint32_t entry);
void sb_index_remove(sb_index *index, uint32_t hash, uint32_t entry);

/* Walks the entries with this hash: start with *at = hash; SB_NONE ends it. */
static inline uint32_t sb_index_next(const sb_index *index, uint32_t hash, uint32_t *at)
{
    if (index->slots == NULL) return SB_NONE;
    for (;;) {
        const sb_slot *slot = &index->slots[*at & index->mask];
        (*at)++;
        if (slot->entry == SB_NONE) return SB_NONE;
        if (slot->hash == hash) return slot->entry;
    }
}

/* A copied byte string; up to 16 bytes without an allocation. */
#define SB_TEXT_INLINE 16u
typedef struct {
    uint32_t len;
    char bytes[SB_TEXT_INLINE]; /* holds a pointer when len is larger */
} sb_text;

/* False without memory. Lengths above UINT32_MAX are refused. */
bool sb_text_set(sb_text *text, sb_span bytes);
void sb_text_free(sb_text *text);
sb_span sb_text_span(const sb_text *text);

#endif
