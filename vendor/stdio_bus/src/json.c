#include "json.h"

#include <stdarg.h>
#include <stdio.h>

#define BLOCK_MIN ((size_t)4096)
#define BLOCK_MAX ((size_t)1 << 20)

/* Longest piece of a key that a path or an error message shows. */
#define KEY_SHOWN 64

struct sb_json_block {
    struct sb_json_block *next;
    size_t used;
    size_t size;
    max_align_t data[]; /* not char: nodes live here */
};

typedef struct {
    sb_json_doc *doc;
    const char *p;
    const char *end;
    unsigned depth;
    unsigned values;
} reader;

/* ---- memory and errors --------------------------------------------------- */

static struct sb_json_block *block_new(sb_json_doc *doc, size_t least)
{
    size_t size = doc->blocks ? doc->blocks->size * 2 : BLOCK_MIN;
    if (size > BLOCK_MAX) size = BLOCK_MAX;
    if (size < least) size = least;
    struct sb_json_block *block = sb_alloc(sizeof(*block) + size);
    if (block == NULL) return NULL;
    block->next = doc->blocks;
    block->used = 0;
    block->size = size;
    doc->blocks = block;
    return block;
}

static void *arena_take(sb_json_doc *doc, size_t size)
{
    size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    struct sb_json_block *block = doc->blocks;
    if (block == NULL || block->size - block->used < size) block = block_new(doc, size);
    if (block == NULL) {
        doc->error_at = NULL;
        snprintf(doc->error, sizeof(doc->error), "out of memory");
        return NULL;
    }
    void *piece = (char *)block->data + block->used;
    block->used += size;
    return piece;
}

SB_PRINTF(3, 4)
static bool fail(reader *r, const char *at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->doc->error, sizeof(r->doc->error), format, args);
    va_end(args);
    r->doc->error_at = at;
    return false;
}

/* "expected ..., found ..." at the current byte. */
static bool fail_expected(reader *r, const char *expected)
{
    if (r->p == r->end) return fail(r, r->p, "expected %s, found the end of the text", expected);
    unsigned char c = (unsigned char)*r->p;
    if (c > ' ' && c < 0x7f) return fail(r, r->p, "expected %s, found '%c'", expected, c);
    return fail(r, r->p, "expected %s, found byte 0x%02X", expected, c);
}

/* ---- the key index ------------------------------------------------------- */

/*
 * Finds where `key` is, or would go, in a binary trie over the key's hash, so
 * that an object with a million members doesn't take a million squared steps.
 */
static sb_json_node **member_slot(sb_json_node **slot, sb_span key)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < key.len; i++) hash = (hash ^ (unsigned char)key.ptr[i]) * 16777619u;
    for (; *slot != NULL && !sb_span_eq((*slot)->key, key); hash <<= 1) slot = &(*slot)->branch[hash >> 31];
    return slot;
}

sb_json_node *sb_json_member(const sb_json_node *object, sb_span key)
{
    sb_json_node *members = object->members;
    return *member_slot(&members, key);
}

/* ---- strings ------------------------------------------------------------- */

/* Length of the UTF-8 character at p, 0 if it isn't valid. */
static size_t utf8_length(const char *p, const char *end)
{
    const unsigned char *s = (const unsigned char *)p;
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (len == 0 || (size_t)(end - p) < len) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
    if (s[0] == 0xed && s[1] > 0x9f) return 0; /* surrogate */
    if (s[0] == 0xf0 && s[1] < 0x90) return 0; /* overlong */
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0; /* beyond U+10FFFF */
    return len;
}

static char *utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* The value of "\uXXXX" at p, or UINT32_MAX. */
static uint32_t hex_escape(const char *p, const char *end)
{
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return UINT32_MAX;
    uint32_t value = 0;
    for (int i = 2; i < 6; i++) {
        char c = p[i];
        uint32_t digit = 16;
        if (c >= '0' && c <= '9') digit = (uint32_t)(c - '0');
        if (c >= 'a' && c <= 'f') digit = (uint32_t)(c - 'a') + 10;
        if (c >= 'A' && c <= 'F') digit = (uint32_t)(c - 'A') + 10;
        if (digit == 16) return UINT32_MAX;
        value = value << 4 | digit;
    }
    return value;
}

/* Reads "\uXXXX", or the two of a surrogate pair, at r->p. */
static bool read_hex_escape(reader *r, uint32_t *c)
{
    uint32_t high = hex_escape(r->p, r->end);
    if (high == UINT32_MAX) return fail(r, r->p, "\\u must be followed by four hexadecimal digits");
    if (high == 0) return fail(r, r->p, "\\u0000 is not allowed in a string");
    *c = high;
    if (high >= 0xd800 && high <= 0xdfff) {
        uint32_t low = high < 0xdc00 ? hex_escape(r->p + 6, r->end) : UINT32_MAX;
        if (low < 0xdc00 || low > 0xdfff) return fail(r, r->p, "\\u%04x is half of a surrogate pair", (unsigned)high);
        *c = 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00));
        r->p += 6;
    }
    r->p += 6;
    return true;
}

/* Reads one escape at r->p. */
static bool read_escape(reader *r, uint32_t *c)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    if (r->end - r->p < 2) return fail(r, r->p, "this escape does not end");
    if (r->p[1] == 'u') return read_hex_escape(r, c);
    const char *name = r->p[1] != '\0' ? strchr(names, r->p[1]) : NULL;
    if (name == NULL) return fail(r, r->p, "unknown escape after '\\'");
    *c = (unsigned char)values[name - names];
    r->p += 2;
    return true;
}

/* Checks one unescaped character at r->p and steps over it. */
static bool read_plain(reader *r)
{
    unsigned char c = (unsigned char)*r->p;
    if (c < 0x20) return fail(r, r->p, "control character 0x%02X in a string, must be written as an escape", c);
    size_t len = utf8_length(r->p, r->end);
    if (len == 0) return fail(r, r->p, "invalid UTF-8, byte 0x%02X", c);
    r->p += len;
    return true;
}

/* The token at r->p (checked, with escapes) as plain text. */
static bool decode(reader *r, const char *start, const char *stop, sb_span *string)
{
    char *out = arena_take(r->doc, (size_t)(stop - start));
    if (out == NULL) return false;
    string->ptr = out;
    r->p = start;
    while (r->p < stop) {
        uint32_t c;
        if (*r->p != '\\') {
            *out++ = *r->p++;
        } else if (read_escape(r, &c)) {
            out = utf8_put(out, c);
        }
    }
    string->len = (size_t)(out - string->ptr);
    return true;
}

/* Reads the string whose opening quote is at r->p; `raw` gets the token, `string` the text. */
static bool read_string(reader *r, sb_span *raw, sb_span *string)
{
    const char *start = r->p++;
    bool escaped = false;
    while (r->p < r->end && *r->p != '"') {
        uint32_t c;
        bool escape = *r->p == '\\';
        escaped = escaped || escape;
        if (escape ? !read_escape(r, &c) : !read_plain(r)) return false;
    }
    if (r->p == r->end) return fail(r, start, "this string does not end");
    const char *stop = r->p;
    *raw = (sb_span){start, (size_t)(stop + 1 - start)};
    *string = (sb_span){start + 1, (size_t)(stop - start - 1)};
    if (escaped && !decode(r, start + 1, stop, string)) return false;
    r->p = stop + 1;
    return true;
}

/* ---- values -------------------------------------------------------------- */

static bool read_value(reader *r, sb_json_node *node);

static void skip_space(reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) r->p++;
}

static bool skip_digits(reader *r)
{
    const char *start = r->p;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9') r->p++;
    return r->p > start;
}

static bool skip_char(reader *r, char c)
{
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

static bool read_number(reader *r)
{
    const char *start = r->p;
    skip_char(r, '-');
    bool valid = skip_char(r, '0') || skip_digits(r);
    if (valid && skip_char(r, '.')) valid = skip_digits(r);
    if (valid && (skip_char(r, 'e') || skip_char(r, 'E'))) {
        if (!skip_char(r, '+')) skip_char(r, '-');
        valid = skip_digits(r);
    }
    /* "01" would otherwise be reported as a missing comma. */
    if (valid && r->p < r->end && *r->p >= '0' && *r->p <= '9') valid = false;
    return valid || fail(r, start, "this is not a valid number");
}

static bool read_word(reader *r, sb_json_node *node)
{
    static const struct {
        const char *word;
        sb_json_type type;
    } words[] = {{"null", SB_JSON_NULL}, {"false", SB_JSON_FALSE}, {"true", SB_JSON_TRUE}};

    for (size_t i = 0; i < SB_COUNT(words); i++) {
        size_t len = strlen(words[i].word);
        if ((size_t)(r->end - r->p) < len || memcmp(r->p, words[i].word, len) != 0) continue;
        node->type = words[i].type;
        r->p += len;
        return true;
    }
    return fail_expected(r, "a value");
}

static sb_json_node *add_child(reader *r, sb_json_node *parent, sb_json_node *last)
{
    if (++r->values > SB_JSON_VALUES_MAX) {
        fail(r, r->p, "more than %u values", SB_JSON_VALUES_MAX);
        return NULL;
    }
    sb_json_node *node = arena_take(r->doc, sizeof(*node));
    if (node == NULL) return NULL;
    *node = (sb_json_node){.parent = parent, .index = parent->count++};
    if (last != NULL) last->next = node;
    else parent->first = node;
    return node;
}

static bool check_unique(reader *r, sb_json_node *object, sb_json_node *member)
{
    sb_json_node **slot = member_slot(&object->members, member->key);
    if (*slot == NULL) {
        *slot = member;
        return true;
    }
    size_t line, column;
    sb_json_position(r->doc, (*slot)->raw_key.ptr, &line, &column);
    sb_span shown = member->raw_key;
    size_t len = sb_json_cut(shown, KEY_SHOWN);
    return fail(r, shown.ptr, "duplicate key %.*s%s, first used at line %zu, column %zu", (int)len, shown.ptr,
                len < shown.len ? "..." : "", line, column);
}

static bool read_key(reader *r, sb_json_node *object, sb_json_node *member)
{
    if (!read_string(r, &member->raw_key, &member->key)) return false;
    if (!check_unique(r, object, member)) return false;
    skip_space(r);
    if (!skip_char(r, ':')) return fail_expected(r, "':' after the key");
    skip_space(r);
    return true;
}

/* Reads the elements after an opening bracket at r->p, and the closing one. */
static bool read_children(reader *r, sb_json_node *node)
{
    bool object = node->type == SB_JSON_OBJECT;
    char close = object ? '}' : ']';
    sb_json_node *child = NULL;

    r->p++;
    for (skip_space(r); !skip_char(r, close); skip_space(r)) {
        if (object && (r->p == r->end || *r->p != '"')) return fail_expected(r, "a key in quotes or '}'");
        child = add_child(r, node, child);
        if (child == NULL || (object && !read_key(r, node, child)) || !read_value(r, child)) return false;
        skip_space(r);
        if (skip_char(r, ',')) continue;
        if (r->p == r->end || *r->p != close) return fail_expected(r, object ? "',' or '}'" : "',' or ']'");
    }
    return true;
}

static bool read_container(reader *r, sb_json_node *node)
{
    if (r->depth == SB_JSON_DEPTH_MAX) return fail(r, r->p, "nested deeper than %d levels", SB_JSON_DEPTH_MAX);
    node->type = *r->p == '{' ? SB_JSON_OBJECT : SB_JSON_ARRAY;
    r->depth++;
    bool done = read_children(r, node);
    r->depth--;
    return done;
}

static bool read_value(reader *r, sb_json_node *node)
{
    if (r->p == r->end) return fail_expected(r, "a value");
    const char *start = r->p;
    bool done;
    if (*start == '{' || *start == '[') {
        done = read_container(r, node);
    } else if (*start == '"') {
        node->type = SB_JSON_STRING;
        done = read_string(r, &node->raw, &node->string);
    } else if (*start == '-' || (*start >= '0' && *start <= '9')) {
        node->type = SB_JSON_NUMBER;
        done = read_number(r);
    } else {
        done = read_word(r, node);
    }
    node->raw = (sb_span){start, (size_t)(r->p - start)};
    return done;
}

bool sb_json_parse(sb_json_doc *doc, sb_span text)
{
    if (text.ptr == NULL) text = sb_span_of("");
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) {
        text.ptr += 3;
        text.len -= 3;
    }
    *doc = (sb_json_doc){.text = text};
    reader r = {.doc = doc, .p = text.ptr, .end = text.ptr + text.len};
    sb_json_node *root = arena_take(doc, sizeof(*root));
    if (root == NULL) return false;
    *root = (sb_json_node){.type = SB_JSON_NULL};

    skip_space(&r);
    if (!read_value(&r, root)) return false;
    skip_space(&r);
    if (r.p < r.end) return fail_expected(&r, "the end of the text");
    doc->root = root;
    return true;
}

void sb_json_doc_free(sb_json_doc *doc)
{
    struct sb_json_block *block = doc->blocks;
    while (block != NULL) {
        struct sb_json_block *next = block->next;
        sb_free(block);
        block = next;
    }
    doc->blocks = NULL;
    doc->root = NULL;
}

/* ---- describing places --------------------------------------------------- */

void sb_json_position(const sb_json_doc *doc, const char *at, size_t *line, size_t *column)
{
    const char *start = doc->text.ptr;
    *line = 1;
    for (const char *p = start; p < at; p++) {
        if (*p != '\n') continue;
        ++*line;
        start = p + 1;
    }
    *column = (size_t)(at - start) + 1;
}

size_t sb_json_cut(sb_span text, size_t max)
{
    if (text.len <= max) return text.len;
    while (max > 0 && ((unsigned char)text.ptr[max] & 0xc0) == 0x80) max--;
    return max;
}

static bool is_plain_key(sb_span key)
{
    for (size_t i = 0; i < key.len; i++) {
        char c = key.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!plain) return false;
    }
    return key.len > 0 && key.len <= KEY_SHOWN;
}

/* One step of a path. A key that isn't a plain word is shown as written, so that it can't break the message. */
static int format_step(const sb_json_node *node, char *out, size_t cap)
{
    sb_span raw = node->raw_key;
    if (raw.ptr == NULL) return snprintf(out, cap, "[%zu]", node->index);
    if (is_plain_key(node->key)) {
        return snprintf(out, cap, "%s%.*s", node->parent->parent ? "." : "", (int)node->key.len, node->key.ptr);
    }
    size_t len = sb_json_cut(raw, KEY_SHOWN);
    return snprintf(out, cap, "[%.*s%s]", (int)len, raw.ptr, len < raw.len ? "..." : "");
}

void sb_json_path(const sb_json_node *node, char *out, size_t cap)
{
    const sb_json_node *steps[SB_JSON_DEPTH_MAX];
    size_t count = 0;
    for (; node->parent != NULL; node = node->parent) steps[count++] = node;

    size_t len = 0;
    out[0] = '\0';
    while (count > 0 && len < cap) {
        int step = format_step(steps[--count], out + len, cap - len);
        len += step > 0 ? (size_t)step : 0;
    }
}
