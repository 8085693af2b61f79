/*
 * block.h - bit masks of the bytes that matter in JSON text, for scan.c. Two
 * sizes: a step, for strings, which are mostly short, and a block of 64 bytes
 * for nested containers. Bit n stands for byte n.
 */
#ifndef SB_BLOCK_H
#define SB_BLOCK_H

#include "base.h"

#if !defined(SB_NO_SIMD) && defined(__SSE2__)
#define SB_SSE2 1
#include <emmintrin.h>
#elif !defined(SB_NO_SIMD) && defined(__aarch64__) && defined(__ARM_NEON)
#define SB_NEON 1
#include <arm_neon.h>
#endif

#define SB_BLOCK ((size_t)64)

/* Index of the lowest bit that is set; there must be one. */
static inline size_t sb_lowest_bit(uint64_t bits)
{
#if defined(__GNUC__)
    return (size_t)__builtin_ctzll(bits);
#else
    size_t index = 0;
    while ((bits >> index & 1) == 0) index++;
    return index;
#endif
}

typedef struct {
    uint64_t quotes;
    uint64_t slashes; /* backslashes */
    uint64_t brackets;
} sb_block_masks;

/* sb_step_find: index of the first quote or backslash among SB_STEP bytes, SB_STEP if there is none. */

#if defined(SB_SSE2)

#define SB_STEP ((size_t)16)

static inline uint64_t sb_sse2_bits(__m128i matches)
{
    return (uint64_t)(uint32_t)_mm_movemask_epi8(matches);
}

static inline size_t sb_step_find(const char *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
    __m128i slashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    return sb_lowest_bit(sb_sse2_bits(_mm_or_si128(quotes, slashes)) | (uint64_t)1 << SB_STEP);
}

/* Bytes `at` to `at` + 15 of the block at p. */
static inline void sb_part_load(sb_block_masks *masks, const char *p, unsigned at)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(p + at));
    /* Square and curly brackets differ in this bit only. */
    __m128i folded = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
    __m128i open = _mm_cmpeq_epi8(folded, _mm_set1_epi8('{'));
    __m128i close = _mm_cmpeq_epi8(folded, _mm_set1_epi8('}'));
    masks->quotes |= sb_sse2_bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'))) << at;
    masks->slashes |= sb_sse2_bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'))) << at;
    masks->brackets |= sb_sse2_bits(_mm_or_si128(open, close)) << at;
}

/* Written out, here and below, because compilers don't unroll loops at -O2. */
static inline sb_block_masks sb_block_load(const char *p)
{
    sb_block_masks masks = {0, 0, 0};
    sb_part_load(&masks, p, 0);
    sb_part_load(&masks, p, 16);
    sb_part_load(&masks, p, 32);
    sb_part_load(&masks, p, 48);
    return masks;
}

#elif defined(SB_NEON)

#define SB_STEP ((size_t)16)

static inline size_t sb_step_find(const char *p)
{
    uint8x16_t bytes = vld1q_u8((const uint8_t *)p);
    uint8x16_t hits = vorrq_u8(vceqq_u8(bytes, vdupq_n_u8('"')), vceqq_u8(bytes, vdupq_n_u8('\\')));
    /* Narrowing by four bits leaves four equal bits for each byte. */
    uint8x8_t narrow = vshrn_n_u16(vreinterpretq_u16_u8(hits), 4);
    uint64_t bits = vget_lane_u64(vreinterpret_u64_u8(narrow), 0);
    return bits != 0 ? sb_lowest_bit(bits) / 4 : SB_STEP;
}

/* One bit for each of 64 bytes that are either 0 or 0xFF. */
static inline uint64_t sb_neon_bits(const uint8x16_t matches[4])
{
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t weight = vld1q_u8(weights);
    uint8x16_t low = vpaddq_u8(vandq_u8(matches[0], weight), vandq_u8(matches[1], weight));
    uint8x16_t high = vpaddq_u8(vandq_u8(matches[2], weight), vandq_u8(matches[3], weight));
    uint8x16_t sum = vpaddq_u8(low, high);
    sum = vpaddq_u8(sum, sum);
    return vgetq_lane_u64(vreinterpretq_u64_u8(sum), 0);
}

static inline sb_block_masks sb_block_load(const char *p)
{
    uint8x16_t quotes[4], slashes[4], brackets[4];
    for (unsigned i = 0; i < 4; i++) {
        uint8x16_t bytes = vld1q_u8((const uint8_t *)p + 16 * (size_t)i);
        /* Square and curly brackets differ in this bit only. */
        uint8x16_t folded = vorrq_u8(bytes, vdupq_n_u8(0x20));
        quotes[i] = vceqq_u8(bytes, vdupq_n_u8('"'));
        slashes[i] = vceqq_u8(bytes, vdupq_n_u8('\\'));
        brackets[i] = vorrq_u8(vceqq_u8(folded, vdupq_n_u8('{')), vceqq_u8(folded, vdupq_n_u8('}')));
    }
    sb_block_masks masks = {sb_neon_bits(quotes), sb_neon_bits(slashes), sb_neon_bits(brackets)};
    return masks;
}

#else

#define SB_STEP ((size_t)8)
#define SB_EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (uint64_t)(byte))

/* Byte 0 in the lowest bits, whatever the machine's byte order. */
static inline uint64_t sb_word_load(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint64_t)b[0] | (uint64_t)b[1] << 8 | (uint64_t)b[2] << 16 | (uint64_t)b[3] << 24 | (uint64_t)b[4] << 32 |
           (uint64_t)b[5] << 40 | (uint64_t)b[6] << 48 | (uint64_t)b[7] << 56;
}

/* The top bit of every byte of `word` that equals `byte`; the sum never carries into the next byte. */
static inline uint64_t sb_word_matches(uint64_t word, unsigned char byte)
{
    uint64_t diff = word ^ SB_EACH_BYTE(byte);
    return ~(((diff & SB_EACH_BYTE(0x7F)) + SB_EACH_BYTE(0x7F)) | diff) & SB_EACH_BYTE(0x80);
}

/* Gathers the top bits of the eight bytes: the multiplication moves bit 8n to bit 56 + n. */
static inline uint64_t sb_word_bits(uint64_t matches)
{
    return ((matches >> 7) * UINT64_C(0x0102040810204080)) >> 56;
}

static inline size_t sb_step_find(const char *p)
{
    uint64_t word = sb_word_load(p);
    uint64_t hits = sb_word_matches(word, '"') | sb_word_matches(word, '\\');
    return hits != 0 ? sb_lowest_bit(hits) / 8 : SB_STEP;
}

/* Bytes `at` to `at` + 7 of the block at p. */
static inline void sb_part_load(sb_block_masks *masks, const char *p, unsigned at)
{
    uint64_t word = sb_word_load(p + at);
    /* Square and curly brackets differ in this bit only. */
    uint64_t folded = word | SB_EACH_BYTE(0x20);
    masks->quotes |= sb_word_bits(sb_word_matches(word, '"')) << at;
    masks->slashes |= sb_word_bits(sb_word_matches(word, '\\')) << at;
    masks->brackets |= sb_word_bits(sb_word_matches(folded, '{') | sb_word_matches(folded, '}')) << at;
}

static inline sb_block_masks sb_block_load(const char *p)
{
    sb_block_masks masks = {0, 0, 0};
    for (unsigned at = 0; at < 64; at += 8) sb_part_load(&masks, p, at);
    return masks;
}

#endif

/* What one block has to know of those before it. */
typedef struct {
    uint64_t escaped;   /* 1 if the next byte follows an open backslash */
    uint64_t in_string; /* all ones inside a string, else 0 */
} sb_block_state;

/*
 * Marks the bytes that follow a run of backslashes of odd length. Adding its
 * first bit to a run leaves a bit behind its end; the run is odd if the two
 * are an odd distance apart.
 */
static inline uint64_t sb_block_escaped(sb_block_state *state, uint64_t slashes)
{
    const uint64_t even = UINT64_C(0x5555555555555555);
    uint64_t escaped = state->escaped;
    slashes &= ~escaped;
    uint64_t starts = slashes & ~(slashes << 1);
    uint64_t after_even = slashes + (starts & even);
    uint64_t after_odd = slashes + (starts & ~even);
    state->escaped = after_odd < slashes; /* the run that reaches the end of the block */
    return escaped | (((after_even & ~even) | (after_odd & even)) & ~slashes);
}

/* Marks the quotes in the 64 bytes at p that are not escaped. */
static inline uint64_t sb_block_quotes(sb_block_state *state, const char *p)
{
    sb_block_masks masks = sb_block_load(p);
    return masks.quotes & ~sb_block_escaped(state, masks.slashes);
}

/*
 * Marks the brackets outside strings in the 64 bytes at p, and the
 * backslashes, which have no place there.
 */
static inline uint64_t sb_block_structure(sb_block_state *state, const char *p)
{
    sb_block_masks masks = sb_block_load(p);
    uint64_t inside = masks.quotes & ~sb_block_escaped(state, masks.slashes);
    /* Each bit becomes the parity of the quotes up to it: set from an opening quote to before its closing one. */
    inside ^= inside << 1;
    inside ^= inside << 2;
    inside ^= inside << 4;
    inside ^= inside << 8;
    inside ^= inside << 16;
    inside ^= inside << 32;
    inside ^= state->in_string;
    state->in_string = 0 - (inside >> 63);
    return (masks.brackets | masks.slashes) & ~inside;
}

#endif
