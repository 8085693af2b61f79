#include "../src/envelope.h"

#include <stdlib.h>

#include "bytes.h"

static sb_envelope env;
static sb_span frame;

static sb_envelope_result scan_bytes(const char *text, size_t len)
{
    sb_span bytes = {text, len};
    frame = place_span(bytes);
    memset(&env, 0xA5, sizeof env);
    return sb_envelope_scan(frame, &env);
}

static sb_envelope_result scan(const char *text)
{
    return scan_bytes(text, strlen(text));
}

static sb_kind kind_of(const char *text)
{
    CHECK(scan(text) == SB_ENVELOPE_OK);
    return env.kind;
}

static bool holds(sb_member member, const char *want)
{
    return sb_span_is(sb_member_value(frame, member), want);
}

static bool is_absent(sb_member member)
{
    return member.end == 0 && sb_member_value(frame, member).ptr == NULL;
}

static void a_method_with_an_id_is_a_request(void)
{
    CHECK(kind_of("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"}") == SB_KIND_REQUEST);
    CHECK(kind_of("{\"id\":\"\",\"method\":\"\"}") == SB_KIND_REQUEST);
    CHECK(kind_of("{\"method\":\"m\",\"id\":0,\"params\":{}}") == SB_KIND_REQUEST);
    CHECK(kind_of("{\"method\":\"m\",\"id\":1,\"result\":2}") == SB_KIND_REQUEST);
}

static void a_method_without_id_is_a_notification(void)
{
    CHECK(kind_of("{\"method\":\"m\"}") == SB_KIND_NOTIFICATION);
    CHECK(kind_of("{\"method\":\"m\",\"params\":[1]}") == SB_KIND_NOTIFICATION);
}

static void a_null_id_is_no_id(void)
{
    CHECK(kind_of("{\"method\":\"m\",\"id\":null}") == SB_KIND_NOTIFICATION);
    CHECK(is_absent(env.id));
    CHECK(kind_of("{\"id\":null,\"error\":{}}") == SB_KIND_RESPONSE);
    CHECK(is_absent(env.id));
}

static void a_result_or_an_error_without_method_is_a_response(void)
{
    CHECK(kind_of("{\"id\":1,\"result\":null}") == SB_KIND_RESPONSE);
    CHECK(kind_of("{\"id\":1,\"error\":{\"code\":-1,\"message\":\"x\"}}") == SB_KIND_RESPONSE);
    CHECK(kind_of("{\"result\":{}}") == SB_KIND_RESPONSE);
}

static void any_other_object_is_no_message(void)
{
    CHECK(kind_of("{}") == SB_KIND_INVALID);
    CHECK(kind_of("{\"id\":1}") == SB_KIND_INVALID);
    CHECK(holds(env.id, "1"));
    CHECK(kind_of("{\"params\":{\"method\":\"m\",\"id\":1}}") == SB_KIND_INVALID);
}

static void a_method_that_is_no_string_makes_no_message(void)
{
    static const char *const bad[] = {"1", "null", "true", "{}", "[]"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"id\":7,\"method\":%s,\"result\":1}", bad[i]);
        CHECK(kind_of(text) == SB_KIND_INVALID);
        CHECK(is_absent(env.method));
        CHECK(holds(env.id, "7"));
    }
}

static void an_id_of_a_wrong_type_makes_no_message(void)
{
    static const char *const bad[] = {"true", "false", "{}", "[1]"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"id\":%s,\"method\":\"m\"}", bad[i]);
        CHECK(kind_of(text) == SB_KIND_INVALID);
        CHECK(is_absent(env.id));
        snprintf(text, sizeof text, "{\"id\":%s,\"result\":1}", bad[i]);
        CHECK(kind_of(text) == SB_KIND_INVALID);
    }
}

static void an_id_keeps_its_exact_token(void)
{
    static const char *const ids[] = {"1", "\"1\"", "1.0", "-0", "1e400", "12345678901234567890", "\"\\u0031\"", "\"a\\\"b\"", "\"\""};
    for (size_t i = 0; i < SB_COUNT(ids); i++) {
        char text[96];
        snprintf(text, sizeof text, "{\"id\" :\t%s ,\"method\":\"m\"}", ids[i]);
        CHECK(kind_of(text) == SB_KIND_REQUEST);
        CHECK(holds(env.id, ids[i]));
    }
}

static void an_id_that_is_no_json_number_breaks_the_frame(void)
{
    static const char *const bad[] = {"01", "1.", ".1", "+1", "-", "1e", "0x1", "NaN", "1 2", "1a"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"id\":%s,\"method\":\"m\"}", bad[i]);
        CHECK(scan(text) == SB_ENVELOPE_BROKEN);
        snprintf(text, sizeof text, "{\"method\":\"m\",\"id\":%s}", bad[i]);
        CHECK(scan(text) == SB_ENVELOPE_BROKEN);
    }
}

static void every_routed_member_is_found_where_it_stands(void)
{
    CHECK(scan(" {\"id\":1,\"x\":0, \"sessionId\":\"s\",\"pool\":\"p\",\"agentId\":\"a\",\"method\":\"m\","
               "\"params\":{},\"result\":[2],\"error\":null} ") == SB_ENVELOPE_OK);
    CHECK(holds(env.id, "1") && holds(env.session, "\"s\"") && holds(env.pool, "\"p\"") && holds(env.agent, "\"a\""));
    CHECK(holds(env.method, "\"m\"") && holds(env.params, "{}") && holds(env.result, "[2]") && holds(env.error, "null"));
    CHECK(env.id.index == 0 && env.session.index == 2 && env.error.index == 8);
    CHECK(env.id.key == 2 && env.session.key == 16 && frame.ptr[env.session.key] == '"');
    CHECK(!env.repeated);
}

static void members_below_the_root_are_not_routed(void)
{
    CHECK(scan("{\"method\":\"m\",\"params\":{\"id\":1,\"sessionId\":\"s\",\"pool\":\"p\"}}") == SB_ENVELOPE_OK);
    CHECK(is_absent(env.id) && is_absent(env.session) && is_absent(env.pool));
}

static void keys_of_the_same_length_are_told_apart(void)
{
    CHECK(scan("{\"iD\":1,\"loop\":\"p\",\"errar\":1,\"paramz\":1,\"Method\":\"m\",\"agentid\":\"a\",\"sessionID\":\"s\","
               "\"\":1,\"resulT\":1}") == SB_ENVELOPE_OK);
    sb_envelope empty;
    memset(&empty, 0, sizeof empty);
    CHECK(memcmp(&env, &empty, sizeof empty) == 0);
}

static void escaped_keys_are_decoded(void)
{
    CHECK(scan("{\"\\u0069d\":1,\"session\\u0049d\":\"s\",\"\\u0070\\u006f\\u006F\\u006c\":\"p\",\"m\\u0065thod\":\"m\"}") ==
          SB_ENVELOPE_OK);
    CHECK(holds(env.id, "1") && holds(env.session, "\"s\"") && holds(env.pool, "\"p\"") && holds(env.method, "\"m\""));
    CHECK(env.kind == SB_KIND_REQUEST);
    CHECK(scan("{\"\\u0073\\u0065\\u0073\\u0073\\u0069\\u006f\\u006e\\u0049\\u0064\":\"s\"}") == SB_ENVELOPE_OK);
    CHECK(holds(env.session, "\"s\""));
}

static void escaped_keys_that_spell_nothing_routed_are_passed_over(void)
{
    CHECK(scan("{\"\\u0069\\u0000d\":1,\"id\\n\":2,\"\\i\\d\":3,\"\\u00\":4,\"i\\ud800\":5,\"\\\"\":6,"
               "\"\\u0073\\u0065\\u0073\\u0073\\u0069\\u006f\\u006e\\u0049\\u0064\\u0073\":\"s\"}") == SB_ENVELOPE_OK);
    CHECK(is_absent(env.id) && is_absent(env.session));
}

static void the_last_of_duplicates_counts(void)
{
    CHECK(kind_of("{\"id\":1,\"method\":\"a\",\"id\":\"2\",\"method\":\"b\"}") == SB_KIND_REQUEST);
    CHECK(holds(env.id, "\"2\"") && holds(env.method, "\"b\"") && env.repeated && env.id.index == 2);
    CHECK(kind_of("{\"id\":1,\"method\":\"a\",\"id\":null}") == SB_KIND_NOTIFICATION);
    CHECK(kind_of("{\"id\":1,\"method\":\"a\",\"\\u0069d\":2}") == SB_KIND_REQUEST);
    CHECK(holds(env.id, "2") && env.repeated);
    CHECK(kind_of("{\"id\":[],\"method\":1,\"id\":2,\"method\":\"b\"}") == SB_KIND_REQUEST);
    CHECK(scan("{\"sessionId\":\"a\",\"sessionId\":5}") == SB_ENVELOPE_OK);
    CHECK(is_absent(env.session) && env.repeated);
    CHECK(scan("{\"pool\":5,\"pool\":\"p\"}") == SB_ENVELOPE_OK);
    CHECK(holds(env.pool, "\"p\"") && env.repeated);
}

static void other_members_may_repeat_unnoticed(void)
{
    CHECK(kind_of("{\"x\":1,\"x\":2,\"method\":\"m\"}") == SB_KIND_NOTIFICATION);
    CHECK(!env.repeated);
}

static void session_pool_and_agent_need_text(void)
{
    static const char *const bad[] = {"\"\"", "1", "null", "true", "{}", "[\"s\"]"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"method\":\"m\",\"sessionId\":%s,\"pool\":%s,\"agentId\":%s}", bad[i], bad[i], bad[i]);
        CHECK(kind_of(text) == SB_KIND_NOTIFICATION);
        CHECK(is_absent(env.session) && is_absent(env.pool) && is_absent(env.agent));
        CHECK(env.session.key == 14 && !env.repeated);
    }
}

static void sessions_of_any_length_are_found(void)
{
    for (size_t len = 1; len < 2000; len += 7) {
        char text[2100] = "{\"sessionId\":\"";
        size_t at = strlen(text);
        memset(text + at, 's', len);
        memcpy(text + at + len, "\"}", 3);
        CHECK(scan(text) == SB_ENVELOPE_OK);
        CHECK(env.session.end - env.session.value == len + 2);
    }
}

static void white_space_around_the_object_is_allowed(void)
{
    CHECK(kind_of(" \t\r\n{ \"method\" : \"m\" } \n") == SB_KIND_NOTIFICATION);
    CHECK(scan(" [] ") == SB_ENVELOPE_ARRAY);
}

static void an_array_is_a_batch(void)
{
    CHECK(scan("[]") == SB_ENVELOPE_ARRAY);
    CHECK(scan("[{\"id\":1,\"method\":\"m\"}]") == SB_ENVELOPE_ARRAY);
}

static void other_values_are_scalars(void)
{
    static const char *const values[] = {"1", "-0.5e3", "\"x\"", "true", "false", "null"};
    for (size_t i = 0; i < SB_COUNT(values); i++) CHECK(scan(values[i]) == SB_ENVELOPE_SCALAR);
}

static void what_is_no_complete_value_is_broken(void)
{
    static const char *const bad[] = {
        "",           " ",           "hello",        "{",           "}",          "{\"id\":1",    "{\"id\":1,}",
        "{\"id\"}",   "{\"id\":}",   "{id:1}",       "{\"a\":1 1}", "{\"a\":[}",  "{\"a\":[}]}",  "{\"a\":\"x}",
        "[",          "[}",          "[1",           "\"x",         "tru",        "01",           "-",
        "{,\"id\":1}", "{\"a\":tru}", "{\"a\":truex}", "{\"a\":1;}",  "{\"a\" 1}",  "{\"a\\\":1}",  "POST / HTTP/1.1",
    };
    for (size_t i = 0; i < SB_COUNT(bad); i++) CHECK(scan(bad[i]) == SB_ENVELOPE_BROKEN);
    CHECK(scan_bytes("{\"a\":1}\0", 8) == SB_ENVELOPE_BROKEN);
}

static void bytes_after_the_value_break_the_frame(void)
{
    static const char *const bad[] = {"{}{}", "{} x", "{},", "[][]", "[] ]", "1 1", "\"a\"\"b\"", "null,", "{}\\"};
    for (size_t i = 0; i < SB_COUNT(bad); i++) CHECK(scan(bad[i]) == SB_ENVELOPE_BROKEN);
}

static void control_characters_and_other_bytes_in_strings_pass(void)
{
    static const char text[] = "{\"method\":\"m\",\"id\":\"\0\n\xFF\",\"params\":{\"x\":\"\1\x80\"}}";
    CHECK(scan_bytes(text, sizeof text - 1) == SB_ENVELOPE_OK);
    CHECK(env.kind == SB_KIND_REQUEST && env.id.end - env.id.value == 5);
}

static void no_prefix_of_a_frame_is_a_frame(void)
{
    static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":\"a\\\\\",\"method\":\"tools/call\",\"sessionId\":\"s-1\","
                               "\"params\":{\"a\":[1,{\"b\":\"}\\\"\"}],\"c\":null},\"x\":[[]],\"y\":-1.5e3}";
    CHECK(scan(text) == SB_ENVELOPE_OK);
    for (size_t len = 0; len < sizeof text - 1; len++) CHECK(scan_bytes(text, len) == SB_ENVELOPE_BROKEN);
}

static void a_million_brackets_in_the_params_pass(void)
{
    enum { DEPTH = 1000000 };
    static const char head[] = "{\"method\":\"m\",\"id\":1,\"params\":", tail[] = ",\"pool\":\"p\"}";
    size_t len = 0;
    char *text = malloc(sizeof head + 2 * DEPTH + sizeof tail);
    CHECK(text != NULL);
    memcpy(text, head, sizeof head - 1);
    len += sizeof head - 1;
    memset(text + len, '[', DEPTH);
    memset(text + len + DEPTH, ']', DEPTH);
    len += 2 * DEPTH;
    memcpy(text + len, tail, sizeof tail - 1);
    len += sizeof tail - 1;
    frame.ptr = text;
    frame.len = len;
    CHECK(sb_envelope_scan(frame, &env) == SB_ENVELOPE_OK);
    CHECK(env.kind == SB_KIND_REQUEST && holds(env.pool, "\"p\"") && env.params.end - env.params.value == 2 * DEPTH);
    frame.len = len - 1;
    CHECK(sb_envelope_scan(frame, &env) == SB_ENVELOPE_BROKEN);
    free(text);
}

/* Whatever the bytes, what is found lies within the frame. */
static void check_bounds(sb_member member)
{
    if (member.end == 0) return;
    CHECK(member.key > 0 && member.key < member.value && member.value < member.end && member.end < frame.len);
    CHECK(frame.ptr[member.key] == '"');
}

static void mutated_frames_are_survived(void)
{
    static const char sample[] = "{\"jsonrpc\":\"2.0\",\"\\u0069d\":-1.5e3,\"sessionId\":\"s\\\"\",\"pool\":\"p\",\"agentId\":\"a\","
                                 "\"method\":\"m\",\"params\":{\"a\":[{\"b\":\"\\\\\"},[]],\"c\":null},\"error\":{},\"id\":\"x\"}";
    static const char alphabet[] = "{}[]\"\\,:0-.e tn\xFF\0u";
    uint64_t seed = 31337;
    size_t whole = 0;
    for (int round = 0; round < 200000; round++) {
        char text[sizeof sample];
        size_t changes = 1 + random_below(&seed, 4), len = sizeof sample - 1;
        memcpy(text, sample, sizeof sample);
        for (size_t i = 0; i < changes; i++) text[random_below(&seed, len)] = alphabet[random_below(&seed, sizeof alphabet - 1)];
        if (random_below(&seed, 4) == 0) len = random_below(&seed, len + 1);
        if (scan_bytes(text, len) != SB_ENVELOPE_OK) continue;
        whole++;
        const sb_member members[] = {env.id, env.session, env.pool, env.agent, env.method, env.params, env.result, env.error};
        for (size_t i = 0; i < SB_COUNT(members); i++) check_bounds(members[i]);
    }
    CHECK(whole > 1000);
}

static bool partial_is(const char *text, const char *want)
{
    sb_span id = sb_envelope_partial_id(place_text(text));
    return want == NULL ? id.ptr == NULL : sb_span_is(id, want);
}

static void the_id_is_read_from_the_beginning_of_a_frame(void)
{
    CHECK(partial_is("{\"id\":12,\"method\":\"m\",\"params\":{\"text\":\"abc", "12"));
    CHECK(partial_is("{\"id\":12,", "12"));
    CHECK(partial_is(" { \"id\" : \"a\" ,", "\"a\""));
    CHECK(partial_is("{\"jsonrpc\":\"2.0\",\"id\":\"a\\\"b\",\"p", "\"a\\\"b\""));
    CHECK(partial_is("{\"\\u0069d\":-1.5,\"params\":[[[", "-1.5"));
    CHECK(partial_is("{\"id\":1}", "1"));
}

static void an_id_that_may_go_on_is_not_read(void)
{
    CHECK(partial_is("{\"id\":12", NULL));
    CHECK(partial_is("{\"id\":12 ", NULL));
    CHECK(partial_is("{\"id\":\"a", NULL));
    CHECK(partial_is("{\"id\":\"a\"", NULL));
    CHECK(partial_is("{\"id\":", NULL));
    CHECK(partial_is("{\"id\":12x,\"a\":1}", NULL));
}

static void an_id_after_the_known_beginning_is_not_guessed(void)
{
    CHECK(partial_is("{\"params\":{\"id\":1,\"text\":\"abc", NULL));
    CHECK(partial_is("{\"method\":\"m\",\"params\":{}", NULL));
    CHECK(partial_is("", NULL));
    CHECK(partial_is("{", NULL));
    CHECK(partial_is("[{\"id\":1,", NULL));
    CHECK(partial_is("hello \"id\":1,", NULL));
}

static void a_partial_id_of_a_wrong_type_is_absent(void)
{
    CHECK(partial_is("{\"id\":null,\"params\":{", NULL));
    CHECK(partial_is("{\"id\":true,\"params\":{", NULL));
    CHECK(partial_is("{\"id\":{\"id\":1},\"params\":{", NULL));
    CHECK(partial_is("{\"id\":[1],\"params\":{", NULL));
}

static void the_last_partial_id_counts(void)
{
    CHECK(partial_is("{\"id\":1,\"id\":2,\"params\":{", "2"));
    CHECK(partial_is("{\"id\":1,\"id\":2", NULL));
    CHECK(partial_is("{\"id\":1,\"id\":\"ab", NULL));
    CHECK(partial_is("{\"id\":1,\"id\":null,\"a", NULL));
}

static void partial_ids_of_mutated_frames_lie_within_them(void)
{
    static const char sample[] = "{\"jsonrpc\":\"2.0\",\"id\":-1.5e3,\"x\":[{}],\"id\":\"a\\u0041\",\"params\":{\"text\":\"abc";
    static const char alphabet[] = "{}[]\"\\,:0-.e tn";
    uint64_t seed = 7;
    for (int round = 0; round < 100000; round++) {
        char text[sizeof sample];
        size_t len = random_below(&seed, sizeof sample);
        memcpy(text, sample, sizeof sample);
        for (size_t i = random_below(&seed, 3); i > 0; i--) {
            text[random_below(&seed, sizeof sample - 1)] = alphabet[random_below(&seed, sizeof alphabet - 1)];
        }
        sb_span beginning = {place(text, len), len};
        sb_span id = sb_envelope_partial_id(beginning);
        CHECK(id.ptr == NULL || (id.ptr > beginning.ptr && id.ptr + id.len < beginning.ptr + len));
    }
}

static bool is_stable(const char *token)
{
    return sb_id_is_stable(place_text(token));
}

static void ids_that_every_library_repeats_are_stable(void)
{
    static const char *const stable[] = {
        "0", "1", "-1", "9", "10", "123", "9007199254740991", "9007199254740992", "-9007199254740992", "\"\"", "\"1\"",
        "\"abc\"", "\" ~!#$%()*,-.:;?@[]^_{|}\"", "\"550e8400-e29b-41d4-a716-446655440000\"",
    };
    for (size_t i = 0; i < SB_COUNT(stable); i++) CHECK(is_stable(stable[i]));
}

static void ids_that_a_library_may_spell_otherwise_are_not_stable(void)
{
    static const char *const unstable[] = {
        "-0", "00", "01", "-01", "1.0", "1.5", "1e5", "1E5", "9007199254740993", "-9007199254740993", "10000000000000000",
        "12345678901234567890", "-", "--1", "1a", "\"\\u0061\"", "\"\\n\"", "\"\\\"\"", "\"\\\\\"", "\"a/b\"", "\"<\"",
        "\">\"", "\"&\"", "\"\x7F\"", "\"\xC3\xA9\"", "\"\n\"", "\"\x1F\"", "\"'\"", "\"+\"", "\"=\"", "\"`\"",
        "null", "true", "{}", "[]", "\"", "\"a", "",
    };
    for (size_t i = 0; i < SB_COUNT(unstable); i++) CHECK(!is_stable(unstable[i]));
    const sb_span nul = {"\"\0\"", 3}, absent = {NULL, 0};
    CHECK(!sb_id_is_stable(nul));
    CHECK(!sb_id_is_stable(absent));
}

static const sb_test tests[] = {
    TEST(a_method_with_an_id_is_a_request),
    TEST(a_method_without_id_is_a_notification),
    TEST(a_null_id_is_no_id),
    TEST(a_result_or_an_error_without_method_is_a_response),
    TEST(any_other_object_is_no_message),
    TEST(a_method_that_is_no_string_makes_no_message),
    TEST(an_id_of_a_wrong_type_makes_no_message),
    TEST(an_id_keeps_its_exact_token),
    TEST(an_id_that_is_no_json_number_breaks_the_frame),
    TEST(every_routed_member_is_found_where_it_stands),
    TEST(members_below_the_root_are_not_routed),
    TEST(keys_of_the_same_length_are_told_apart),
    TEST(escaped_keys_are_decoded),
    TEST(escaped_keys_that_spell_nothing_routed_are_passed_over),
    TEST(the_last_of_duplicates_counts),
    TEST(other_members_may_repeat_unnoticed),
    TEST(session_pool_and_agent_need_text),
    TEST(sessions_of_any_length_are_found),
    TEST(white_space_around_the_object_is_allowed),
    TEST(an_array_is_a_batch),
    TEST(other_values_are_scalars),
    TEST(what_is_no_complete_value_is_broken),
    TEST(bytes_after_the_value_break_the_frame),
    TEST(control_characters_and_other_bytes_in_strings_pass),
    TEST(no_prefix_of_a_frame_is_a_frame),
    TEST(a_million_brackets_in_the_params_pass),
    TEST(mutated_frames_are_survived),
    TEST(the_id_is_read_from_the_beginning_of_a_frame),
    TEST(an_id_that_may_go_on_is_not_read),
    TEST(an_id_after_the_known_beginning_is_not_guessed),
    TEST(a_partial_id_of_a_wrong_type_is_absent),
    TEST(the_last_partial_id_counts),
    TEST(partial_ids_of_mutated_frames_lie_within_them),
    TEST(ids_that_every_library_repeats_are_stable),
    TEST(ids_that_a_library_may_spell_otherwise_are_not_stable),
};

TEST_MAIN(tests)
