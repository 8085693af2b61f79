#include "envelope.h"

#include "scan.h"

/* No routed key has more bytes than "sessionId". */
#define KEY_MAX ((size_t)9)

/* The member that a key with these bytes belongs to, or NULL. */
static inline sb_member *match_key(sb_envelope *envelope, const char *key, size_t len)
{
    switch (len) {
    case 2: return memcmp(key, "id", 2) == 0 ? &envelope->id : NULL;
    case 4:
        if (memcmp(key, "pool", 4) == 0) return &envelope->pool;
        return memcmp(key, "_ext", 4) == 0 ? &envelope->ext : NULL;
    case 5: return memcmp(key, "error", 5) == 0 ? &envelope->error : NULL;
    case 6:
        if (memcmp(key, "method", 6) == 0) return &envelope->method;
        if (memcmp(key, "params", 6) == 0) return &envelope->params;
        return memcmp(key, "result", 6) == 0 ? &envelope->result : NULL;
    case 7: return memcmp(key, "agentId", 7) == 0 ? &envelope->agent : NULL;
    case 9: return memcmp(key, "sessionId", 9) == 0 ? &envelope->session : NULL;
    default: return NULL;
    }
}

/* The same for a key that has escapes in it; six bytes ("\u0069") may stand for one. */
static sb_member *match_escaped(sb_envelope *envelope, sb_span key)
{
    char text[6 * KEY_MAX + 2];
    if (key.len > sizeof text) return NULL;
    size_t len = sb_json_decode(key, text);
    return len <= KEY_MAX ? match_key(envelope, text, len) : NULL;
}

static inline sb_member *find_member(sb_envelope *envelope, sb_span key)
{
    sb_member *member = match_key(envelope, key.ptr + 1, key.len - 2);
    if (member != NULL || memchr(key.ptr, '\\', key.len) == NULL) return member;
    return match_escaped(envelope, key);
}

static bool is_present(sb_member member)
{
    return member.end != 0;
}

/* Makes a member absent if it is no string, or an empty one. */
static void need_text(const char *frame, sb_member *member)
{
    if (frame[member->value] != '"' || member->end - member->value <= 2) member->end = 0;
}

/* Whether the id can be one; null and what can't be one become absent. */
static bool check_id(const char *frame, sb_member *id)
{
    if (!is_present(*id)) return true;
    char first = frame[id->value];
    if (first == '"' || first == '-' || (first >= '0' && first <= '9')) return true;
    id->end = 0;
    return first == 'n';
}

static bool check_method(const char *frame, sb_member *method)
{
    if (!is_present(*method) || frame[method->value] == '"') return true;
    method->end = 0;
    return false;
}

static sb_kind find_kind(const char *frame, sb_envelope *envelope)
{
    bool valid = check_id(frame, &envelope->id);
    valid = check_method(frame, &envelope->method) && valid;
    if (!valid) return SB_KIND_INVALID;
    if (is_present(envelope->method)) return is_present(envelope->id) ? SB_KIND_REQUEST : SB_KIND_NOTIFICATION;
    if (is_present(envelope->result) || is_present(envelope->error)) return SB_KIND_RESPONSE;
    return SB_KIND_INVALID;
}

static sb_envelope_result scan_object(const char *start, sb_span object, sb_envelope *envelope)
{
    sb_json_walk walk;
    sb_span key, value;
    sb_walk_result result;
    sb_json_walk_init(&walk, object);
    for (uint32_t index = 0; (result = sb_json_walk_next(&walk, &key, &value)) == SB_WALK_MEMBER; index++) {
        sb_member *member = find_member(envelope, key);
        if (member == NULL) continue;
        if (is_present(*member)) envelope->repeated = true;
        member->key = (uint32_t)(key.ptr - start);
        member->value = (uint32_t)(value.ptr - start);
        member->end = (uint32_t)(value.ptr + value.len - start);
        member->index = index;
    }
    const char *end = object.ptr + object.len;
    if (result != SB_WALK_END || sb_json_space(walk.p, end) != end) return SB_ENVELOPE_BROKEN;

    need_text(start, &envelope->session);
    need_text(start, &envelope->pool);
    need_text(start, &envelope->agent);
    envelope->kind = find_kind(start, envelope);
    return SB_ENVELOPE_OK;
}

sb_envelope_result sb_envelope_scan(sb_span frame, sb_envelope *envelope)
{
    memset(envelope, 0, sizeof *envelope);
    if (frame.len == 0 || frame.len > UINT32_MAX) return SB_ENVELOPE_BROKEN;
    const char *end = frame.ptr + frame.len;
    sb_span value = {sb_json_space(frame.ptr, end), 0};
    value.len = (size_t)(end - value.ptr);
    if (value.len > 0 && *value.ptr == '{') return scan_object(frame.ptr, value, envelope);

    const char *stop = sb_json_skip(value.ptr, end);
    if (stop == NULL || sb_json_space(stop, end) != end) return SB_ENVELOPE_BROKEN;
    return *value.ptr == '[' ? SB_ENVELOPE_ARRAY : SB_ENVELOPE_SCALAR;
}

static void walk_beginning(sb_json_walk *walk, sb_span beginning)
{
    const char *end = beginning.ptr + beginning.len;
    sb_span object = {sb_json_space(beginning.ptr, end), 0};
    object.len = (size_t)(end - object.ptr);
    sb_json_walk_init(walk, object);
}

bool sb_envelope_partial_asks(sb_span beginning)
{
    sb_json_walk walk;
    sb_span key, value;
    sb_walk_result result;
    bool asks = false;
    if (beginning.len == 0) return false;
    walk_beginning(&walk, beginning);
    do {
        result = sb_json_walk_next(&walk, &key, &value);
        asks = asks || sb_json_string_is(key, "method");
    } while (result == SB_WALK_MEMBER);
    return asks;
}

sb_span sb_envelope_partial_id(sb_span beginning)
{
    const sb_span absent = {NULL, 0};
    if (beginning.len == 0) return absent;
    const char *end = beginning.ptr + beginning.len;

    sb_json_walk walk;
    sb_span id = absent, key, value;
    sb_walk_result result;
    walk_beginning(&walk, beginning);
    do {
        result = sb_json_walk_next(&walk, &key, &value);
        if (!sb_json_string_is(key, "id")) continue;
        /* The last one counts. It is known only if it is followed by what ends it: 12 may go on as 123. */
        const char *after = result == SB_WALK_MEMBER ? sb_json_space(walk.p, end) : end;
        id = after < end && (*after == ',' || *after == '}') ? value : absent;
    } while (result == SB_WALK_MEMBER);

    if (id.ptr == NULL) return absent;
    sb_member member = {0, 0, (uint32_t)1, 0};
    check_id(id.ptr, &member);
    return is_present(member) ? id : absent;
}

static bool is_stable_number(sb_span token)
{
    bool negative = token.ptr[0] == '-';
    const char *p = token.ptr + negative, *end = token.ptr + token.len;
    size_t digits = (size_t)(end - p);
    if (digits == 0 || digits > 16) return false;
    if (*p == '0') return digits == 1 && !negative;
    uint64_t value = 0;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9') return false;
        value = value * 10 + (uint64_t)(*p - '0');
    }
    return value <= (uint64_t)1 << 53;
}

/* Bytes that some library escapes although it need not, by default: PHP the slash, others those of HTML. */
static bool is_stable_byte(char c)
{
    return c >= ' ' && c <= '~' && memchr("\"\\/<>&'+=`", c, 10) == NULL;
}

bool sb_id_is_stable(sb_span token)
{
    if (token.len == 0) return false;
    if (token.ptr[0] != '"') return is_stable_number(token);
    if (token.len < 2 || token.ptr[token.len - 1] != '"') return false;
    for (size_t i = 1; i < token.len - 1; i++) {
        if (!is_stable_byte(token.ptr[i])) return false;
    }
    return true;
}
