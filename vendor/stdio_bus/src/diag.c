#include "diag.h"

void sb_diag_free(sb_diag *diag)
{
    sb_free(diag->line);
    sb_free(diag->tail);
    memset(diag, 0, sizeof *diag);
}

/* The ring starts small: most workers say little. */
static void grow_tail(sb_diag *diag, size_t want)
{
    size_t cap = diag->tail_cap ? diag->tail_cap : 1024;
    size_t oldest = (diag->tail_at + diag->tail_cap - diag->tail_len) % (diag->tail_cap ? diag->tail_cap : 1);
    char *bigger;
    while (cap < want && cap < SB_DIAG_TAIL_MAX) cap *= 2;
    if (cap == diag->tail_cap) return;
    bigger = sb_alloc(cap);
    if (bigger == NULL) return;
    for (size_t i = 0; i < diag->tail_len; i++) bigger[i] = diag->tail[(oldest + i) % diag->tail_cap];
    sb_free(diag->tail);
    diag->tail = bigger;
    diag->tail_cap = cap;
    diag->tail_at = diag->tail_len % cap;
}

void sb_diag_mark(sb_diag *diag)
{
    diag->fresh = 0;
}

static void remember(sb_diag *diag, sb_span bytes)
{
    if (diag->tail_len + bytes.len > diag->tail_cap) grow_tail(diag, diag->tail_len + bytes.len);
    if (diag->tail_cap == 0) return;
    diag->fresh = diag->fresh + bytes.len < diag->tail_cap ? diag->fresh + bytes.len : diag->tail_cap;
    if (bytes.len > diag->tail_cap) {
        bytes.ptr += bytes.len - diag->tail_cap;
        bytes.len = diag->tail_cap;
    }
    while (bytes.len > 0) {
        size_t room = diag->tail_cap - diag->tail_at;
        size_t part = bytes.len < room ? bytes.len : room;
        memcpy(diag->tail + diag->tail_at, bytes.ptr, part);
        diag->tail_at = (diag->tail_at + part) % diag->tail_cap;
        diag->tail_len = diag->tail_len + part < diag->tail_cap ? diag->tail_len + part : diag->tail_cap;
        bytes.ptr += part;
        bytes.len -= part;
    }
}

static void hold(sb_diag *diag, sb_span bytes)
{
    size_t room = SB_DIAG_LINE_MAX - diag->line_len;
    if (diag->line == NULL) diag->line = sb_alloc(SB_DIAG_LINE_MAX);
    if (diag->line == NULL) return;
    if (bytes.len > room) {
        bytes.len = room;
        diag->cut = true;
    }
    memcpy(diag->line + diag->line_len, bytes.ptr, bytes.len);
    diag->line_len += bytes.len;
}

static void emit_line(sb_diag *diag, sb_span line, sb_diag_fn emit, void *owner)
{
    if (diag->line_len > 0) {
        if (!diag->cut) hold(diag, line);
        line.ptr = diag->line;
        line.len = diag->line_len;
    }
    if (line.len > SB_DIAG_LINE_MAX) line.len = SB_DIAG_LINE_MAX;
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') line.len--;
    if (line.len > 0) emit(owner, line);
    diag->line_len = 0;
    diag->cut = false;
}

void sb_diag_feed(sb_diag *diag, sb_span bytes, sb_diag_fn emit, void *owner)
{
    remember(diag, bytes);
    while (bytes.len > 0) {
        const char *newline = memchr(bytes.ptr, '\n', bytes.len);
        sb_span line = {bytes.ptr, newline ? (size_t)(newline - bytes.ptr) : bytes.len};
        if (newline == NULL) {
            if (!diag->cut) hold(diag, line);
            break;
        }
        emit_line(diag, line, emit, owner);
        bytes.ptr += line.len + 1;
        bytes.len -= line.len + 1;
    }
    /* Between lines nothing is held. */
    if (diag->line_len == 0) {
        sb_free(diag->line);
        diag->line = NULL;
    }
}

void sb_diag_finish(sb_diag *diag, sb_diag_fn emit, void *owner)
{
    sb_span nothing = {"", 0};
    if (diag->line_len > 0) emit_line(diag, nothing, emit, owner);
    sb_free(diag->line);
    diag->line = NULL;
}

size_t sb_diag_tail(const sb_diag *diag, bool fresh, char *out, size_t cap)
{
    size_t len = fresh ? diag->fresh : diag->tail_len, start, skipped = 0;
    bool whole = true;
    if (cap == 0) return 0;
    if (len > cap - 1) {
        skipped = len - (cap - 1);
        len = cap - 1;
    }
    if (len > 0) {
        start = (diag->tail_at + diag->tail_cap - len) % diag->tail_cap;
        /* A line that began before what is copied, or before what is kept, is left out. */
        if (skipped > 0) {
            whole = diag->tail[(start + diag->tail_cap - 1) % diag->tail_cap] == '\n';
        } else if (len == diag->tail_len) {
            whole = len < diag->tail_cap;
        }
        for (size_t i = 0; i < len; i++) out[i] = diag->tail[(start + i) % diag->tail_cap];
    }
    if (!whole) {
        const char *newline = memchr(out, '\n', len);
        if (newline != NULL) {
            size_t drop = (size_t)(newline - out) + 1;
            memmove(out, out + drop, len - drop);
            len -= drop;
        }
    }
    out[len] = '\0';
    return len;
}
