/*
 * scan.h - walking JSON text without building a tree. Pure. Looks at whole
 * blocks at a time where the processor can (SSE2, NEON, else word-wise).
 *
 * Structure is checked (brackets pair up, strings end, commas and colons of
 * the object being walked); scalars are checked where they are walked over as
 * a member's value, and only skipped over inside nested containers.
 */
#ifndef SB_SCAN_H
#define SB_SCAN_H

#include "base.h"

/* End of the JSON value at p (one past it), or NULL if it is broken or does not end before `end`. */
const char *sb_json_skip(const char *p, const char *end);

/* First byte at or after p that is no JSON white space. */
const char *sb_json_space(const char *p, const char *end);

/* Walks the members of one object. */
typedef struct {
    const char *p; /* next byte to look at */
    const char *end;
    bool first;
} sb_json_walk;

typedef enum { SB_WALK_MEMBER, SB_WALK_END, SB_WALK_BROKEN } sb_walk_result;

/* `object` must start with '{' (leading white space not allowed). */
void sb_json_walk_init(sb_json_walk *walk, sb_span object);

/*
 * The next member: its key token (quotes included) and its value token. After
 * SB_WALK_END walk->p is one past the closing brace. With SB_WALK_BROKEN the key
 * is present if it was complete and its value was not.
 */
sb_walk_result sb_json_walk_next(sb_json_walk *walk, sb_span *key, sb_span *value);

/* Value of the last member of `object` with this key (decoded compare), or an absent span. */
sb_span sb_json_find(sb_span object, const char *key);

/* Whether a token (which may be absent) is a string that isn't empty. */
static inline bool sb_json_is_text(sb_span token)
{
    return token.ptr != NULL && token.len > 2 && token.ptr[0] == '"';
}

/* Whether a JSON string token (quotes included) spells this text. Escapes are decoded; no allocation. */
bool sb_json_string_is(sb_span token, const char *text);

/*
 * Decodes a JSON string token (quotes included) into `out`, which must have
 * room for token.len bytes. Returns the length, or SIZE_MAX if an escape is
 * broken. Lone surrogates become U+FFFD. A token without escapes is copied.
 */
size_t sb_json_decode(sb_span token, char *out);

#endif
