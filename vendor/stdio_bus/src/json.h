/*
 * json.h - a strict JSON reader that builds a tree, for the configuration.
 * Messages never come through here: they are scanned in place (scan.h).
 *
 * RFC 8259, with one addition: a comma may follow the last element of an
 * array or object. Refused beyond the grammar: a key used twice in one
 * object, lone surrogates, \u0000, strings that are not UTF-8, nesting deeper
 * than SB_JSON_DEPTH_MAX, and more values than SB_JSON_VALUES_MAX.
 */
#ifndef SB_JSON_H
#define SB_JSON_H

#include "base.h"

#define SB_JSON_DEPTH_MAX 64
#define SB_JSON_VALUES_MAX (1u << 20) /* a value takes up to 160 bytes in the tree, and as few as two in the text */
#define SB_JSON_ERROR_MAX 256

typedef enum {
    SB_JSON_NULL,
    SB_JSON_FALSE,
    SB_JSON_TRUE,
    SB_JSON_NUMBER,
    SB_JSON_STRING,
    SB_JSON_ARRAY,
    SB_JSON_OBJECT
} sb_json_type;

typedef struct sb_json_node {
    sb_json_type type;
    sb_span raw;     /* the value as written; raw.ptr is its place in the text */
    sb_span string;  /* the decoded string; not NUL-terminated, contains no NUL */
    sb_span key;     /* decoded; absent unless the parent is an object */
    sb_span raw_key; /* as written, quotes included */
    size_t index;    /* position in the parent */
    size_t count;    /* of children */
    struct sb_json_node *parent;
    struct sb_json_node *next;
    struct sb_json_node *first;
    struct sb_json_node *members;   /* object: root of the key index */
    struct sb_json_node *branch[2]; /* member: its place in that index */
} sb_json_node;

/* A parsed text. Nodes point into the text, which must outlive the document. */
typedef struct {
    sb_span text;              /* without a byte order mark */
    sb_json_node *root;        /* NULL after a failure */
    struct sb_json_block *blocks;
    const char *error_at;      /* where in the text the failure is; NULL when memory ran out */
    char error[SB_JSON_ERROR_MAX];
} sb_json_doc;

/* Returns whether `text` is one JSON value; if not, error and error_at say why. Free the document either way. */
bool sb_json_parse(sb_json_doc *doc, sb_span text);

void sb_json_doc_free(sb_json_doc *doc);

/* The member of `object` with this key, or NULL. */
sb_json_node *sb_json_member(const sb_json_node *object, sb_span key);

/* Line and column of a place in the text, both from 1; the column counts bytes. */
void sb_json_position(const sb_json_doc *doc, const char *at, size_t *line, size_t *column);

/* Writes the way from the root, such as `pools[0].env.HOME`, NUL-terminated and cut to `cap` bytes. */
void sb_json_path(const sb_json_node *node, char *out, size_t cap);

/* Length of the longest prefix of `text` within `max` bytes that doesn't cut a UTF-8 character. */
size_t sb_json_cut(sb_span text, size_t max);

#endif
