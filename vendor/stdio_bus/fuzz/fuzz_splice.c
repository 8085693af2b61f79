/*
 * fuzz_splice.c - edits on a frame: what is left is one object again, with
 * all other members byte for byte and in their order.
 *
 * Input: a byte of flags (1: drop agentId and _ext too, 2: drop, 4: replace the id, 8: replace the method,
 * 16: with 1 and 2, move the value of _ext into the params), the frame.
 */
#include "../src/scan.h"
#include "../src/splice.h"
#include "fuzz.h"

enum { DROP_AGENT = 1, DROP = 2, NEW_ID = 4, NEW_METHOD = 8, MOVE_EXT = 16 };

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
           ((flags & DROP_AGENT) && (sb_json_string_is(key, "agentId") || sb_json_string_is(key, "_ext")));
}

/* The member of an object, or of nothing; absent if there is none. */
static sb_span find(sb_span object, const char *key)
{
    sb_span none = {NULL, 0};
    return object.ptr != NULL && object.ptr[0] == '{' ? sb_json_find(object, key) : none;
}

/* Whether a value is an object whose members can be told: deeper down, frames are not checked. */
static bool is_whole(sb_span value)
{
    sb_json_walk walk;
    sb_span key, member;
    sb_walk_result result;
    if (value.ptr[0] != '{') return false;
    sb_json_walk_init(&walk, value);
    while ((result = sb_json_walk_next(&walk, &key, &member)) == SB_WALK_MEMBER) {
    }
    return result == SB_WALK_END;
}

/* Where there was an object for it, or nothing, the value stands in the params now. */
static void check_moved(sb_span before, const sb_envelope *envelope, sb_span after, const sb_envelope *edited)
{
    sb_span params = sb_member_value(before, envelope->params), meta = find(params, "_meta");
    CHECK(edited->ext.key == 0 && edited->agent.key == 0);
    if ((params.ptr != NULL && !is_whole(params)) || (meta.ptr != NULL && !is_whole(meta))) return;
    CHECK(find(find(sb_member_value(after, edited->params), "_meta"), "stdio_bus/ext").ptr != NULL);
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

    if ((flags & (DROP | DROP_AGENT)) != (DROP | DROP_AGENT) || envelope.ext.end == 0) flags &= ~MOVE_EXT;
    if (envelope.method.end == 0) flags &= ~MOVE_EXT;

    if (flags & MOVE_EXT) sb_splice_move_ext(&edits, frame, &envelope);
    if (flags & NEW_METHOD) sb_splice_replace(&edits, envelope.method, sb_span_of(method_token));
    sb_edits kept = edits;
    if ((flags & DROP) && !sb_splice_drop_routing(&edits, place_span(frame), &envelope, flags & DROP_AGENT)) {
        CHECK(envelope.repeated); /* named members alone never need that many */
        CHECK(memcmp(&edits.edit, &kept.edit, kept.count * sizeof kept.edit[0]) == 0 && edits.count == kept.count);
        flags &= ~DROP;
        if (flags & MOVE_EXT) return 0;
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
    if (flags & MOVE_EXT) {
        check_moved(frame, &envelope, out, &edited);
    } else {
        check_members(frame, out, &envelope, flags);
    }
    if (flags & DROP) CHECK(edited.session.key == 0 && edited.pool.key == 0);
    if (!(flags & NEW_ID)) CHECK(edited.kind == envelope.kind);
    if (edits.count == 0) CHECK(sb_span_eq(frame, out));
    return 0;
}
