/*
 * fuzz_splice.c - edits on a frame: what is left is one object again, with
 * all other members byte for byte and in their order.
 *
 * Input: a byte of flags (1: drop agentId too, 2: drop, 4: replace the id, 8: replace the method), the frame.
 */
#include "../src/scan.h"
#include "../src/splice.h"
#include "fuzz.h"

enum { DROP_AGENT = 1, DROP = 2, NEW_ID = 4, NEW_METHOD = 8 };

static const char id_token[] = "\"a new and rather long id\"", method_token[] = "\"m\"";

static sb_json_walk walk_of(sb_span frame)
{
    sb_json_walk walk;
    sb_span object = {sb_json_space(frame.ptr, frame.ptr + frame.len), 0};
    object.len = (size_t)(frame.ptr + frame.len - object.ptr);
    sb_json_walk_init(&walk, object);
    return walk;
}

static bool is_dropped(sb_span key, int flags)
{
    if ((flags & DROP) == 0) return false;
    return sb_json_string_is(key, "sessionId") || sb_json_string_is(key, "pool") ||
           ((flags & DROP_AGENT) && sb_json_string_is(key, "agentId"));
}

static void check_members(sb_span before, sb_span after, const sb_envelope *envelope, int flags)
{
    sb_json_walk old = walk_of(before), new = walk_of(after);
    sb_span key, value, new_key, new_value;
    for (uint32_t index = 0; sb_json_walk_next(&old, &key, &value) == SB_WALK_MEMBER; index++) {
        if (is_dropped(key, flags)) continue;
        CHECK(sb_json_walk_next(&new, &new_key, &new_value) == SB_WALK_MEMBER);
        CHECK(sb_span_eq(key, new_key));
        if ((flags & NEW_ID) && envelope->id.index == index) {
            CHECK(sb_span_is(new_value, id_token));
        } else if ((flags & NEW_METHOD) && envelope->method.index == index) {
            CHECK(sb_span_is(new_value, method_token));
        } else {
            CHECK(sb_span_eq(value, new_value));
        }
    }
    CHECK(sb_json_walk_next(&new, &new_key, &new_value) == SB_WALK_END);
}

static void check_edits(const sb_edits *edits, sb_span frame)
{
    size_t from = 0;
    CHECK(edits->count <= SB_EDITS_MAX);
    for (size_t i = 0; i < edits->count; i++) {
        CHECK(edits->edit[i].at >= from);
        from = edits->edit[i].at + edits->edit[i].drop;
        CHECK(from <= frame.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char zeros[2 * FUZZ_INPUT_MAX];
    sb_envelope envelope, edited;
    sb_edits edits = {.count = 0};
    if (size < 1 || size > FUZZ_INPUT_MAX) return 0;
    int flags = data[0];
    sb_span frame = {(const char *)data + 1, size - 1};
    sb_envelope_result result = sb_envelope_scan(place_span(frame), &envelope);
    if (result != SB_ENVELOPE_OK) return 0;
    if (envelope.id.end == 0) flags &= ~NEW_ID;
    if (envelope.method.end == 0) flags &= ~NEW_METHOD;

    if (flags & NEW_METHOD) sb_splice_replace(&edits, envelope.method, sb_span_of(method_token));
    sb_edits kept = edits;
    if ((flags & DROP) && !sb_splice_drop_routing(&edits, place_span(frame), &envelope, flags & DROP_AGENT)) {
        CHECK(envelope.repeated); /* named members alone never need that many */
        CHECK(memcmp(&edits.edit, &kept.edit, kept.count * sizeof kept.edit[0]) == 0 && edits.count == kept.count);
        flags &= ~DROP;
    }
    if (edits.count == SB_EDITS_MAX) flags &= ~NEW_ID;
    if (flags & NEW_ID) sb_splice_replace(&edits, envelope.id, sb_span_of(id_token));
    check_edits(&edits, frame);

    /* At the unreadable page lies the output: one byte too many would be seen. */
    sb_span out = {NULL, sb_splice_length(&edits, frame)};
    CHECK(out.len <= sizeof zeros);
    char *room = place(zeros, out.len);
    sb_splice_copy(&edits, frame, room);
    out.ptr = room;
    CHECK(sb_envelope_scan(out, &edited) == SB_ENVELOPE_OK);
    check_members(frame, out, &envelope, flags);
    if (flags & DROP) CHECK(edited.session.key == 0 && edited.pool.key == 0);
    if (!(flags & NEW_ID)) CHECK(edited.kind == envelope.kind);
    if (edits.count == 0) CHECK(sb_span_eq(frame, out));
    return 0;
}
