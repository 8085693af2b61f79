#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "fd.h"
#include "json.h"

/* Longest piece of a value or a file name that a message shows. */
#define VALUE_SHOWN 64
#define FILE_SHOWN 256
#define PATH_MAX_SHOWN 200

#define WARNINGS_MAX 100

/* Pool ids are compared pairwise; this keeps that well under a second. */
#define POOLS_MAX 10000

/* Seconds are turned into milliseconds, which then still fit a uint32_t. */
#define SECONDS_MAX (UINT32_MAX / 1000)

/* Indices of sessions, requests and clients fit an int32_t. */
#define COUNT_MAX ((uint64_t)1 << 30)

#define KIB ((uint64_t)1 << 10)
#define GIB ((uint64_t)1 << 30)
#if SIZE_MAX > UINT32_MAX
#define QUEUE_MAX (16 * GIB)
#else
#define QUEUE_MAX GIB
#endif

typedef struct {
    sb_json_doc doc;
    sb_config *config;
    char *error;
} reader;

/*
 * One key of an object. `read` stores the value at `offset` in the structure
 * the object stands for; it is not called for an absent key, which leaves
 * `preset` in numbers, words and booleans and NULL in strings.
 */
typedef struct key_spec {
    const char *name;
    bool (*read)(reader *r, const struct key_spec *spec, const sb_json_node *node, void *base);
    size_t offset;
    size_t width; /* of a number; 0 if there is nothing to preset */
    uint64_t preset, min, max;
    const char *words; /* "first|second": stored as min, min + 1, ... */
    const struct key_spec *keys;
    bool required;
} key_spec;

#define AT(type, member) .name = #member, .offset = offsetof(type, member)
#define WIDTH(type, member) .width = sizeof(((type *)NULL)->member)
#define NUMBER(type, member, initial, least, most) \
    {AT(type, member), WIDTH(type, member), .read = read_number, .preset = (initial), .min = (least), .max = (most)}
#define WORD(type, member, key, initial, list, first) \
    {.name = (key), .offset = offsetof(type, member), WIDTH(type, member), .read = read_word, \
     .preset = (initial), .words = (list), .min = (first)}
#define BOOL(type, member, initial) {AT(type, member), WIDTH(type, member), .read = read_bool, .preset = (initial)}

/* ---- errors and warnings ------------------------------------------------- */

SB_PRINTF(2, 3)
static void fail_plain(char *error, const char *format, ...)
{
    va_list args;
    int len = snprintf(error, SB_CONFIG_ERROR_MAX, "config: ");
    va_start(args, format);
    vsnprintf(error + len, (size_t)(SB_CONFIG_ERROR_MAX - len), format, args);
    va_end(args);
}

static bool fail_memory(reader *r)
{
    fail_plain(r->error, "out of memory");
    return false;
}

/* Writes "config: line L, column C: PATH: "; returns its length. */
static size_t format_place(reader *r, const char *at, const sb_json_node *node, char *out, size_t cap)
{
    char path[PATH_MAX_SHOWN];
    size_t line, column;
    sb_json_position(&r->doc, at, &line, &column);
    sb_json_path(node, path, sizeof(path));
    int len = snprintf(out, cap, "config: line %zu, column %zu: %s%s", line, column, path, path[0] ? ": " : "");
    return len < 0 ? 0 : (size_t)len < cap ? (size_t)len : cap - 1;
}

SB_PRINTF(4, 5)
static bool fail_at(reader *r, const char *at, const sb_json_node *node, const char *format, ...)
{
    va_list args;
    size_t len = format_place(r, at, node, r->error, SB_CONFIG_ERROR_MAX);
    va_start(args, format);
    vsnprintf(r->error + len, SB_CONFIG_ERROR_MAX - len, format, args);
    va_end(args);
    return false;
}

/* "must be WANTED, not VALUE" */
static bool fail_value(reader *r, const sb_json_node *node, const char *wanted)
{
    sb_span shown = node->raw;
    if (node->type == SB_JSON_ARRAY) shown = sb_span_of("an array");
    if (node->type == SB_JSON_OBJECT) shown = sb_span_of("an object");
    size_t len = sb_json_cut(shown, VALUE_SHOWN);
    return fail_at(r, node->raw.ptr, node, "must be %s, not %.*s%s", wanted, (int)len, shown.ptr,
                   len < shown.len ? "..." : "");
}

/* Appends to a NULL-terminated array; takes over `text`, also when it fails. */
static bool append_string(reader *r, char ***strings, size_t *count, char *text)
{
    bool full = (*count & (*count + 1)) == 0; /* room grows to one less than the next power of two */
    char **grown = *strings;
    if (text != NULL && full) grown = sb_realloc(*strings, 2 * (*count + 1) * sizeof(*grown));
    if (text == NULL || grown == NULL) {
        sb_free(text);
        return fail_memory(r);
    }
    grown[(*count)++] = text;
    grown[*count] = NULL;
    *strings = grown;
    return true;
}

static bool warn_unknown(reader *r, const sb_json_node *node)
{
    static const char what[] = "unknown key, ignored";
    static const char more[] = "config: further unknown keys are ignored without a warning";
    char text[SB_CONFIG_ERROR_MAX];
    sb_config *config = r->config;

    if (config->warning_count > WARNINGS_MAX) return true;
    if (config->warning_count == WARNINGS_MAX) {
        snprintf(text, sizeof(text), "%s", more);
    } else {
        size_t len = format_place(r, node->raw_key.ptr, node, text, sizeof(text));
        snprintf(text + len, sizeof(text) - len, "%s", what);
    }
    return append_string(r, &config->warnings, &config->warning_count, sb_strndup(text, strlen(text)));
}

/* ---- objects by table ---------------------------------------------------- */

/* Stores into a bool, an enum, a uint32_t or a size_t. */
static void store(void *at, size_t width, uint64_t value)
{
    bool flag = value != 0;
    uint32_t small = (uint32_t)value;
    if (width == sizeof(flag)) memcpy(at, &flag, width);
    else if (width == sizeof(small)) memcpy(at, &small, width);
    else memcpy(at, &value, width);
}

static const key_spec *find_key(const key_spec *keys, sb_span key)
{
    while (keys->name != NULL && !sb_span_is(key, keys->name)) keys++;
    return keys->name ? keys : NULL;
}

static void preset_keys(const key_spec *keys, void *base)
{
    for (const key_spec *key = keys; key->name != NULL; key++) {
        if (key->width > 0) store((char *)base + key->offset, key->width, key->preset);
    }
}

/* Fills `base` from an object, in the table's order: `default_pool` needs the pools. */
static bool read_keys(reader *r, const key_spec *keys, const sb_json_node *object, void *base)
{
    if (object->type != SB_JSON_OBJECT) return fail_value(r, object, "an object");
    for (const key_spec *key = keys; key->name != NULL; key++) {
        const sb_json_node *node = sb_json_member(object, sb_span_of(key->name));
        if (node == NULL && key->required) {
            return fail_at(r, object->raw.ptr, object, "the key \"%s\" is missing", key->name);
        }
        if (node != NULL && !key->read(r, key, node, base)) return false;
    }
    for (const sb_json_node *node = object->first; node != NULL; node = node->next) {
        if (find_key(keys, node->key) == NULL && !warn_unknown(r, node)) return false;
    }
    return true;
}

static bool read_object(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    return read_keys(r, spec->keys, node, (char *)base + spec->offset);
}

/* ---- values -------------------------------------------------------------- */

/* The number as an integer, or UINT64_MAX, which no range contains. */
static uint64_t whole_number(const sb_json_node *node)
{
    uint64_t value = 0;
    if (node->type != SB_JSON_NUMBER) return UINT64_MAX;
    for (size_t i = 0; i < node->raw.len; i++) {
        char c = node->raw.ptr[i];
        if (c < '0' || c > '9' || value > UINT64_MAX / 10 - 1) return UINT64_MAX;
        value = value * 10 + (uint64_t)(c - '0');
    }
    return value;
}

static bool read_number(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    uint64_t value = whole_number(node);
    if (value < spec->min || value > spec->max) {
        char wanted[96];
        snprintf(wanted, sizeof(wanted), "a whole number from %llu to %llu", (unsigned long long)spec->min,
                 (unsigned long long)spec->max);
        return fail_value(r, node, wanted);
    }
    store((char *)base + spec->offset, spec->width, value);
    return true;
}

static bool read_bool(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    if (node->type != SB_JSON_TRUE && node->type != SB_JSON_FALSE) return fail_value(r, node, "true or false");
    store((char *)base + spec->offset, spec->width, node->type == SB_JSON_TRUE);
    return true;
}

/* `"first", "second" or "third"` from "first|second|third". */
static void format_words(const char *words, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = '\0';
    while (words != NULL && len < cap) {
        const char *bar = strchr(words, '|');
        const char *before = len == 0 ? "" : bar ? ", " : " or ";
        size_t word = bar ? (size_t)(bar - words) : strlen(words);
        int step = snprintf(out + len, cap - len, "%s\"%.*s\"", before, (int)word, words);
        len += step > 0 ? (size_t)step : 0;
        words = bar ? bar + 1 : NULL;
    }
}

/* Position of `word` in "first|second|third", or SIZE_MAX. */
static size_t find_word(const char *words, sb_span word)
{
    for (size_t i = 0; words != NULL; i++) {
        const char *bar = strchr(words, '|');
        sb_span candidate = {words, bar ? (size_t)(bar - words) : strlen(words)};
        if (sb_span_eq(word, candidate)) return i;
        words = bar ? bar + 1 : NULL;
    }
    return SIZE_MAX;
}

static bool read_word(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    size_t value = node->type == SB_JSON_STRING ? find_word(spec->words, node->string) : SIZE_MAX;
    if (value == SIZE_MAX) {
        char wanted[96];
        format_words(spec->words, wanted, sizeof(wanted));
        return fail_value(r, node, wanted);
    }
    if (spec->width > 0) store((char *)base + spec->offset, spec->width, spec->min + value);
    return true;
}

static bool read_text(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    if (node->type != SB_JSON_STRING || node->string.len == 0) return fail_value(r, node, "a non-empty string");
    char *text = sb_strndup(node->string.ptr, node->string.len);
    if (text == NULL) return fail_memory(r);
    *(char **)(void *)((char *)base + spec->offset) = text;
    return true;
}

/* ---- pools --------------------------------------------------------------- */

static bool read_args(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    (void)spec;
    sb_pool_config *pool = base;
    if (node->type != SB_JSON_ARRAY) return fail_value(r, node, "an array of strings");
    for (const sb_json_node *arg = node->first; arg != NULL; arg = arg->next) {
        if (arg->type != SB_JSON_STRING) return fail_value(r, arg, "a string");
        char *copy = sb_strndup(arg->string.ptr, arg->string.len);
        if (!append_string(r, &pool->args, &pool->arg_count, copy)) return false;
    }
    return true;
}

/* "NAME=value" */
static char *join_env(sb_span name, sb_span value)
{
    char *text = sb_alloc(name.len + 1 + value.len + 1);
    if (text == NULL) return NULL;
    memcpy(text, name.ptr, name.len);
    text[name.len] = '=';
    memcpy(text + name.len + 1, value.ptr, value.len);
    text[name.len + 1 + value.len] = '\0';
    return text;
}

static bool read_env(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    (void)spec;
    sb_pool_config *pool = base;
    if (node->type != SB_JSON_OBJECT) return fail_value(r, node, "an object of strings");
    for (const sb_json_node *var = node->first; var != NULL; var = var->next) {
        if (var->key.len == 0) return fail_at(r, var->raw_key.ptr, var, "the name must not be empty");
        if (memchr(var->key.ptr, '=', var->key.len) != NULL) {
            return fail_at(r, var->raw_key.ptr, var, "the name must not contain '='");
        }
        if (var->type != SB_JSON_STRING) return fail_value(r, var, "a string");
        if (!append_string(r, &pool->env, &pool->env_count, join_env(var->key, var->string))) return false;
    }
    return true;
}

/*
 * Keeps an object as JSON text for a worker: on one line, and without the
 * trailing commas that only this reader accepts.
 */
static bool read_json(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    if (node->type != SB_JSON_OBJECT) return fail_value(r, node, "an object");
    char *text = sb_alloc(node->raw.len + 1);
    if (text == NULL) return fail_memory(r);

    size_t len = 0;
    bool quoted = false;
    for (size_t i = 0; i < node->raw.len; i++) {
        char c = node->raw.ptr[i];
        if (c == '"') quoted = !quoted;
        if (!quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) continue;
        if (!quoted && (c == '}' || c == ']') && text[len - 1] == ',') len--;
        text[len++] = c;
        if (quoted && c == '\\') text[len++] = node->raw.ptr[++i];
    }
    text[len] = '\0';
    *(char **)(void *)((char *)base + spec->offset) = text;
    return true;
}

static const key_spec pool_keys[] = {
    {AT(sb_pool_config, id), .read = read_text, .required = true},
    {AT(sb_pool_config, command), .read = read_text},
    {.name = "args", .read = read_args},
    NUMBER(sb_pool_config, instances, 1, 0, 65536),
    {.name = "env", .read = read_env},
    BOOL(sb_pool_config, inherit_env, true),
    {AT(sb_pool_config, cwd), .read = read_text},
    WORD(sb_pool_config, protocol, "protocol", SB_PROTOCOL_AUTO, "auto|ndjson|mcp|acp", SB_PROTOCOL_AUTO),
    WORD(sb_pool_config, restart, "restart", SB_RESTART_ALWAYS, "always|on-failure|never", SB_RESTART_ALWAYS),
    WORD(sb_pool_config, stderr_mode, "stderr", SB_STDERR_DEFAULT, "log|inherit|null", SB_STDERR_LOG),
    {AT(sb_pool_config, initialize), .read = read_json},
    NUMBER(sb_pool_config, init_timeout_sec, 30, 1, SECONDS_MAX),
    WORD(sb_pool_config, exclusive, "clients", false, "shared|exclusive", false),
    {.name = NULL},
};

static size_t find_pool(const sb_config *config, sb_span id, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (sb_span_is(id, config->pools[i].id)) return i;
    }
    return SIZE_MAX;
}

static bool check_pool_id(reader *r, const sb_json_node *pools, const sb_json_node *pool)
{
    const sb_json_node *id = sb_json_member(pool, sb_span_of("id"));
    size_t earlier = find_pool(r->config, id->string, pool->index);
    if (earlier == SIZE_MAX) return true;

    const sb_json_node *other = pools->first;
    while (other->index < earlier) other = other->next;
    other = sb_json_member(other, sb_span_of("id"));
    size_t line, column;
    sb_json_position(&r->doc, other->raw.ptr, &line, &column);
    size_t len = sb_json_cut(id->raw, VALUE_SHOWN);
    return fail_at(r, id->raw.ptr, id, "must be unique, but %.*s%s is the id of pools[%zu] at line %zu, column %zu too",
                   (int)len, id->raw.ptr, len < id->raw.len ? "..." : "", earlier, line, column);
}

/* A pool without processes of its own has workers only that the host registers. */
static bool check_processes(reader *r, const sb_json_node *node, const sb_pool_config *pool)
{
    if (pool->command == NULL && pool->instances > 0) {
        return fail_at(r, node->raw.ptr, node, "the key \"command\" is missing");
    }
    if (pool->exclusive && pool->instances == 0) {
        node = sb_json_member(node, sb_span_of("instances"));
        return fail_at(r, node->raw.ptr, node, "must be at least 1 where \"clients\" is \"exclusive\"");
    }
    return true;
}

static bool read_pools(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    (void)spec;
    sb_config *config = base;
    if (node->type != SB_JSON_ARRAY) return fail_value(r, node, "an array of pools");
    if (node->count == 0) return fail_at(r, node->raw.ptr, node, "must contain at least one pool");
    if (node->count > POOLS_MAX) return fail_at(r, node->raw.ptr, node, "must not contain over %d pools", POOLS_MAX);

    config->pools = sb_calloc(node->count, sizeof(*config->pools));
    if (config->pools == NULL) return fail_memory(r);
    for (const sb_json_node *item = node->first; item != NULL; item = item->next) {
        sb_pool_config *pool = &config->pools[config->pool_count++];
        preset_keys(pool_keys, pool);
        if (!read_keys(r, pool_keys, item, pool) || !check_processes(r, item, pool) || !check_pool_id(r, node, item)) {
            return false;
        }
    }
    return true;
}

/* ---- the rest ------------------------------------------------------------ */

static const key_spec limit_keys[] = {
    NUMBER(sb_limits, max_input_buffer, 10485760, KIB, GIB),
    NUMBER(sb_limits, max_output_queue, 41943040, KIB, QUEUE_MAX),
    NUMBER(sb_limits, max_restarts, 5, 0, UINT32_MAX),
    NUMBER(sb_limits, restart_window_sec, 60, 1, SECONDS_MAX),
    NUMBER(sb_limits, drain_timeout_sec, 30, 0, SECONDS_MAX),
    NUMBER(sb_limits, backpressure_timeout_sec, 60, 1, SECONDS_MAX),
    NUMBER(sb_limits, stall_timeout_sec, 0, 0, SECONDS_MAX),
    NUMBER(sb_limits, max_sessions, 1048576, 1, COUNT_MAX),
    NUMBER(sb_limits, session_idle_sec, 0, 0, SECONDS_MAX),
    NUMBER(sb_limits, max_pending, 1048576, 1, COUNT_MAX),
    NUMBER(sb_limits, max_clients, 65536, 1, COUNT_MAX),
    {.name = NULL},
};

static bool read_mode(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    if (node->type == SB_JSON_STRING && find_word("unix|tcp", node->string) != SIZE_MAX) {
        return fail_at(r, node->raw.ptr, node,
                       "%.*s is not set here: open a listener with --%.*s, or with the listener option of the API",
                       (int)node->raw.len, node->raw.ptr, (int)node->string.len, node->string.ptr);
    }
    return read_word(r, spec, node, base);
}

static bool skip_object(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    (void)spec;
    (void)base;
    return node->type == SB_JSON_OBJECT || fail_value(r, node, "an object");
}

/* Besides `framing`, what files written for the incumbent may contain: accepted where it changes nothing. */
static const key_spec transport_keys[] = {
    WORD(sb_config, framing, "framing", SB_FRAMING_NDJSON, "ndjson|length", SB_FRAMING_NDJSON),
    {.name = "mode", .read = read_mode, .words = "stdio|embedded"},
    {.name = "protocol", .read = read_word, .words = "json"},
    {.name = "options", .read = skip_object},
    {.name = NULL},
};

static bool read_default_pool(reader *r, const key_spec *spec, const sb_json_node *node, void *base)
{
    (void)spec;
    sb_config *config = base;
    bool text = node->type == SB_JSON_STRING;
    config->default_pool = text ? find_pool(config, node->string, config->pool_count) : SIZE_MAX;
    return config->default_pool != SIZE_MAX || fail_value(r, node, "the id of one of the pools");
}

static const key_spec root_keys[] = {
    {.name = "pools", .read = read_pools, .required = true},
    {.name = "default_pool", .read = read_default_pool},
    {AT(sb_config, limits), .read = read_object, .keys = limit_keys},
    {.name = "transport", .read = read_object, .keys = transport_keys},
    {.name = NULL},
};

static void preset_config(sb_config *config)
{
    memset(config, 0, sizeof(*config));
    config->default_pool = SIZE_MAX;
    preset_keys(limit_keys, &config->limits);
    preset_keys(transport_keys, config);
}

static bool read_config(reader *r, sb_span text)
{
    if (sb_json_parse(&r->doc, text)) return read_keys(r, root_keys, r->doc.root, r->config);
    if (r->doc.error_at == NULL) return fail_memory(r);
    size_t line, column;
    sb_json_position(&r->doc, r->doc.error_at, &line, &column);
    fail_plain(r->error, "line %zu, column %zu: %s", line, column, r->doc.error);
    return false;
}

int sb_config_parse(sb_config *config, sb_span text, char error[SB_CONFIG_ERROR_MAX])
{
    reader r = {.config = config, .error = error};
    preset_config(config);
    error[0] = '\0';
    if (text.len > SB_CONFIG_MAX) {
        fail_plain(error, "the text is longer than %u MiB", SB_CONFIG_MAX >> 20);
        return STDIO_BUS_ERR_CONFIG;
    }
    bool done = read_config(&r, text);
    sb_json_doc_free(&r.doc);
    if (!done) sb_config_free(config);
    return done ? STDIO_BUS_OK : STDIO_BUS_ERR_CONFIG;
}

static void free_strings(char **strings)
{
    for (char **text = strings; text != NULL && *text != NULL; text++) sb_free(*text);
    sb_free(strings);
}

void sb_pool_config_free(sb_pool_config *config)
{
    sb_free(config->id);
    sb_free(config->command);
    free_strings(config->args);
    free_strings(config->env);
    sb_free(config->cwd);
    sb_free(config->initialize);
    memset(config, 0, sizeof *config);
}

static bool equal_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool equal_texts(char *const *a, char *const *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(a[i], b[i]) != 0) return false;
    }
    return true;
}

bool sb_pool_config_equal(const sb_pool_config *a, const sb_pool_config *b)
{
    return equal_text(a->id, b->id) && equal_text(a->command, b->command) && equal_text(a->cwd, b->cwd) &&
           equal_text(a->initialize, b->initialize) && a->arg_count == b->arg_count && a->env_count == b->env_count &&
           equal_texts(a->args, b->args, a->arg_count) && equal_texts(a->env, b->env, a->env_count) &&
           a->instances == b->instances && a->inherit_env == b->inherit_env && a->protocol == b->protocol &&
           a->restart == b->restart && a->stderr_mode == b->stderr_mode &&
           a->init_timeout_sec == b->init_timeout_sec && a->exclusive == b->exclusive;
}

void sb_config_free(sb_config *config)
{
    for (size_t i = 0; i < config->pool_count; i++) sb_pool_config_free(&config->pools[i]);
    sb_free(config->pools);
    free_strings(config->warnings);
    memset(config, 0, sizeof(*config));
    config->default_pool = SIZE_MAX;
}

/* ---- from a file --------------------------------------------------------- */

static bool fail_file(char *error, const char *path, const char *reason)
{
    sb_span shown = sb_span_of(path);
    size_t len = sb_json_cut(shown, FILE_SHOWN);
    fail_plain(error, "cannot read \"%.*s%s\": %s", (int)len, path, len < shown.len ? "..." : "", reason);
    return false;
}

/* Reads to the end: the size of a pipe isn't known beforehand. */
static bool read_all(int fd, const char *path, char **text, size_t *len, char *error)
{
    size_t cap = 0;
    for (;;) {
        if (*len == cap) {
            cap = cap ? cap * 2 : 16 * 1024;
            char *grown = sb_realloc(*text, cap);
            if (grown == NULL) {
                fail_plain(error, "out of memory");
                return false;
            }
            *text = grown;
        }
        ssize_t got = read(fd, *text + *len, cap - *len);
        if (got == 0) return true;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_file(error, path, strerror(errno));
        *len += (size_t)got;
        if (*len > SB_CONFIG_MAX) return fail_file(error, path, "longer than 64 MiB");
    }
}

int sb_config_load(sb_config *config, const char *path, char error[SB_CONFIG_ERROR_MAX])
{
    char *text = NULL;
    size_t len = 0;
    int status = STDIO_BUS_ERR_CONFIG;

    preset_config(config);
    int fd = sb_fd_clear(open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (fd < 0) {
        fail_file(error, path, strerror(errno));
        return status;
    }
    if (read_all(fd, path, &text, &len, error)) {
        status = sb_config_parse(config, (sb_span){text, len}, error);
    }
    close(fd);
    sb_free(text);
    return status;
}
