#include "../src/splice.h"

#include "../src/scan.h"
#include "bytes.h"

#define TEXT_MAX 2048

static sb_envelope env;
static sb_span frame;
static sb_edits edits;

static void begin(const char *text)
{
    frame = place_text(text);
    CHECK(sb_envelope_scan(frame, &env) == SB_ENVELOPE_OK);
    edits.count = 0;
}

/* The frame after the edits; written before an unreadable page. */
static const char *edited(void)
{
    static char text[TEXT_MAX + 1], copy[TEXT_MAX];
    size_t len = sb_splice_length(&edits, frame);
    CHECK(len <= TEXT_MAX && frame.len <= TEXT_MAX);
    /* `place` takes its room from the frame, which is therefore moved; edits are offsets. */
    memcpy(copy, frame.ptr, frame.len);
    sb_span moved = {copy, frame.len};
    char *out = place(text, len);
    sb_splice_copy(&edits, moved, out);
    memcpy(text, out, len);
    text[len] = '\0';
    return text;
}

static const char *drop(const char *text, bool agent)
{
    begin(text);
    CHECK(sb_splice_drop_routing(&edits, frame, &env, agent));
    return edited();
}

static void no_edits_copy_the_frame(void)
{
    begin("{\"id\":1,\"method\":\"m\"}");
    CHECK_STR(edited(), "{\"id\":1,\"method\":\"m\"}");
}

static void a_value_is_replaced(void)
{
    begin("{\"id\" : \"old\" ,\"method\":\"m\"}");
    sb_splice_replace(&edits, env.id, sb_span_of("12345"));
    CHECK_STR(edited(), "{\"id\" : 12345 ,\"method\":\"m\"}");
    begin("{\"method\":\"m\",\"id\":1}");
    sb_splice_replace(&edits, env.id, sb_span_of("\"a longer one\""));
    CHECK_STR(edited(), "{\"method\":\"m\",\"id\":\"a longer one\"}");
}

static void several_values_are_replaced_in_any_order(void)
{
    begin("{\"id\":1,\"method\":\"m\",\"params\":[1]}");
    sb_splice_replace(&edits, env.params, sb_span_of("{}"));
    sb_splice_replace(&edits, env.id, sb_span_of("22"));
    sb_splice_replace(&edits, env.method, sb_span_of("\"n\""));
    CHECK(edits.count == 3 && edits.edit[0].at < edits.edit[1].at && edits.edit[1].at < edits.edit[2].at);
    CHECK_STR(edited(), "{\"id\":22,\"method\":\"n\",\"params\":{}}");
}

static void a_member_is_dropped_with_its_comma(void)
{
    CHECK_STR(drop("{\"pool\":\"p\",\"id\":1}", true), "{\"id\":1}");
    CHECK_STR(drop("{\"id\":1,\"pool\":\"p\"}", true), "{\"id\":1}");
    CHECK_STR(drop("{\"id\":1,\"pool\":\"p\",\"x\":2}", true), "{\"id\":1,\"x\":2}");
    CHECK_STR(drop("{\"pool\":\"p\"}", true), "{}");
}

static void neighbours_are_dropped_in_one_edit(void)
{
    CHECK_STR(drop("{\"id\":1,\"pool\":\"p\",\"sessionId\":\"s\",\"agentId\":\"a\"}", true), "{\"id\":1}");
    CHECK(edits.count == 1);
    CHECK_STR(drop("{\"agentId\":\"a\",\"pool\":\"p\",\"sessionId\":\"s\",\"id\":1}", true), "{\"id\":1}");
    CHECK(edits.count == 1);
    CHECK_STR(drop("{\"agentId\":\"a\",\"pool\":\"p\",\"sessionId\":\"s\"}", true), "{}");
    CHECK(edits.count == 1);
}

static void white_space_beside_a_dropped_member_is_left_tidy(void)
{
    CHECK_STR(drop("{ \"pool\": \"p\", \"id\": 1 }", true), "{ \"id\": 1 }");
    CHECK_STR(drop("{ \"id\": 1, \"pool\": \"p\", \"x\": 2 }", true), "{ \"id\": 1, \"x\": 2 }");
    CHECK_STR(drop("{ \"id\": 1, \"pool\": \"p\" }", true), "{ \"id\": 1 }");
    CHECK_STR(drop("{ \"id\": 1 \t, \r\n \"pool\" : \"p\" \n}", true), "{ \"id\": 1 \t \n}");
    CHECK_STR(drop(" { \"pool\" : \"p\" } ", true), " {  } ");
}

static void the_agent_stays_unless_asked_for(void)
{
    CHECK_STR(drop("{\"agentId\":\"a\",\"pool\":\"p\",\"id\":1}", false), "{\"agentId\":\"a\",\"id\":1}");
    CHECK_STR(drop("{\"pool\":\"p\",\"agentId\":\"a\",\"sessionId\":\"s\"}", false), "{\"agentId\":\"a\"}");
}

static void members_below_the_root_stay(void)
{
    static const char text[] = "{\"params\":{\"sessionId\":\"s\",\"pool\":\"p\",\"agentId\":\"a\"}}";
    CHECK_STR(drop(text, true), text);
    CHECK(edits.count == 0);
}

static void escaped_keys_are_dropped(void)
{
    CHECK_STR(drop("{\"id\":1,\"p\\u006fol\":\"p\"}", true), "{\"id\":1}");
    CHECK_STR(drop("{\"p\\u006fol\":\"p\",\"id\":1,\"pool\":\"q\"}", true), "{\"id\":1}");
}

static void members_of_the_wrong_type_are_dropped(void)
{
    CHECK_STR(drop("{\"sessionId\":null,\"id\":1}", true), "{\"id\":1}");
    CHECK_STR(drop("{\"id\":1,\"pool\":\"\",\"agentId\":{\"a\":[1]}}", true), "{\"id\":1}");
    CHECK_STR(drop("{\"id\":1,\"pool\":5,\"agentId\":true}", false), "{\"id\":1,\"agentId\":true}");
    CHECK_STR(drop("{\"pool\":5,\"id\":1,\"pool\":\"p\",\"pool\":[]}", true), "{\"id\":1}");
}

static void other_repeated_members_stay(void)
{
    static const char text[] = "{\"id\":1,\"id\":2,\"method\":\"m\"}";
    CHECK_STR(drop(text, true), text);
    CHECK_STR(drop("{\"id\":1,\"pool\":\"p\",\"id\":2}", true), "{\"id\":1,\"id\":2}");
}

static void replacing_and_dropping_go_together(void)
{
    static const char text[] = "{\"sessionId\":\"s\",\"id\":1,\"pool\":\"p\",\"method\":\"m\",\"agentId\":\"a\"}";
    begin(text);
    sb_splice_replace(&edits, env.method, sb_span_of("\"long method\""));
    CHECK(sb_splice_drop_routing(&edits, frame, &env, true));
    sb_splice_replace(&edits, env.id, sb_span_of("77"));
    CHECK_STR(edited(), "{\"id\":77,\"method\":\"long method\"}");
}

/* `count` pools, each followed by another member: that many edits. */
static void make_scattered(char *text, size_t count)
{
    size_t len = 0;
    text[len++] = '{';
    for (size_t i = 0; i < count; i++) {
        len += (size_t)snprintf(text + len, 32, "%s\"pool\":\"p\",\"x\":%zu", i > 0 ? "," : "", i % 10);
    }
    memcpy(text + len, "}", 2);
}

static void more_edits_than_there_is_room_for_are_refused(void)
{
    char text[TEXT_MAX];
    make_scattered(text, SB_EDITS_MAX);
    begin(text);
    CHECK(sb_splice_drop_routing(&edits, frame, &env, true));
    CHECK(edits.count == SB_EDITS_MAX);

    make_scattered(text, SB_EDITS_MAX + 1);
    begin(text);
    CHECK(!sb_splice_drop_routing(&edits, frame, &env, true));
    CHECK(edits.count == 0);
    CHECK_STR(edited(), text);
}

static void refused_edits_leave_the_list_unchanged(void)
{
    char text[TEXT_MAX] = "{\"id\":1,";
    make_scattered(text + 7, SB_EDITS_MAX);
    text[7] = ',';
    begin(text);
    sb_splice_replace(&edits, env.id, sb_span_of("2"));
    CHECK(!sb_splice_drop_routing(&edits, frame, &env, true));
    text[6] = '2';
    CHECK_STR(edited(), text);
}

/*
 * All sequences of up to LENGTH_MAX members out of these: every subset of the
 * routing members, at every position, adjacent or not, with every repetition.
 */
static const char *const members[] = {
    "\"sessionId\":\"s,}\"", "\"pool\":\"p\"", "\"agentId\":\"\\\"\"", "\"id\":{\"pool\":1}", "\"x\":[]", "\"p\\u006fol\":7",
};
#define LENGTH_MAX 5

static bool is_dropped(size_t member, bool agent)
{
    return member == 0 || member == 1 || member == 5 || (member == 2 && agent);
}

/* Writes "{a,b}" or, with `space` " ", "{ a , b }" without the members that are dropped, if `agent` says so. */
static void make_frame(char *text, const size_t *sequence, size_t count, const char *space, bool all, bool agent)
{
    size_t len = (size_t)snprintf(text, TEXT_MAX, "{");
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        if (!all && is_dropped(sequence[i], agent)) continue;
        len += (size_t)snprintf(text + len, TEXT_MAX - len, "%s%s%s%s", any ? "," : "", space, members[sequence[i]], space);
        any = true;
    }
    snprintf(text + len, TEXT_MAX - len, "}");
}

static void remove_spaces(char *text)
{
    char *out = text;
    for (const char *in = text; *in != '\0'; in++) {
        if (*in != ' ') *out++ = *in;
    }
    *out = '\0';
}

static void check_sequence(const size_t *sequence, size_t count)
{
    char text[TEXT_MAX], want[TEXT_MAX], got[TEXT_MAX];
    for (int agent = 0; agent < 2; agent++) {
        make_frame(want, sequence, count, "", false, agent != 0);
        make_frame(text, sequence, count, "", true, false);
        CHECK_STR(drop(text, agent != 0), want);

        make_frame(text, sequence, count, " ", true, false);
        strcpy(got, drop(text, agent != 0));
        remove_spaces(got);
        CHECK_STR(got, want);
    }
}

static void routing_members_are_dropped_wherever_they_stand(void)
{
    size_t sequence[LENGTH_MAX], total = 1;
    for (size_t count = 0; count <= LENGTH_MAX; count++) {
        for (size_t number = 0; number < total; number++) {
            size_t rest = number;
            for (size_t i = 0; i < count; i++) {
                sequence[i] = rest % SB_COUNT(members);
                rest /= SB_COUNT(members);
            }
            check_sequence(sequence, count);
        }
        total *= SB_COUNT(members);
    }
}

static void what_is_left_of_a_mutated_frame_is_a_frame_without_routing(void)
{
    static const char sample[] = "{\"id\":1,\"sessionId\":\"s\", \"pool\":\"p\" ,\"x\":[{\"pool\":1}],\"agentId\":\"a\",\"pool\":\"q\","
                                 "\"method\":\"m\",\"sessionId\":5}";
    static const char alphabet[] = "{}[]\"\\,: xp";
    uint64_t seed = 555;
    size_t whole = 0;
    for (int round = 0; round < 200000; round++) {
        char text[sizeof sample];
        memcpy(text, sample, sizeof sample);
        for (size_t i = random_below(&seed, 4); i > 0; i--) {
            text[random_below(&seed, sizeof sample - 1)] = alphabet[random_below(&seed, sizeof alphabet - 1)];
        }
        frame = place_text(text);
        if (sb_envelope_scan(frame, &env) != SB_ENVELOPE_OK) continue;
        whole++;
        edits.count = 0;
        CHECK(sb_splice_drop_routing(&edits, frame, &env, true));
        sb_span rest = sb_span_of(edited());
        CHECK(sb_envelope_scan(rest, &env) == SB_ENVELOPE_OK);
        CHECK(env.session.key == 0 && env.pool.key == 0 && env.agent.key == 0);
    }
    CHECK(whole > 1000);
}

static const char *move_ext(const char *text)
{
    begin(text);
    static char moved[TEXT_MAX + 1];
    sb_splice_move_ext(&edits, frame, &env);
    CHECK(sb_splice_drop_routing(&edits, frame, &env, true));
    /* What is moved points into the frame, which therefore has to stay. */
    CHECK(sb_splice_length(&edits, frame) <= TEXT_MAX);
    memset(moved, 0, sizeof moved);
    sb_splice_copy(&edits, frame, moved);
    return moved;
}

static void extensions_move_into_the_params(void)
{
    CHECK_STR(move_ext("{\"_ext\":{\"a\":1},\"id\":1,\"method\":\"m\"}"),
              "{\"params\":{\"_meta\":{\"stdio_bus/ext\":{\"a\":1}}},\"id\":1,\"method\":\"m\"}");
    CHECK_STR(move_ext(" { \"method\":\"m\" , \"_ext\" : 1 } "), " {\"params\":{\"_meta\":{\"stdio_bus/ext\":1}}, \"method\":\"m\"  } ");
    CHECK_STR(move_ext("{\"method\":\"m\",\"params\":{ },\"_ext\":[2]}"),
              "{\"method\":\"m\",\"params\":{\"_meta\":{\"stdio_bus/ext\":[2]} }}");
    CHECK_STR(move_ext("{\"_ext\":1,\"sessionId\":\"s\",\"params\":{\"a\":1},\"pool\":\"p\"}"),
              "{\"params\":{\"_meta\":{\"stdio_bus/ext\":1},\"a\":1}}");
    CHECK_STR(move_ext("{\"params\":{\"_meta\":{}},\"_ext\":1}"), "{\"params\":{\"_meta\":{\"stdio_bus/ext\":1}}}");
    CHECK_STR(move_ext("{\"params\":{\"a\":{},\"_meta\":{\"b\":1}},\"_ext\":1}"),
              "{\"params\":{\"a\":{},\"_meta\":{\"stdio_bus/ext\":1,\"b\":1}}}");
}

static void extensions_go_nowhere_where_there_is_no_object_for_them(void)
{
    CHECK_STR(move_ext("{\"params\":[1],\"_ext\":1}"), "{\"params\":[1]}");
    CHECK_STR(move_ext("{\"params\":null,\"_ext\":1}"), "{\"params\":null}");
    CHECK_STR(move_ext("{\"params\":{\"_meta\":7},\"_ext\":1}"), "{\"params\":{\"_meta\":7}}");
}

static void a_value_anywhere_is_replaced_and_others_are_found_again(void)
{
    const char *inner, *later;
    begin("{\"pool\":\"p\",\"params\":{\"t\":7},\"x\":{\"y\":8},\"id\":1}");
    inner = strchr(frame.ptr, '7');
    later = strchr(frame.ptr, '8');
    sb_span value = {inner, 1};
    size_t at = (size_t)(later - frame.ptr);
    sb_splice_replace_at(&edits, frame, value, sb_span_of("\"long\""));
    CHECK(sb_splice_drop_routing(&edits, frame, &env, true));
    size_t moved = sb_splice_moved(&edits, at), first = sb_splice_moved(&edits, 0);
    const char *text = edited();
    CHECK_STR(text, "{\"params\":{\"t\":\"long\"},\"x\":{\"y\":8},\"id\":1}");
    CHECK(text[moved] == '8' && first == 0);
}

static const sb_test tests[] = {
    TEST(no_edits_copy_the_frame),
    TEST(a_value_is_replaced),
    TEST(several_values_are_replaced_in_any_order),
    TEST(a_member_is_dropped_with_its_comma),
    TEST(neighbours_are_dropped_in_one_edit),
    TEST(white_space_beside_a_dropped_member_is_left_tidy),
    TEST(the_agent_stays_unless_asked_for),
    TEST(members_below_the_root_stay),
    TEST(escaped_keys_are_dropped),
    TEST(members_of_the_wrong_type_are_dropped),
    TEST(other_repeated_members_stay),
    TEST(replacing_and_dropping_go_together),
    TEST(more_edits_than_there_is_room_for_are_refused),
    TEST(refused_edits_leave_the_list_unchanged),
    TEST(routing_members_are_dropped_wherever_they_stand),
    TEST(what_is_left_of_a_mutated_frame_is_a_frame_without_routing),
    TEST(extensions_move_into_the_params),
    TEST(extensions_go_nowhere_where_there_is_no_object_for_them),
    TEST(a_value_anywhere_is_replaced_and_others_are_found_again),
};

TEST_MAIN(tests)
