#include "../src/json.h"

#include <stdlib.h>

#include "test.h"

static sb_json_doc doc;

static bool parse(const char *json, size_t len)
{
    return sb_json_parse(&doc, (sb_span){sb_test_guarded(json, len), len});
}

static const sb_json_node *accept(const char *json)
{
    if (!parse(json, strlen(json))) {
        fprintf(stderr, "%s\n%s\n", json, doc.error);
        CHECK(!"accepted");
    }
    return doc.root;
}

static void refuse_bytes(const char *json, size_t len, size_t line, size_t column, const char *message)
{
    size_t got_line, got_column;
    CHECK(!parse(json, len));
    CHECK(doc.root == NULL);
    CHECK_STR(doc.error, message);
    sb_json_position(&doc, doc.error_at, &got_line, &got_column);
    if (got_line != line || got_column != column) fprintf(stderr, "at %zu:%zu in %s\n", got_line, got_column, json);
    CHECK(got_line == line && got_column == column);
    sb_json_doc_free(&doc);
}

static void refuse(const char *json, size_t line, size_t column, const char *message)
{
    refuse_bytes(json, strlen(json), line, column, message);
}

/* The JSON string token decodes to `text`. */
static void decodes(const char *token, const char *text)
{
    const sb_json_node *node = accept(token);
    CHECK(node->type == SB_JSON_STRING);
    CHECK(sb_span_is(node->raw, token));
    CHECK(sb_span_is(node->string, text));
    sb_json_doc_free(&doc);
}

static void every_type_of_value_is_read(void)
{
    static const struct {
        const char *json;
        sb_json_type type;
    } values[] = {{"null", SB_JSON_NULL},   {"true", SB_JSON_TRUE}, {"false", SB_JSON_FALSE}, {"0", SB_JSON_NUMBER},
                  {"\"\"", SB_JSON_STRING}, {"[]", SB_JSON_ARRAY},  {"{}", SB_JSON_OBJECT}};
    for (size_t i = 0; i < SB_COUNT(values); i++) {
        CHECK(accept(values[i].json)->type == values[i].type);
        CHECK(sb_span_is(doc.root->raw, values[i].json));
        sb_json_doc_free(&doc);
    }
}

static void the_tree_has_the_shape_of_the_text(void)
{
    const sb_json_node *root = accept(" { \"a\" : [ 1 , [ ] , \"x\" ] , \"b\" : { } } ");
    CHECK(root->count == 2);
    CHECK(sb_span_is(root->raw, "{ \"a\" : [ 1 , [ ] , \"x\" ] , \"b\" : { } }"));
    const sb_json_node *a = root->first, *b = a->next;
    CHECK(sb_span_is(a->key, "a") && sb_span_is(a->raw_key, "\"a\"") && a->parent == root && a->index == 0);
    CHECK(sb_span_is(b->key, "b") && b->index == 1 && b->next == NULL && b->first == NULL);
    CHECK(a->count == 3 && a->first->type == SB_JSON_NUMBER && a->first->key.ptr == NULL);
    CHECK(sb_span_is(a->first->next->raw, "[ ]"));
    CHECK(sb_span_is(a->first->next->next->string, "x") && a->first->next->next->index == 2);
    sb_json_doc_free(&doc);
}

static void numbers_follow_the_grammar(void)
{
    static const char *const good[] = {"0", "-0", "7", "10", "-12.50", "1e5", "1E+05", "0.0e-0",
                                       "123456789012345678901"};
    static const char *const bad[] = {"01", "-", "-01", "1.", "1.e5", "1e", "1e+", "00", "-a", "0.", "1.-1"};
    for (size_t i = 0; i < SB_COUNT(good); i++) {
        CHECK(sb_span_is(accept(good[i])->raw, good[i]));
        sb_json_doc_free(&doc);
    }
    for (size_t i = 0; i < SB_COUNT(bad); i++) refuse(bad[i], 1, 1, "this is not a valid number");
    refuse("+1", 1, 1, "expected a value, found '+'");
    refuse(".5", 1, 1, "expected a value, found '.'");
    refuse("NaN", 1, 1, "expected a value, found 'N'");
    refuse("0x1", 1, 2, "expected the end of the text, found 'x'");
}

static void escapes_are_decoded(void)
{
    decodes("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t");
    decodes("\"a\\u0041\\u007F\\u0080\"", "aA\x7f\xc2\x80");
    decodes("\"\\u07fF\\u0800\\uFFFf\"", "\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf");
    decodes("\"\\ud800\\udc00\\uDBFF\\uDFFFz\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbfz");
}

static void unescaped_text_is_taken_as_it_is(void)
{
    decodes("\"\x7f \xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf\"",
            "\x7f \xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf");
}

/* Plain UTF-8 of a code point; returns its length. */
static size_t encode(uint32_t c, char *out)
{
    size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 1; c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[len] | c);
    return len;
}

static void code_points_read_the_same_escaped_and_plain(void)
{
    for (uint32_t c = 1; c <= 0x10ffff; c += c < 0x10000 ? 1 : 251) {
        char plain[16] = "\"", escaped[32];
        if (c >= 0xd800 && c <= 0xdfff) continue;
        size_t len = encode(c, plain + 1);
        sb_span want = {plain + 1, len};
        plain[1 + len] = '"';
        if (c < 0x10000) snprintf(escaped, sizeof(escaped), "\"\\u%04x\"", c);
        else snprintf(escaped, sizeof(escaped), "\"\\u%04X\\u%04X\"", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
        CHECK(sb_json_parse(&doc, sb_span_of(escaped)) && sb_span_eq(doc.root->string, want));
        sb_json_doc_free(&doc);
        bool must_be_escaped = c < 0x20 || c == '"' || c == '\\';
        bool read = sb_json_parse(&doc, (sb_span){plain, len + 2});
        CHECK(read ? sb_span_eq(doc.root->string, want) : must_be_escaped);
        sb_json_doc_free(&doc);
    }
}

static void broken_escapes_are_refused(void)
{
    refuse("\"a\\x\"", 1, 3, "unknown escape after '\\'");
    refuse_bytes("\"\\\0\"", 4, 1, 2, "unknown escape after '\\'");
    refuse("\"\\", 1, 2, "this escape does not end");
    refuse("\"\\u12g4\"", 1, 2, "\\u must be followed by four hexadecimal digits");
    refuse("\"\\u123\"", 1, 2, "\\u must be followed by four hexadecimal digits");
    refuse("\"\\u", 1, 2, "\\u must be followed by four hexadecimal digits");
    refuse("\"\\u0000\"", 1, 2, "\\u0000 is not allowed in a string");
    refuse("{\"\\u0000\":1}", 1, 3, "\\u0000 is not allowed in a string");
}

static void lone_surrogates_are_refused(void)
{
    refuse("\"\\ud800\"", 1, 2, "\\ud800 is half of a surrogate pair");
    refuse("\"\\uDBFFx\"", 1, 2, "\\udbff is half of a surrogate pair");
    refuse("\"\\udc00\\ud800\"", 1, 2, "\\udc00 is half of a surrogate pair");
    refuse("\"\\ud800\\ud800\"", 1, 2, "\\ud800 is half of a surrogate pair");
    refuse("\"\\ud800\\u0041\"", 1, 2, "\\ud800 is half of a surrogate pair");
    refuse("\"\\ud800\\n\"", 1, 2, "\\ud800 is half of a surrogate pair");
}

static void raw_control_characters_in_a_string_are_refused(void)
{
    refuse("\"a\nb\"", 1, 3, "control character 0x0A in a string, must be written as an escape");
    refuse("\"\t\"", 1, 2, "control character 0x09 in a string, must be written as an escape");
    refuse_bytes("\"\0\"", 3, 1, 2, "control character 0x00 in a string, must be written as an escape");
    refuse("\"\x1f\"", 1, 2, "control character 0x1F in a string, must be written as an escape");
}

static void invalid_utf8_is_refused(void)
{
    static const char *const bad[] = {"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc3", "\xc3\x28", "\xe0\x9f\xbf",
                                      "\xe2\x82", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98",
                                      "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xfe"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) {
        char json[16], message[64];
        snprintf(json, sizeof(json), "\"%s\"", bad[i]);
        snprintf(message, sizeof(message), "invalid UTF-8, byte 0x%02X", (unsigned char)bad[i][0]);
        refuse(json, 1, 2, message);
        refuse_bytes(json, strlen(json) - 1, 1, 2, message);
    }
}

static void a_string_without_an_end_is_reported_where_it_starts(void)
{
    refuse("[\"a\", \"b]", 1, 7, "this string does not end");
    refuse("{\"a", 1, 2, "this string does not end");
}

static void one_comma_may_follow_the_last_element(void)
{
    CHECK(accept("[1,]")->count == 1);
    sb_json_doc_free(&doc);
    CHECK(accept("{\"a\":[{},],\n}")->count == 1);
    sb_json_doc_free(&doc);
}

static void other_stray_commas_are_refused(void)
{
    refuse("[,]", 1, 2, "expected a value, found ','");
    refuse("[1,,]", 1, 4, "expected a value, found ','");
    refuse("{,}", 1, 2, "expected a key in quotes or '}', found ','");
    refuse("{\"a\":1,,}", 1, 8, "expected a key in quotes or '}', found ','");
    refuse("1,", 1, 2, "expected the end of the text, found ','");
}

static void broken_structure_says_what_was_expected(void)
{
    refuse("", 1, 1, "expected a value, found the end of the text");
    refuse(" \n ", 2, 2, "expected a value, found the end of the text");
    refuse("[1 2]", 1, 4, "expected ',' or ']', found '2'");
    refuse("[1}", 1, 3, "expected ',' or ']', found '}'");
    refuse("{\"a\" 1}", 1, 6, "expected ':' after the key, found '1'");
    refuse("{\"a\":}", 1, 6, "expected a value, found '}'");
    refuse("{\"a\":1]", 1, 7, "expected ',' or '}', found ']'");
    refuse("{a:1}", 1, 2, "expected a key in quotes or '}', found 'a'");
    refuse("{'a':1}", 1, 2, "expected a key in quotes or '}', found '''");
    refuse("[", 1, 2, "expected a value, found the end of the text");
    refuse("nul", 1, 1, "expected a value, found 'n'");
    refuse("True", 1, 1, "expected a value, found 'T'");
    refuse("[\x01]", 1, 2, "expected a value, found byte 0x01");
    refuse("[\xc3\xa9]", 1, 2, "expected a value, found byte 0xC3");
    refuse("[\v]", 1, 2, "expected a value, found byte 0x0B");
}

static void comments_are_refused(void)
{
    refuse("{} // x", 1, 4, "expected the end of the text, found '/'");
    refuse("[/* x */]", 1, 2, "expected a value, found '/'");
}

static void nothing_may_follow_the_document(void)
{
    refuse("{}\n{}", 2, 1, "expected the end of the text, found '{'");
    refuse("nullx", 1, 5, "expected the end of the text, found 'x'");
    refuse_bytes("1\0", 2, 1, 2, "expected the end of the text, found byte 0x00");
}

static void a_key_used_twice_is_refused_by_name(void)
{
    refuse("{\"a\":1,\n \"b\":2, \"a\":3}", 2, 9, "duplicate key \"a\", first used at line 1, column 2");
    refuse("{\"a\":1,\"\\u0061\":2}", 1, 8, "duplicate key \"\\u0061\", first used at line 1, column 2");
    refuse("{\"\":1,\"\":2}", 1, 7, "duplicate key \"\", first used at line 1, column 2");
    accept("{\"a\":{\"a\":1},\"b\":{\"a\":1}}");
    sb_json_doc_free(&doc);
}

static void a_long_duplicate_key_is_cut(void)
{
    char json[512], key[101], message[256];
    memset(key, 'k', 100);
    key[100] = '\0';
    snprintf(json, sizeof(json), "{\"%s\":1,\"%s\":2}", key, key);
    snprintf(message, sizeof(message), "duplicate key \"%.63s..., first used at line 1, column 2", key);
    refuse(json, 1, 107, message);
}

static void members_are_found_by_decoded_key(void)
{
    const sb_json_node *root = accept("{\"a\":1,\"\\u0062\":2,\"\":3}");
    CHECK(sb_span_is(sb_json_member(root, sb_span_of("b"))->raw, "2"));
    CHECK(sb_span_is(sb_json_member(root, sb_span_of(""))->raw, "3"));
    CHECK(sb_json_member(root, sb_span_of("c")) == NULL);
    sb_json_doc_free(&doc);
    CHECK(sb_json_member(accept("{}"), sb_span_of("a")) == NULL);
    sb_json_doc_free(&doc);
}

static void a_hundred_thousand_members_are_read_and_found(void)
{
    char *json = malloc(20 * 100000), *p = json, key[16];
    *p++ = '{';
    for (int i = 0; i < 100000; i++) p += sprintf(p, "\"k%d\":%d,", i, i);
    strcpy(p, "}");
    const sb_json_node *root = accept(json);
    CHECK(root->count == 100000);
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        CHECK(sb_json_member(root, sb_span_of(key))->index == (size_t)i);
    }
    sb_json_doc_free(&doc);
    free(json);
}

static void nesting_ends_at_64_levels(void)
{
    char json[140];
    memset(json, '[', 65);
    memset(json + 64, ']', 64);
    json[128] = '\0';
    accept(json);
    sb_json_doc_free(&doc);
    memset(json, '[', 65);
    memset(json + 65, ']', 65);
    json[130] = '\0';
    refuse(json, 1, 65, "nested deeper than 64 levels");
}

static void a_million_values_are_the_most(void)
{
    size_t len = 2 * (size_t)SB_JSON_VALUES_MAX;
    char *json = malloc(len + 4);
    for (size_t i = 0; i <= len; i += 2) memcpy(json + i, "1,", 2);
    json[0] = '[';
    json[1] = ' ';
    json[len + 2] = ']';
    CHECK(parse(json, len + 3) && doc.root->count == SB_JSON_VALUES_MAX);
    sb_json_doc_free(&doc);
    memcpy(json + len + 2, "1]", 2);
    refuse_bytes(json, len + 4, 1, len + 3, "more than 1048576 values");
    free(json);
}

static void a_byte_order_mark_is_skipped_and_not_counted(void)
{
    CHECK(accept("\xef\xbb\xbf{}")->type == SB_JSON_OBJECT);
    sb_json_doc_free(&doc);
    refuse("\xef\xbb\xbf{x", 1, 2, "expected a key in quotes or '}', found 'x'");
    refuse("\xef\xbb\xbf\xef\xbb\xbf{}", 1, 1, "expected a value, found byte 0xEF");
    refuse("\xef\xbb", 1, 1, "expected a value, found byte 0xEF");
}

static void an_absent_text_is_an_empty_one(void)
{
    CHECK(!sb_json_parse(&doc, (sb_span){NULL, 0}));
    CHECK_STR(doc.error, "expected a value, found the end of the text");
    sb_json_doc_free(&doc);
}

static void lines_end_with_lf_or_crlf(void)
{
    refuse("[\r\n\r\n  x]", 3, 3, "expected a value, found 'x'");
    refuse("[\n\n\tx]", 3, 2, "expected a value, found 'x'");
}

static void paths_name_keys_and_positions(void)
{
    char path[128];
    const sb_json_node *root = accept("{\"a\":[0,{\"b-c_D9\":{\"x y\":[7],\"\":1,\"\\\"\\n\":2}}]}");
    sb_json_path(root, path, sizeof(path));
    CHECK_STR(path, "");
    const sb_json_node *inner = root->first->first->next->first;
    sb_json_path(inner, path, sizeof(path));
    CHECK_STR(path, "a[1].b-c_D9");
    sb_json_path(inner->first->first, path, sizeof(path));
    CHECK_STR(path, "a[1].b-c_D9[\"x y\"][0]");
    sb_json_path(inner->first->next, path, sizeof(path));
    CHECK_STR(path, "a[1].b-c_D9[\"\"]");
    sb_json_path(inner->first->next->next, path, sizeof(path));
    CHECK_STR(path, "a[1].b-c_D9[\"\\\"\\n\"]");
    sb_json_path(inner, path, 6);
    CHECK_STR(path, "a[1].");
    sb_json_doc_free(&doc);
}

static void a_failing_allocation_is_an_error_without_a_place(void)
{
    bool done = false;
    for (size_t n = 1; !done; n++) {
        static char json[20000];
        memset(json, ' ', sizeof(json) - 1);
        memcpy(json, "[\"\\n\",", 6);
        for (size_t i = 6; i < 4000; i += 2) memcpy(json + i, "1,", 2);
        json[sizeof(json) - 2] = ']';
        sb_test_fail_alloc(n, false);
        done = sb_json_parse(&doc, sb_span_of(json));
        sb_test_fail_alloc(0, false);
        CHECK(done || doc.error_at == NULL);
        if (!done) CHECK_STR(doc.error, "out of memory");
        CHECK(done == (doc.root != NULL));
        CHECK(!done || n > 3);
        sb_json_doc_free(&doc);
    }
}

static const sb_test tests[] = {
    TEST(every_type_of_value_is_read),
    TEST(the_tree_has_the_shape_of_the_text),
    TEST(numbers_follow_the_grammar),
    TEST(escapes_are_decoded),
    TEST(unescaped_text_is_taken_as_it_is),
    TEST(code_points_read_the_same_escaped_and_plain),
    TEST(broken_escapes_are_refused),
    TEST(lone_surrogates_are_refused),
    TEST(raw_control_characters_in_a_string_are_refused),
    TEST(invalid_utf8_is_refused),
    TEST(a_string_without_an_end_is_reported_where_it_starts),
    TEST(one_comma_may_follow_the_last_element),
    TEST(other_stray_commas_are_refused),
    TEST(broken_structure_says_what_was_expected),
    TEST(comments_are_refused),
    TEST(nothing_may_follow_the_document),
    TEST(a_key_used_twice_is_refused_by_name),
    TEST(a_long_duplicate_key_is_cut),
    TEST(members_are_found_by_decoded_key),
    TEST(a_hundred_thousand_members_are_read_and_found),
    TEST(nesting_ends_at_64_levels),
    TEST(a_million_values_are_the_most),
    TEST(a_byte_order_mark_is_skipped_and_not_counted),
    TEST(an_absent_text_is_an_empty_one),
    TEST(lines_end_with_lf_or_crlf),
    TEST(paths_name_keys_and_positions),
    TEST(a_failing_allocation_is_an_error_without_a_place),
};

TEST_MAIN(tests)
