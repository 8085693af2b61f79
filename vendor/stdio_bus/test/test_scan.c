#include "portable.h"

#include <stdlib.h>

#include "bytes.h"

#define BROKEN SIZE_MAX

/* What sb_json_skip says, by the rules of scan.h but byte for byte: the length of the value, or BROKEN. */
static size_t reference_container(const char *text, size_t len)
{
    char closer[KINDS_MAX];
    size_t depth = 0;
    bool inside = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (inside) {
            if (c == '\\') i++;
            if (c == '"') inside = false;
        } else if (c == '"') {
            inside = true;
        } else if (c == '\\') {
            return BROKEN;
        } else if (c == '{' || c == '[') {
            if (depth < KINDS_MAX) closer[depth] = c == '{' ? '}' : ']';
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
            if (depth < KINDS_MAX && closer[depth] != c) return BROKEN;
            if (depth == 0) return i + 1;
        }
    }
    return BROKEN;
}

/* Skips the value at the start of `text`, which is placed before an unreadable page; both ways must agree. */
static size_t skip(const char *text, size_t len)
{
    const char *p = place(text, len);
    const char *end = sb_json_skip(p, p + len);
    CHECK(end == portable_skip(p, p + len));
    if (end == NULL) return BROKEN;
    CHECK(end > p && end <= p + len);
    return (size_t)(end - p);
}

static void check_skip(const char *text, size_t want)
{
    size_t got = skip(text, strlen(text));
    if (got == want) return;
    fprintf(stderr, "text: %s\ngot: %zd, want: %zd\n", text, (ssize_t)got, (ssize_t)want);
    sb_test_fail(__FILE__, __LINE__, "the value ends where it should");
}

static void check_whole(const char *text)
{
    check_skip(text, strlen(text));
}

static void every_kind_of_value_is_skipped_to_its_end(void)
{
    static const char *const values[] = {
        "\"\"",     "\"abc\"",    "\"a\\\"b\"",  "\"\\\\\"", "\"{[\"",        "\"\\u0041\"",        "true",
        "false",    "null",       "{}",          "[]",       "{\"a\":1}",     "[1,2,3]",            "[[],{}]",
        "{\"}\":[]}", "{\"\\\"\":1}", "[\"]\",\"[\"]", "[\"\\\\\"]", "{\"a\":{\"b\":[{\"c\":null}]}}", "[ \n\t\r ]",
    };
    for (size_t i = 0; i < SB_COUNT(values); i++) check_whole(values[i]);
}

static void what_follows_a_value_is_not_looked_at(void)
{
    check_skip("\"a\"x", 3);
    check_skip("truex", 4);
    check_skip("12,", 2);
    check_skip("01", 1);
    check_skip("{}}", 2);
    check_skip("[]\\", 2);
    check_skip("[1]\"", 3);
}

static void numbers_follow_the_grammar(void)
{
    static const char *const good[] = {
        "0", "-0", "1", "-1", "10", "1234567890123456789012345678901234567890", "0.5", "-0.0", "1.25", "1e5", "1E5",
        "1e+5", "1e-05", "0e0", "1.5E-10",
    };
    static const char *const bad[] = {
        "-", "+1", ".5", "1.", "1.e5", "-.5", "1e", "1e+", "1E-", "-a", "--1", "Infinity", "NaN", "-Infinity",
    };
    for (size_t i = 0; i < SB_COUNT(good); i++) check_whole(good[i]);
    for (size_t i = 0; i < SB_COUNT(bad); i++) check_skip(bad[i], BROKEN);
}

static void what_is_no_value_is_broken(void)
{
    static const char *const bad[] = {
        "", " 1", ",", ":", "}", "]", "\\", "x", "tru", "nul", "fals", "True", "'a'", "\xEF\xBB\xBF{}",
    };
    for (size_t i = 0; i < SB_COUNT(bad); i++) check_skip(bad[i], BROKEN);
    check_skip("\"a", BROKEN);
    check_skip("\"", BROKEN);
    check_skip("\"\\", BROKEN);
    check_skip("\"\\\"", BROKEN);
    check_skip("\"\\\\\\\"", BROKEN);
}

static void brackets_must_pair_up_with_their_kind(void)
{
    static const char *const bad[] = {
        "{", "[", "{]", "[}", "[{]}", "{[}]", "[[]", "{\"a\":[}", "[\"]", "{\"a", "{\"a\\\"}", "[\"\\\\\\\"]",
    };
    for (size_t i = 0; i < SB_COUNT(bad); i++) check_skip(bad[i], BROKEN);
}

static void a_backslash_outside_a_string_is_broken(void)
{
    check_skip("[\\]", BROKEN);
    check_skip("[\\\"\"]", BROKEN);
    check_skip("{\"a\"\\:1}", BROKEN);
}

static void raw_control_characters_in_strings_are_tolerated(void)
{
    static const char text[] = "[\"\0\n\t\x1F\x7F\"]";
    CHECK(skip(text, sizeof text - 1) == sizeof text - 1);
    CHECK(skip(text + 1, sizeof text - 3) == sizeof text - 3);
}

static void no_prefix_of_a_container_is_a_value(void)
{
    static const char text[] = "{\"a\":[1,\"}]\\\"\\\\\",{\"b\":{\"c\":[[[]]]}}],\"d\":\"0123456789012345678901234567890123456789\","
                               "\"e\":[true,{\"f\":\"\\\\\\\\\\\"\"},0.5e7,[],[{}]],\"g\":\"long enough for three blocks\"}";
    size_t len = sizeof text - 1;
    CHECK(len > 2 * SB_BLOCK);
    CHECK(skip(text, len) == len);
    for (size_t cut = 0; cut < len; cut++) CHECK(skip(text, cut) == BROKEN);
}

/* A string of `slashes` backslashes that begin at byte `at` of the text, then a quote, then more text. */
static void check_run(size_t at, size_t slashes)
{
    char text[256];
    size_t len = 0;
    text[len++] = '[';
    text[len++] = '"';
    while (len < at) text[len++] = ']';
    for (size_t i = 0; i < slashes; i++) text[len++] = '\\';
    text[len++] = '"';
    if (slashes % 2 != 0) text[len++] = '"';
    size_t string_end = len;
    text[len++] = ']';
    CHECK(skip(text, len) == len);
    CHECK(skip(text + 1, len - 1) == string_end - 1);
    CHECK(skip(text, len - 1) == BROKEN);
}

static void backslashes_are_paired_wherever_they_stand(void)
{
    for (size_t at = 2; at < 140; at++) {
        for (size_t slashes = 0; slashes < 70; slashes++) check_run(at, slashes);
    }
}

/* Blocks are counted from the first escape: the second one lies across their edge for some `gap`. */
static void an_escape_may_lie_across_the_edge_of_a_block(void)
{
    for (size_t gap = 0; gap < 200; gap++) {
        for (size_t rest = 0; rest < 70; rest++) {
            char text[300] = "[\"\\n";
            size_t len = 4;
            memset(text + len, 'x', gap);
            len += gap;
            memcpy(text + len, "\\\"", 2);
            len += 2;
            memset(text + len, ']', rest);
            len += rest;
            text[len++] = '"';
            CHECK(skip(text + 1, len - 1) == len - 1);
            CHECK(skip(text + 1, len - 2) == BROKEN);
            text[len++] = ']';
            CHECK(skip(text, len) == len);
        }
    }
}

static void a_string_may_end_at_any_byte(void)
{
    char text[200];
    for (size_t len = 2; len <= sizeof text; len++) {
        memset(text, 'x', len);
        text[0] = text[len - 1] = '"';
        CHECK(skip(text, len) == len);
        CHECK(skip(text, len - 1) == BROKEN);
    }
}

/* Only the bytes that matter may be taken for them: each value 0 to 255 stands at each offset of a block. */
static void every_other_byte_is_ordinary(void)
{
    char text[2 * 64];
    for (int byte = 0; byte < 256; byte++) {
        if (byte != 0 && strchr("\"\\{}[]", byte) != NULL) continue;
        for (size_t at = 1; at < sizeof text - 1; at++) {
            memset(text, ' ', sizeof text);
            text[0] = '[';
            text[sizeof text - 1] = ']';
            text[at] = (char)byte;
            CHECK(skip(text, sizeof text) == sizeof text);
            text[0] = text[sizeof text - 1] = '"';
            CHECK(skip(text, sizeof text) == sizeof text);
        }
    }
}

static char *make_nest(size_t depth)
{
    char *text = malloc(2 * depth);
    CHECK(text != NULL);
    for (size_t i = 0; i < depth; i++) {
        text[i] = i % 3 == 0 ? '{' : '[';
        text[2 * depth - 1 - i] = i % 3 == 0 ? '}' : ']';
    }
    return text;
}

static void check_both(const char *text, size_t len, const char *want)
{
    CHECK(sb_json_skip(text, text + len) == want);
    CHECK(portable_skip(text, text + len) == want);
}

static void a_million_nested_brackets_pass(void)
{
    size_t depth = 1000000, len = 2 * depth;
    char *text = make_nest(depth);
    check_both(text, len, text + len);
    check_both(text, len - 1, NULL);
    check_both(text, depth, NULL);
    free(text);
}

static void kinds_are_matched_down_to_a_fixed_depth(void)
{
    size_t depth = KINDS_MAX + 100, len = 2 * depth;
    char *text = make_nest(depth);
    for (size_t at = 0; at < depth; at++) {
        char *close = &text[len - 1 - at];
        char was = *close;
        *close = was == '}' ? ']' : '}';
        check_both(text, len, at < KINDS_MAX ? NULL : text + len);
        *close = was;
    }
    free(text);
}

static void random_text_ends_where_a_simple_scanner_says(void)
{
    static const char alphabet[] = "{}[]{}[]\"\"\"\\\\,: a1\n";
    uint64_t seed = 4711;
    size_t whole = 0;
    for (int round = 0; round < 300000; round++) {
        char text[200];
        size_t len = 1 + random_below(&seed, sizeof text), choice = 1 + random_below(&seed, sizeof alphabet - 1);
        text[0] = random_below(&seed, 2) == 0 ? '{' : '[';
        for (size_t i = 1; i < len; i++) text[i] = alphabet[(i + random_below(&seed, choice)) % (sizeof alphabet - 1)];
        size_t want = reference_container(text, len);
        CHECK(skip(text, len) == want);
        if (want != BROKEN) whole++;
    }
    CHECK(whole > 1000);
}

static void mutated_json_ends_where_a_simple_scanner_says(void)
{
    static const char sample[] =
        "{\"jsonrpc\":\"2.0\",\"id\":\"a\\\"b\",\"params\":{\"list\":[{\"name\":\"x{y\",\"tags\":[\"[\",\"\\\\\"]},"
        "{\"deep\":[[[[{\"k\":{}}]]]]}],\"text\":\"some text that fills a block, and more than a block of it\"},"
        "\"n\":[1,2.5,-3e7,true,false,null]}";
    static const char alphabet[] = "{}[]\"\\,: x";
    uint64_t seed = 99;
    size_t whole = 0;
    for (int round = 0; round < 200000; round++) {
        char text[sizeof sample];
        memcpy(text, sample, sizeof sample);
        size_t changes = random_below(&seed, 4);
        for (size_t i = 0; i < changes; i++) {
            text[1 + random_below(&seed, sizeof sample - 2)] = alphabet[random_below(&seed, sizeof alphabet - 1)];
        }
        size_t want = reference_container(text, sizeof sample - 1);
        CHECK(skip(text, sizeof sample - 1) == want);
        if (want != BROKEN) whole++;
    }
    CHECK(whole > 1000);
}

static void white_space_is_skipped_up_to_the_end(void)
{
    static const char text[] = " \t\r\n x";
    const char *p = place(text, 6);
    CHECK(sb_json_space(p, p + 6) == p + 5);
    p = place(text, 5);
    CHECK(sb_json_space(p, p + 5) == p + 5);
    p = place("\v", 1);
    CHECK(sb_json_space(p, p + 1) == p);
    CHECK(sb_json_space(p + 1, p + 1) == p + 1);
}

/* Walks an object; says "key=value;" for each member, then "." at its end or "!" where it is broken. */
static const char *walk_text(const char *text, size_t *end)
{
    static char out[512];
    sb_span object = place_text(text), key, value;
    sb_json_walk walk;
    sb_walk_result result;
    size_t len = 0;
    sb_json_walk_init(&walk, object);
    while ((result = sb_json_walk_next(&walk, &key, &value)) == SB_WALK_MEMBER) {
        len += (size_t)snprintf(out + len, sizeof out - len, "%.*s=%.*s;", (int)key.len, key.ptr, (int)value.len, value.ptr);
    }
    snprintf(out + len, sizeof out - len, result == SB_WALK_END ? "." : "!");
    if (end != NULL) *end = (size_t)(walk.p - object.ptr);
    return out;
}

static void the_members_of_an_object_are_walked_in_order(void)
{
    CHECK_STR(walk_text("{}", NULL), ".");
    CHECK_STR(walk_text("{ }", NULL), ".");
    CHECK_STR(walk_text("{\"a\":1}", NULL), "\"a\"=1;.");
    CHECK_STR(walk_text("{\"a\":1,\"b\":[2],\"a\":\"x\"}", NULL), "\"a\"=1;\"b\"=[2];\"a\"=\"x\";.");
    CHECK_STR(walk_text("{ \"a\" : 1 ,\n\"\" :\t{\"b\":{}} }", NULL), "\"a\"=1;\"\"={\"b\":{}};.");
}

static void a_walk_ends_after_the_closing_brace(void)
{
    size_t end;
    CHECK_STR(walk_text("{\"a\":{}} x", &end), "\"a\"={};.");
    CHECK(end == 8);
    CHECK_STR(walk_text("{ }}", &end), ".");
    CHECK(end == 3);
}

static void a_walk_stops_at_what_is_no_object(void)
{
    static const char *const bad[] = {"", " {}", "[]", "1", "{", "{1:2}", "{a:1}", "{,}", "{,\"a\":1}", "{\"a\"}",
                                      "{\"a\":}", "{\"a\" 1}", "{\"a\":x}", "{\"a\"", "{\"a\":", "{\"a", "{]"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) CHECK_STR(walk_text(bad[i], NULL), "!");
    static const char *const later[] = {"{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "{\"a\":1;}",
                                        "{\"a\":1]", "{\"a\":1,,}", "{\"a\":1,\"b", "{\"a\":1,\"b\":tru}", "{\"a\":12 3}"};
    for (size_t i = 0; i < SB_COUNT(later); i++) {
        const char *got = walk_text(later[i], NULL);
        CHECK(strncmp(got, "\"a\"=1", 5) == 0);
        CHECK(got[strlen(got) - 1] == '!' && strchr(got, ';') == strrchr(got, ';'));
    }
}

static void a_broken_value_leaves_its_key_known(void)
{
    sb_span key, value;
    sb_json_walk walk;
    sb_json_walk_init(&walk, place_text("{\"a\":[1"));
    CHECK(sb_json_walk_next(&walk, &key, &value) == SB_WALK_BROKEN);
    CHECK(sb_span_is(key, "\"a\"") && value.ptr == NULL);
    sb_json_walk_init(&walk, place_text("{\"a"));
    CHECK(sb_json_walk_next(&walk, &key, &value) == SB_WALK_BROKEN);
    CHECK(key.ptr == NULL && value.ptr == NULL);
}

static bool finds(const char *object, const char *key, const char *want)
{
    sb_span found = sb_json_find(place_text(object), key);
    return want == NULL ? found.ptr == NULL : sb_span_is(found, want);
}

static void the_last_member_with_a_key_is_found(void)
{
    CHECK(finds("{\"a\":1,\"b\":2}", "b", "2"));
    CHECK(finds("{\"a\":1,\"b\":2,\"a\":[3]}", "a", "[3]"));
    CHECK(finds("{\"a\":{\"b\":1}}", "b", NULL));
    CHECK(finds("{\"\":null}", "", "null"));
    CHECK(finds("{}", "a", NULL));
}

static void a_key_is_found_under_its_escapes(void)
{
    CHECK(finds("{\"\\u0061\":1}", "a", "1"));
    CHECK(finds("{\"a\":1,\"\\u0061\":2}", "a", "2"));
    CHECK(finds("{\"\\/\":1}", "/", "1"));
    CHECK(finds("{\"\\x61\":1}", "a", NULL));
}

static void nothing_is_found_in_what_is_broken_or_no_object(void)
{
    CHECK(finds("{\"a\":1,}", "a", NULL));
    CHECK(finds("{\"a\":1", "a", NULL));
    CHECK(finds("[\"a\"]", "a", NULL));
    CHECK(finds("", "a", NULL));
    const sb_span absent = {NULL, 0};
    CHECK(sb_json_find(absent, "a").ptr == NULL);
}

static bool spells(const char *token, const char *text)
{
    return sb_json_string_is(place_text(token), text);
}

static void a_string_token_is_compared_by_what_it_spells(void)
{
    CHECK(spells("\"abc\"", "abc"));
    CHECK(spells("\"\"", ""));
    CHECK(spells("\"\\u0061b\\u0063\"", "abc"));
    CHECK(spells("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"));
    CHECK(spells("\"\\u20ac\\ud83d\\ude00\"", "\xE2\x82\xAC\xF0\x9F\x98\x80"));
    CHECK(!spells("\"abc\"", "ab"));
    CHECK(!spells("\"ab\"", "abc"));
    CHECK(!spells("\"\\u0061b\"", "abc"));
    CHECK(!spells("\"\\u0061bc\"", "ab"));
    CHECK(!spells("\"a\\u0000\"", "a"));
    CHECK(!spells("\"a\\q\"", "aq"));
}

static void what_is_no_string_token_spells_nothing(void)
{
    CHECK(!spells("1", "1"));
    CHECK(!spells("", ""));
    CHECK(!spells("\"", ""));
    CHECK(!spells("abc", "b"));
    const sb_span absent = {NULL, 0};
    CHECK(!sb_json_string_is(absent, ""));
}

static void check_decode(const char *token, const char *want)
{
    /* The room is exactly that of the token, and ends at an unreadable page. */
    sb_span span = sb_span_of(token);
    char *out = place(token, span.len);
    size_t len = sb_json_decode(span, out);
    sb_span got = {out, len};
    CHECK(len <= span.len);
    CHECK(sb_span_is(got, want));
    CHECK(sb_json_string_is(span, want));
}

static void escapes_are_decoded(void)
{
    check_decode("\"\"", "");
    check_decode("\"plain \xC3\xA9 text\"", "plain \xC3\xA9 text");
    check_decode("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t");
    check_decode("\"a\\u0041z\"", "aAz");
    check_decode("\"\\u00e9\\u00E9\"", "\xC3\xA9\xC3\xA9");
    check_decode("\"\\u07ff\\u0800\\uffff\"", "\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF");
    check_decode("\"\\ud800\\udc00\\udbff\\udfff\"", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF");
}

static void a_decoded_nul_is_a_byte_like_others(void)
{
    char out[16];
    CHECK(sb_json_decode(place_text("\"a\\u0000b\""), out) == 3);
    CHECK(memcmp(out, "a\0b", 3) == 0);
}

static void lone_surrogates_become_the_replacement_character(void)
{
    check_decode("\"\\ud800\"", "\xEF\xBF\xBD");
    check_decode("\"\\udc00\"", "\xEF\xBF\xBD");
    check_decode("\"\\ud800x\"", "\xEF\xBF\xBDx");
    check_decode("\"\\ud800\\n\"", "\xEF\xBF\xBD\n");
    check_decode("\"\\ud800\\u0041\"", "\xEF\xBF\xBD" "A");
    check_decode("\"\\ud800\\ud800\\udc00\"", "\xEF\xBF\xBD\xF0\x90\x80\x80");
    check_decode("\"\\udc00\\ud800\"", "\xEF\xBF\xBD\xEF\xBF\xBD");
}

static void broken_escapes_are_refused(void)
{
    static const char *const bad[] = {"\"\\q\"", "\"\\\"", "\"\\u\"", "\"\\u004\"", "\"\\u00g0\"", "\"\\u 041\"",
                                      "\"\\U0041\"", "\"\\ud800\\u12\"", "\"\\ud800\\x\"", "\"", "", "abc"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) {
        char out[32];
        CHECK(sb_json_decode(place_text(bad[i]), out) == SIZE_MAX);
    }
}

static const sb_test tests[] = {
    TEST(every_kind_of_value_is_skipped_to_its_end),
    TEST(what_follows_a_value_is_not_looked_at),
    TEST(numbers_follow_the_grammar),
    TEST(what_is_no_value_is_broken),
    TEST(brackets_must_pair_up_with_their_kind),
    TEST(a_backslash_outside_a_string_is_broken),
    TEST(raw_control_characters_in_strings_are_tolerated),
    TEST(no_prefix_of_a_container_is_a_value),
    TEST(backslashes_are_paired_wherever_they_stand),
    TEST(an_escape_may_lie_across_the_edge_of_a_block),
    TEST(a_string_may_end_at_any_byte),
    TEST(every_other_byte_is_ordinary),
    TEST(a_million_nested_brackets_pass),
    TEST(kinds_are_matched_down_to_a_fixed_depth),
    TEST(random_text_ends_where_a_simple_scanner_says),
    TEST(mutated_json_ends_where_a_simple_scanner_says),
    TEST(white_space_is_skipped_up_to_the_end),
    TEST(the_members_of_an_object_are_walked_in_order),
    TEST(a_walk_ends_after_the_closing_brace),
    TEST(a_walk_stops_at_what_is_no_object),
    TEST(a_broken_value_leaves_its_key_known),
    TEST(the_last_member_with_a_key_is_found),
    TEST(a_key_is_found_under_its_escapes),
    TEST(nothing_is_found_in_what_is_broken_or_no_object),
    TEST(a_string_token_is_compared_by_what_it_spells),
    TEST(what_is_no_string_token_spells_nothing),
    TEST(escapes_are_decoded),
    TEST(a_decoded_nul_is_a_byte_like_others),
    TEST(lone_surrogates_become_the_replacement_character),
    TEST(broken_escapes_are_refused),
};

TEST_MAIN(tests)
