/*
 * fuzz_envelope.c - the scan of a frame: the SIMD code and the portable code
 * say the same, nothing is read behind the frame's end, and every member
 * found lies inside the frame. Input: the frame.
 */
#include "../test/portable.h"

/* envelope.c a second time, over the portable scanner. */
#define sb_json_skip portable_skip
#define sb_json_space portable_space
#define sb_json_walk_init portable_walk_init
#define sb_json_walk_next portable_walk_next
#define sb_json_string_is portable_string_is
#define sb_json_decode portable_decode
#define sb_envelope_scan portable_envelope_scan
#define sb_envelope_partial_id portable_partial_id
#define sb_envelope_partial_asks portable_partial_asks
#define sb_id_is_stable portable_id_is_stable

#include "../src/envelope.c"

#undef sb_json_skip
#undef sb_json_space
#undef sb_json_walk_init
#undef sb_json_walk_next
#undef sb_json_string_is
#undef sb_json_decode
#undef sb_envelope_scan
#undef sb_envelope_partial_id
#undef sb_envelope_partial_asks
#undef sb_id_is_stable

sb_envelope_result sb_envelope_scan(sb_span frame, sb_envelope *envelope);
sb_span sb_envelope_partial_id(sb_span beginning);
bool sb_envelope_partial_asks(sb_span beginning);
bool sb_id_is_stable(sb_span token);

#include "fuzz.h"

static void check_member(sb_span frame, sb_member member)
{
    if (member.key == 0 && member.end == 0) {
        CHECK(member.value == 0 && member.index == 0);
        return;
    }
    CHECK(member.key > 0 && member.key < member.value && member.value < frame.len && frame.ptr[member.key] == '"');
    if (member.end == 0) return;
    CHECK(member.value < member.end && member.end < frame.len);
    CHECK(sb_json_skip(frame.ptr + member.value, frame.ptr + frame.len) == frame.ptr + member.end);
}

static void check_kind(sb_span frame, const sb_envelope *e)
{
    bool answered = e->result.end != 0 || e->error.end != 0;
    switch (e->kind) {
    case SB_KIND_REQUEST: CHECK(e->method.end != 0 && e->id.end != 0); break;
    case SB_KIND_NOTIFICATION: CHECK(e->method.end != 0 && e->id.end == 0); break;
    case SB_KIND_RESPONSE: CHECK(e->method.end == 0 && answered); break;
    case SB_KIND_INVALID: break;
    }
    if (e->method.end != 0) CHECK(frame.ptr[e->method.value] == '"');
    if (e->id.end != 0) CHECK(memchr("\"-0123456789", frame.ptr[e->id.value], 12) != NULL);
}

/* All strings of the frame, decoded by both; what is decoded is no longer than its token. */
static void check_strings(sb_span frame)
{
    static char one[FUZZ_INPUT_MAX + 1], other[FUZZ_INPUT_MAX + 1];
    const char *end = frame.ptr + frame.len;
    for (const char *p = frame.ptr; p < end; p++) {
        if (*p != '"') continue;
        sb_span token = {p, 0};
        const char *stop = sb_json_skip(p, end);
        CHECK(portable_skip(p, end) == stop);
        if (stop == NULL) return;
        token.len = (size_t)(stop - p);
        size_t len = sb_json_decode(token, one);
        CHECK(portable_decode(token, other) == len);
        if (len != SIZE_MAX) CHECK(len <= token.len - 2 && memcmp(one, other, len) == 0);
        CHECK(sb_json_string_is(token, "id") == (len == 2 && memcmp(one, "id", 2) == 0));
        CHECK(portable_string_is(token, "id") == sb_json_string_is(token, "id"));
        CHECK(sb_id_is_stable(token) == portable_id_is_stable(token));
        p = stop - 1;
    }
}

static void check_beginning(sb_span beginning)
{
    sb_span id = sb_envelope_partial_id(beginning), same = portable_partial_id(beginning);
    CHECK(id.ptr == same.ptr && id.len == same.len);
    CHECK(sb_envelope_partial_asks(beginning) == portable_partial_asks(beginning));
    if (id.ptr == NULL) return;
    CHECK(id.ptr > beginning.ptr && id.ptr + id.len <= beginning.ptr + beginning.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sb_envelope one, other;
    if (size > FUZZ_INPUT_MAX) return 0;
    sb_span input = {(const char *)data, size}, frame = place_span(input);
    memset(&one, 0xA5, sizeof one);
    memset(&other, 0x5A, sizeof other);
    sb_envelope_result result = sb_envelope_scan(frame, &one);
    CHECK(portable_envelope_scan(frame, &other) == result);
    if (result == SB_ENVELOPE_OK) {
        CHECK(memcmp(&one, &other, sizeof one) == 0);
        const sb_member members[] = {one.id,     one.session, one.pool,   one.agent,
                                     one.method, one.params,  one.result, one.error};
        for (size_t i = 0; i < SB_COUNT(members); i++) check_member(frame, members[i]);
        check_kind(frame, &one);
        sb_span id = sb_member_value(frame, one.id);
        if (id.ptr != NULL) CHECK(sb_id_is_stable(id) == portable_id_is_stable(id));
    }
    check_strings(frame);
    check_beginning(frame);

    /* Every beginning of it, at the end of the page again. A whole object has no whole object as its beginning. */
    uint64_t seed = fuzz_seed(data, size);
    for (size_t i = 0; i < 4 && size > 0; i++) {
        input.len = random_below(&seed, size);
        frame = place_span(input);
        sb_envelope_result cut = sb_envelope_scan(frame, &other);
        CHECK(portable_envelope_scan(frame, &one) == cut);
        check_beginning(frame);
    }
    return 0;
}
