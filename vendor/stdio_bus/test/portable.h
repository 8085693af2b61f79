/*
 * portable.h - scan.c a second time, under other names and without SIMD, so
 * that a test can compare the two. Include it before any other header of src/.
 */
#ifndef SB_TEST_PORTABLE_H
#define SB_TEST_PORTABLE_H

#define SB_NO_SIMD
#define sb_json_skip portable_skip
#define sb_json_space portable_space
#define sb_json_walk_init portable_walk_init
#define sb_json_walk_next portable_walk_next
#define sb_json_find portable_find
#define sb_json_string_is portable_string_is
#define sb_json_decode portable_decode

#include "../src/scan.c"

#undef sb_json_skip
#undef sb_json_space
#undef sb_json_walk_init
#undef sb_json_walk_next
#undef sb_json_find
#undef sb_json_string_is
#undef sb_json_decode

const char *sb_json_skip(const char *p, const char *end);
const char *sb_json_space(const char *p, const char *end);
void sb_json_walk_init(sb_json_walk *walk, sb_span object);
sb_walk_result sb_json_walk_next(sb_json_walk *walk, sb_span *key, sb_span *value);
sb_span sb_json_find(sb_span object, const char *key);
bool sb_json_string_is(sb_span token, const char *text);
size_t sb_json_decode(sb_span token, char *out);

#endif
