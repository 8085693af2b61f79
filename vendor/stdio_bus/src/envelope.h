/*
 * envelope.h - the routed part of a frame, found in one pass. Pure.
 */
#ifndef SB_ENVELOPE_H
#define SB_ENVELOPE_H

#include "base.h"

/*
 * A root member: offsets into the frame. end 0 means absent: either it does
 * not occur (key is 0 too), or its value is of a type that does not count (key
 * and value say where it stands, so that it can still be dropped).
 */
typedef struct {
    uint32_t key;   /* of the key's opening quote */
    uint32_t value; /* of the value's first byte */
    uint32_t end;   /* one past the value */
    uint32_t index; /* how many members stand before it */
} sb_member;

typedef enum {
    SB_KIND_INVALID, /* an object, but no JSON-RPC message */
    SB_KIND_REQUEST, /* values as STDIO_BUS_FRAME_* */
    SB_KIND_RESPONSE,
    SB_KIND_NOTIFICATION
} sb_kind;

typedef struct {
    sb_kind kind;
    bool repeated; /* a routed member occurs more than once; the last one counts */
    sb_member id, session, pool, agent, ext, method, params, result, error; /* ext: "_ext" */
} sb_envelope;

typedef enum {
    SB_ENVELOPE_OK,    /* one complete object */
    SB_ENVELOPE_BROKEN, /* no complete JSON value, or bytes after it */
    SB_ENVELOPE_ARRAY, /* a JSON array (a batch) */
    SB_ENVELOPE_SCALAR /* any other JSON value */
} sb_envelope_result;

/*
 * Scans one frame (at most UINT32_MAX bytes). A member that is present with
 * the wrong type counts as absent for session, pool and agent (they need a
 * non-empty string); a method that is no string, or an id that is neither
 * string, number nor null, makes the kind SB_KIND_INVALID. `id` is absent for
 * null. Kinds: method and id: request; method without id: notification;
 * result or error without method: response; else invalid.
 */
sb_envelope_result sb_envelope_scan(sb_span frame, sb_envelope *envelope);

/*
 * The id of a frame of which only a beginning is known (an oversize line), or
 * an absent span when it cannot be read with certainty.
 */
sb_span sb_envelope_partial_id(sb_span beginning);

/* Whether such a beginning has a method: then its id is not that of something it answers. */
bool sb_envelope_partial_asks(sb_span beginning);

/* The token of a member in its frame; absent if the member is. */
static inline sb_span sb_member_value(sb_span frame, sb_member member)
{
    sb_span value = {NULL, 0};
    if (member.end != 0) {
        value.ptr = frame.ptr + member.value;
        value.len = member.end - member.value;
    }
    return value;
}

/*
 * Whether every JSON library gives this id token back byte for byte: an
 * integer within +-2^53 in shortest form (no -0), or a string of printable
 * ASCII without escapes and without the bytes / < > & ' + = ` (which PHP, Go,
 * .NET or Gson escape by default).
 */
bool sb_id_is_stable(sb_span token);

#endif
