#include "table.h"

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b) * 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

uint32_t sb_hash(uint64_t seed, uint64_t salt, sb_span bytes)
{
    uint64_t state = mix(seed, salt + 0x632be59bd9b4e019u * (bytes.len + 1));
    const char *p = bytes.ptr;
    size_t left = bytes.len;
    uint64_t word;
    for (; left >= 8; p += 8, left -= 8) {
        memcpy(&word, p, 8);
        state = mix(state, word);
    }
    if (left > 0) {
        word = 0;
        memcpy(&word, p, left);
        state = mix(state, word);
    }
    /* The upper half: below it, a bit depends on the lower bits of what was hashed only. */
    return (uint32_t)(state >> 32);
}

void sb_slab_init(sb_slab *slab, size_t entry_size)
{
    memset(slab, 0, sizeof *slab);
    slab->entry_size = (entry_size + 7u) & ~(size_t)7u;
    slab->free = SB_NONE;
}

void sb_slab_free(sb_slab *slab)
{
    for (uint32_t i = 0; i < slab->segment_count; i++) sb_free(slab->segments[i]);
    sb_free(slab->segments);
    sb_slab_init(slab, slab->entry_size);
}

static bool slab_grow(sb_slab *slab)
{
    uint32_t count = slab->segment_count;
    char *segment;
    /* The list of segments has room for the next power of two. */
    if ((count & (count - 1)) == 0) {
        size_t room = count ? (size_t)count * 2 : 1;
        char **segments = sb_realloc(slab->segments, room * sizeof *segments);
        if (segments == NULL) return false;
        slab->segments = segments;
    }
    segment = sb_calloc(SB_SLAB_SEGMENT, slab->entry_size);
    if (segment == NULL) return false;
    slab->segments[slab->segment_count++] = segment;
    return true;
}

uint32_t sb_slab_take(sb_slab *slab)
{
    uint32_t entry = slab->free;
    if (entry != SB_NONE) {
        memcpy(&slab->free, sb_slab_at(slab, entry), sizeof slab->free);
    } else {
        if (slab->fresh == slab->segment_count * SB_SLAB_SEGMENT && !slab_grow(slab)) return SB_NONE;
        entry = slab->fresh++;
    }
    slab->used++;
    return entry;
}

void sb_slab_give(sb_slab *slab, uint32_t entry)
{
    memcpy(sb_slab_at(slab, entry), &slab->free, sizeof slab->free);
    slab->free = entry;
    slab->used--;
}

void sb_index_free(sb_index *index)
{
    sb_free(index->slots);
    memset(index, 0, sizeof *index);
}

static void put(sb_index *index, uint32_t hash, uint32_t entry)
{
    uint32_t at = hash & index->mask;
    while (index->slots[at].entry != SB_NONE) at = (at + 1) & index->mask;
    index->slots[at].hash = hash;
    index->slots[at].entry = entry;
}

bool sb_index_reserve(sb_index *index)
{
    sb_index bigger = {NULL, 0, 0};
    uint32_t room = index->slots ? index->mask + 1 : 0;
    uint32_t want = room ? room * 2 : 16;
    if (room != 0 && (uint64_t)(index->used + 1) * 5 <= (uint64_t)room * 4) return true;
    bigger.slots = sb_alloc((size_t)want * sizeof *bigger.slots);
    if (bigger.slots == NULL) return false;
    memset(bigger.slots, 0xff, (size_t)want * sizeof *bigger.slots);
    bigger.mask = want - 1;
    bigger.used = index->used;
    for (uint32_t i = 0; i < room; i++) {
        if (index->slots[i].entry != SB_NONE) put(&bigger, index->slots[i].hash, index->slots[i].entry);
    }
    sb_free(index->slots);
    *index = bigger;
    return true;
}

void sb_index_insert(sb_index *index, uint32_t hash, uint32_t entry)
{
    put(index, hash, entry);
    index->used++;
}

void sb_index_remove(sb_index *index, uint32_t hash, uint32_t entry)
{
    uint32_t hole = hash & index->mask, at;
    while (index->slots[hole].entry != entry || index->slots[hole].hash != hash) hole = (hole + 1) & index->mask;
    index->used--;
    /* Close the gap: move back what would not be found across it. */
    for (at = (hole + 1) & index->mask; index->slots[at].entry != SB_NONE; at = (at + 1) & index->mask) {
        uint32_t home = index->slots[at].hash & index->mask;
        if (((at - home) & index->mask) >= ((at - hole) & index->mask)) {
            index->slots[hole] = index->slots[at];
            hole = at;
        }
    }
    index->slots[hole].entry = SB_NONE;
}

bool sb_text_set(sb_text *text, sb_span bytes)
{
    text->len = 0;
    if (bytes.len > UINT32_MAX) return false;
    if (bytes.len <= SB_TEXT_INLINE) {
        if (bytes.len > 0) memcpy(text->bytes, bytes.ptr, bytes.len);
    } else {
        char *copy = sb_alloc(bytes.len);
        if (copy == NULL) return false;
        memcpy(copy, bytes.ptr, bytes.len);
        memcpy(text->bytes, &copy, sizeof copy);
    }
    text->len = (uint32_t)bytes.len;
    return true;
}

sb_span sb_text_span(const sb_text *text)
{
    sb_span span = {text->bytes, text->len};
    if (text->len > SB_TEXT_INLINE) memcpy(&span.ptr, text->bytes, sizeof span.ptr);
    return span;
}

void sb_text_free(sb_text *text)
{
    if (text->len > SB_TEXT_INLINE) {
        char *copy;
        memcpy(&copy, text->bytes, sizeof copy);
        sb_free(copy);
    }
    text->len = 0;
}
