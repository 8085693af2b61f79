#include "splice.h"

#include "scan.h"

/* Keeps the list in ascending order. */
static void insert_edit(sb_edits *edits, sb_edit edit)
{
    if (edits->count == SB_EDITS_MAX) return;
    size_t i = edits->count++;
    for (; i > 0 && edits->edit[i - 1].at > edit.at; i--) edits->edit[i] = edits->edit[i - 1];
    edits->edit[i] = edit;
}

void sb_splice_replace(sb_edits *edits, sb_member member, sb_span token)
{
    sb_edit edit = {member.value, member.end - member.value, token};
    insert_edit(edits, edit);
}

void sb_splice_replace_at(sb_edits *edits, sb_span frame, sb_span value, sb_span token)
{
    sb_edit edit = {(size_t)(value.ptr - frame.ptr), value.len, token};
    insert_edit(edits, edit);
}

static void insert_at(sb_edits *edits, size_t at, sb_span text)
{
    sb_edit edit = {at, 0, text};
    insert_edit(edits, edit);
}

void sb_splice_move_ext(sb_edits *edits, sb_span frame, const sb_envelope *envelope)
{
    static const char *const before[] = {"\"params\":{\"_meta\":{\"stdio_bus/ext\":", "\"_meta\":{\"stdio_bus/ext\":",
                                         "\"stdio_bus/ext\":"};
    static const char *const after[] = {"}},", "},", ","}; /* without the comma in an empty object */
    sb_span params = sb_member_value(frame, envelope->params), meta = {NULL, 0}, object = frame;
    const char *inside;
    size_t at;
    sb_span end;
    int depth = 0;
    if (params.ptr != NULL && params.ptr[0] == '{') meta = sb_json_find(params, "_meta");
    if (params.ptr != NULL) object = params, depth = 1;
    if (meta.ptr != NULL) object = meta, depth = 2;
    inside = sb_json_space(object.ptr, object.ptr + object.len);
    if (*inside != '{') return;
    at = (size_t)(inside + 1 - frame.ptr);
    insert_at(edits, at, sb_span_of(before[depth]));
    insert_at(edits, at, sb_member_value(frame, envelope->ext));
    end = sb_span_of(after[depth]);
    if (*sb_json_space(inside + 1, object.ptr + object.len) == '}') end.len--;
    insert_at(edits, at, end);
}

/*
 * Collects dropped members, in their order, into runs of neighbours. A run is
 * one edit: how commas are shared out between neighbours need not be decided.
 */
typedef struct {
    sb_span frame;
    size_t key, end;    /* of the open run */
    size_t first, last; /* indexes of its members */
    bool open;
    bool overflow;
    size_t count;
    sb_edit edit[SB_EDITS_MAX];
} runs;

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Turns the open run into an edit: with the comma after it, or, at the object's end, with the one before it. */
static void close_run(runs *r)
{
    if (!r->open) return;
    r->open = false;
    if (r->count == SB_EDITS_MAX) {
        r->overflow = true;
        return;
    }
    const char *text = r->frame.ptr, *stop = text + r->frame.len;
    const char *after = sb_json_space(text + r->end, stop);
    size_t at = r->key, end = r->end;
    if (after < stop && *after == ',') {
        end = (size_t)(sb_json_space(after + 1, stop) - text);
    } else if (r->first > 0) {
        do at--;
        while (is_space(text[at]));
    }
    r->edit[r->count].at = at;
    r->edit[r->count].drop = end - at;
    r->edit[r->count].insert.ptr = NULL;
    r->edit[r->count].insert.len = 0;
    r->count++;
}

static void add_member(runs *r, size_t key, size_t end, size_t index)
{
    if (!r->open || index != r->last + 1) {
        close_run(r);
        r->open = true;
        r->key = key;
        r->first = index;
    }
    r->end = end;
    r->last = index;
}

static bool is_routing_key(sb_span key, bool all)
{
    return sb_json_string_is(key, "sessionId") || sb_json_string_is(key, "pool") ||
           (all && (sb_json_string_is(key, "agentId") || sb_json_string_is(key, "_ext")));
}

static void add_every_occurrence(runs *r, bool all)
{
    const char *text = r->frame.ptr, *stop = text + r->frame.len;
    sb_span object = {sb_json_space(text, stop), 0}, key, value;
    object.len = (size_t)(stop - object.ptr);
    sb_json_walk walk;
    sb_json_walk_init(&walk, object);
    for (size_t index = 0; sb_json_walk_next(&walk, &key, &value) == SB_WALK_MEMBER; index++) {
        if (!is_routing_key(key, all)) continue;
        add_member(r, (size_t)(key.ptr - text), (size_t)(value.ptr + value.len - text), index);
    }
}

/* A member of the wrong type is absent to the router, yet no worker may see it: its end has to be found again. */
static size_t value_end(sb_span frame, const sb_member *member)
{
    if (member->end != 0) return member->end;
    return (size_t)(sb_json_skip(frame.ptr + member->value, frame.ptr + frame.len) - frame.ptr);
}

/* Adds the members the envelope names, in the order of the frame. */
static void add_named(runs *r, const sb_envelope *envelope, bool all)
{
    const sb_member *named[] = {&envelope->session, &envelope->pool, &envelope->agent, &envelope->ext};
    size_t left = all ? 4 : 2, last = 0;
    for (;;) {
        const sb_member *next = NULL;
        for (size_t i = 0; i < left; i++) {
            if (named[i]->key > last && (next == NULL || named[i]->key < next->key)) next = named[i];
        }
        if (next == NULL) return;
        last = next->key;
        add_member(r, next->key, value_end(r->frame, next), next->index);
    }
}

bool sb_splice_drop_routing(sb_edits *edits, sb_span frame, const sb_envelope *envelope, bool all)
{
    runs r;
    r.frame = frame;
    r.open = r.overflow = false;
    r.count = 0;
    if (envelope->repeated) {
        add_every_occurrence(&r, all);
    } else {
        add_named(&r, envelope, all);
    }
    close_run(&r);
    if (r.overflow || r.count > SB_EDITS_MAX - edits->count) return false;
    for (size_t i = 0; i < r.count; i++) insert_edit(edits, r.edit[i]);
    return true;
}

size_t sb_splice_moved(const sb_edits *edits, size_t at)
{
    size_t moved = at;
    for (size_t i = 0; i < edits->count && edits->edit[i].at < at; i++) {
        moved = moved - edits->edit[i].drop + edits->edit[i].insert.len;
    }
    return moved;
}

size_t sb_splice_length(const sb_edits *edits, sb_span frame)
{
    size_t length = frame.len;
    for (size_t i = 0; i < edits->count; i++) length = length - edits->edit[i].drop + edits->edit[i].insert.len;
    return length;
}

static char *append(char *out, const char *bytes, size_t len)
{
    if (len > 0) memcpy(out, bytes, len);
    return out + len;
}

void sb_splice_copy(const sb_edits *edits, sb_span frame, char *out)
{
    size_t from = 0;
    for (size_t i = 0; i < edits->count; i++) {
        const sb_edit *edit = &edits->edit[i];
        out = append(out, frame.ptr + from, edit->at - from);
        out = append(out, edit->insert.ptr, edit->insert.len);
        from = edit->at + edit->drop;
    }
    append(out, frame.ptr + from, frame.len - from);
}
