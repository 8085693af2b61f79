#include "scan.h"

#include "block.h"

/* Nesting up to which closing brackets are matched with their kind. */
#define KINDS_MAX 1024

const char *sb_json_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

/*
 * One past the string that has its first backslash at p, or NULL. Whole blocks
 * at a time, because where there is one escape there are often many.
 */
static const char *skip_escaped(const char *p, const char *end)
{
    sb_block_state state = {0, 0};
    while ((size_t)(end - p) >= SB_BLOCK) {
        uint64_t quotes = sb_block_quotes(&state, p);
        if (quotes != 0) return p + sb_lowest_bit(quotes) + 1;
        p += SB_BLOCK;
    }
    bool escaped = state.escaped != 0;
    for (; p < end; p++) {
        if (*p == '"' && !escaped) return p + 1;
        escaped = *p == '\\' && !escaped;
    }
    return NULL;
}

/* One past the string whose opening quote is at p, or NULL. */
static inline const char *skip_string(const char *p, const char *end)
{
    p++;
    while ((size_t)(end - p) >= SB_STEP) {
        size_t i = sb_step_find(p);
        p += i;
        if (i < SB_STEP) return *p == '"' ? p + 1 : skip_escaped(p, end);
    }
    while (p < end && *p != '"' && *p != '\\') p++;
    if (p == end) return NULL;
    return *p == '"' ? p + 1 : skip_escaped(p, end);
}

typedef struct {
    sb_block_state block;
    size_t depth;
    char closer[KINDS_MAX]; /* the bracket that closes each open container */
} container;

/*
 * Handles the bytes marked in `bits`, which stand outside strings. Returns one
 * past the outermost closing bracket, `p` if it is not among them, or NULL if
 * the text is broken.
 */
static inline const char *match_brackets(container *c, const char *p, uint64_t bits)
{
    for (; bits != 0; bits &= bits - 1) {
        size_t i = sb_lowest_bit(bits);
        char byte = p[i];
        if (byte == '{' || byte == '[') {
            if (c->depth < KINDS_MAX) c->closer[c->depth] = (char)(byte + 2);
            c->depth++;
        } else {
            if (byte == '\\') return NULL;
            c->depth--;
            if (c->depth < KINDS_MAX && c->closer[c->depth] != byte) return NULL;
            if (c->depth == 0) return p + i + 1;
        }
    }
    return p;
}

/* One past the object or array that starts at p, or NULL. */
static const char *skip_container(const char *p, const char *end)
{
    container c;
    memset(&c.block, 0, sizeof c.block);
    c.depth = 0;
    while ((size_t)(end - p) >= SB_BLOCK) {
        const char *at = match_brackets(&c, p, sb_block_structure(&c.block, p));
        if (at != p) return at;
        p += SB_BLOCK;
    }

    /* The last bytes are looked at in a copy, because nothing beyond `end` may be read. */
    char last[SB_BLOCK];
    size_t left = (size_t)(end - p);
    if (left == 0) return NULL;
    memset(last, ' ', sizeof last);
    memcpy(last, p, left);
    const char *at = match_brackets(&c, p, sb_block_structure(&c.block, last));
    return at != p ? at : NULL;
}

static const char *skip_word(const char *p, const char *end, const char *word, size_t len)
{
    return (size_t)(end - p) >= len && memcmp(p, word, len) == 0 ? p + len : NULL;
}

/* One past the digits at p, or NULL if there is none. */
static const char *skip_digits(const char *p, const char *end)
{
    const char *start = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p > start ? p : NULL;
}

static const char *skip_number(const char *p, const char *end)
{
    if (*p == '-') p++;
    if (p < end && *p == '0') {
        p++;
    } else {
        p = skip_digits(p, end);
    }
    if (p != NULL && p < end && *p == '.') p = skip_digits(p + 1, end);
    if (p != NULL && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        p = skip_digits(p, end);
    }
    return p;
}

static inline const char *skip_value(const char *p, const char *end)
{
    if (p >= end) return NULL;
    switch (*p) {
    case '"': return skip_string(p, end);
    case '{':
    case '[': return skip_container(p, end);
    case 't': return skip_word(p, end, "true", 4);
    case 'f': return skip_word(p, end, "false", 5);
    case 'n': return skip_word(p, end, "null", 4);
    default: return skip_number(p, end);
    }
}

const char *sb_json_skip(const char *p, const char *end)
{
    return skip_value(p, end);
}

void sb_json_walk_init(sb_json_walk *walk, sb_span object)
{
    walk->p = object.ptr;
    walk->end = object.len > 0 ? object.ptr + object.len : object.ptr;
    walk->first = true;
}

/* Moves to the next key. SB_WALK_END: past the closing brace instead. */
static inline sb_walk_result walk_to_key(sb_json_walk *walk)
{
    bool first = walk->first;
    const char *p = first ? walk->p : sb_json_space(walk->p, walk->end);
    walk->first = false;
    if (p == walk->end) return SB_WALK_BROKEN;
    if (*p == '}' && !first) {
        walk->p = p + 1;
        return SB_WALK_END;
    }
    if (*p != (first ? '{' : ',')) return SB_WALK_BROKEN;
    p = sb_json_space(p + 1, walk->end);
    if (p == walk->end) return SB_WALK_BROKEN;
    if (*p == '}' && first) {
        walk->p = p + 1;
        return SB_WALK_END;
    }
    walk->p = p;
    return *p == '"' ? SB_WALK_MEMBER : SB_WALK_BROKEN;
}

sb_walk_result sb_json_walk_next(sb_json_walk *walk, sb_span *key, sb_span *value)
{
    const char *end = walk->end;
    key->ptr = value->ptr = NULL;
    key->len = value->len = 0;
    sb_walk_result result = walk_to_key(walk);
    if (result != SB_WALK_MEMBER) return result;

    const char *p = skip_string(walk->p, end);
    if (p == NULL) return SB_WALK_BROKEN;
    key->ptr = walk->p;
    key->len = (size_t)(p - walk->p);

    p = sb_json_space(p, end);
    if (p == end || *p != ':') return SB_WALK_BROKEN;
    p = sb_json_space(p + 1, end);
    const char *stop = skip_value(p, end);
    if (stop == NULL) return SB_WALK_BROKEN;
    value->ptr = p;
    value->len = (size_t)(stop - p);
    walk->p = stop;
    return SB_WALK_MEMBER;
}

sb_span sb_json_find(sb_span object, const char *key)
{
    const sb_span absent = {NULL, 0};
    sb_span found = absent, name, value;
    sb_json_walk walk;
    sb_json_walk_init(&walk, object);
    for (;;) {
        switch (sb_json_walk_next(&walk, &name, &value)) {
        case SB_WALK_MEMBER:
            if (sb_json_string_is(name, key)) found = value;
            break;
        case SB_WALK_END: return found;
        case SB_WALK_BROKEN: return absent;
        }
    }
}

/* Reads four hexadecimal digits; false if they are none. */
static bool read_hex(const char *p, const char *end, uint32_t *value)
{
    if (end - p < 4) return false;
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)(c - 'A') + 10;
        } else {
            return false;
        }
        *value = *value << 4 | digit;
    }
    return true;
}

static size_t write_utf8(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* Decodes what follows "\u"; returns one past it, or NULL. */
static const char *decode_unicode(const char *p, const char *end, char out[4], size_t *len)
{
    uint32_t code, low;
    if (!read_hex(p, end, &code)) return NULL;
    p += 4;
    if (code >= 0xD800 && code < 0xE000) {
        bool paired = code < 0xDC00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' && read_hex(p + 2, end, &low) &&
                      low >= 0xDC00 && low < 0xE000;
        if (paired) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            p += 6;
        } else {
            code = 0xFFFD;
        }
    }
    *len = write_utf8(code, out);
    return p;
}

/* Decodes the escape whose backslash is at p; returns one past it, or NULL. */
static const char *decode_escape(const char *p, const char *end, char out[4], size_t *len)
{
    static const char names[] = "\"\\/bfnrt";
    static const char bytes[] = "\"\\/\b\f\n\r\t";
    if (end - p < 2) return NULL;
    if (p[1] == 'u') return decode_unicode(p + 2, end, out, len);
    const char *name = memchr(names, p[1], sizeof names - 1);
    if (name == NULL) return NULL;
    out[0] = bytes[name - names];
    *len = 1;
    return p + 2;
}

/* The bytes between the quotes of a token; an absent span if it has no quotes. */
static sb_span string_body(sb_span token)
{
    sb_span body = {NULL, 0};
    if (token.len >= 2 && token.ptr[0] == '"' && token.ptr[token.len - 1] == '"') {
        body.ptr = token.ptr + 1;
        body.len = token.len - 2;
    }
    return body;
}

bool sb_json_string_is(sb_span token, const char *text)
{
    sb_span body = string_body(token);
    if (body.ptr == NULL) return false;
    size_t left = strlen(text);
    if (memchr(body.ptr, '\\', body.len) == NULL) return body.len == left && memcmp(body.ptr, text, left) == 0;

    const char *p = body.ptr, *end = p + body.len;
    while (p < end) {
        char piece[4];
        size_t len = 1;
        if (*p == '\\') {
            p = decode_escape(p, end, piece, &len);
            if (p == NULL) return false;
        } else {
            piece[0] = *p++;
        }
        if (len > left || memcmp(piece, text, len) != 0) return false;
        text += len;
        left -= len;
    }
    return left == 0;
}

size_t sb_json_decode(sb_span token, char *out)
{
    sb_span body = string_body(token);
    if (body.ptr == NULL) return SIZE_MAX;
    const char *p = body.ptr, *end = p + body.len;
    char *start = out;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((slash != NULL ? slash : end) - p);
        memcpy(out, p, plain);
        out += plain;
        if (slash == NULL) break;
        /* A piece is no longer than its escape, so `out` stays within its room. */
        char piece[4];
        size_t len;
        p = decode_escape(slash, end, piece, &len);
        if (p == NULL) return SIZE_MAX;
        memcpy(out, piece, len);
        out += len;
    }
    return (size_t)(out - start);
}
