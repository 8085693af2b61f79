/*
 * splice.h - byte edits on a frame: replace a value, drop members. Pure: it
 * computes a list of edits, and copies a frame through such a list.
 */
#ifndef SB_SPLICE_H
#define SB_SPLICE_H

#include "base.h"
#include "envelope.h"

/* At `at`, `drop` bytes of the frame give way to `insert`. */
typedef struct {
    size_t at;
    size_t drop;
    sb_span insert;
} sb_edit;

#define SB_EDITS_MAX 16

/* Edits in ascending order that do not overlap. */
typedef struct {
    sb_edit edit[SB_EDITS_MAX];
    size_t count;
} sb_edits;

/* Replaces the value of `member` (which must be present) by `token`. Needs room in `edits`. */
void sb_splice_replace(sb_edits *edits, sb_member member, sb_span token);

/* Replaces a value found anywhere in the frame. Needs room in `edits`. */
void sb_splice_replace_at(sb_edits *edits, sb_span frame, sb_span value, sb_span token);

/*
 * Puts the value of the root member "_ext", which must be present, into
 * params._meta["stdio_bus/ext"], making what is missing of that; where params
 * or _meta are no objects it goes nowhere. The frame must have a method, so
 * that a member is left behind what is inserted. To be called before
 * sb_splice_drop_routing, which drops the member itself. Needs room for three.
 */
void sb_splice_move_ext(sb_edits *edits, sb_span frame, const sb_envelope *envelope);

/*
 * Drops the root members named by `session`, `pool` and (if `all`) `agent` and
 * `ext` of the envelope, with the commas that belong to them. Where the envelope
 * says `repeated`, walks the frame again and drops every occurrence. Returns
 * false, with `edits` unchanged, if more than SB_EDITS_MAX edits would be needed.
 */
bool sb_splice_drop_routing(sb_edits *edits, sb_span frame, const sb_envelope *envelope, bool all);

/* Where a byte of the frame that no edit drops stands after the edits. */
size_t sb_splice_moved(const sb_edits *edits, size_t at);

/* Length of the frame after the edits. */
size_t sb_splice_length(const sb_edits *edits, sb_span frame);

/* Writes the edited frame to `out` (sb_splice_length bytes). */
void sb_splice_copy(const sb_edits *edits, sb_span frame, char *out);

#endif
