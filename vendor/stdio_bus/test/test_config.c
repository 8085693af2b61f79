#include <stddef.h>
#include <stdio.h>

#include "test_config.h"

/* The first pool's text with `member` added; the member starts in column 35. */
static const char *with_pool_key(const char *member)
{
    static char json[4096];
    snprintf(json, sizeof(json), "{\"pools\":[{\"id\":\"p\",\"command\":\"c\",%s}]}", member);
    return json;
}

static const char *with_root_key(const char *member)
{
    static char json[4096];
    snprintf(json, sizeof(json), "{\"pools\":[" POOL "],%s}", member);
    return json;
}

static void accept_free(const char *json)
{
    sb_config config = accept(json);
    CHECK(config.warning_count == 0);
    sb_config_free(&config);
}

/* ---- keys and defaults --------------------------------------------------- */

static void every_pool_key_is_read(void)
{
    sb_config config = accept(sample);
    CHECK(config.pool_count == 2);
    const sb_pool_config *pool = &config.pools[0];
    CHECK_STR(pool->id, "echo");
    CHECK_STR(pool->command, "python3");
    CHECK(pool->arg_count == 3);
    CHECK_STR(pool->args[0], "w.py");
    CHECK_STR(pool->args[1], "-v\n");
    CHECK_STR(pool->args[2], "");
    CHECK(pool->args[3] == NULL);
    CHECK(pool->instances == 2);
    CHECK(pool->env_count == 3);
    CHECK_STR(pool->env[0], "K=V");
    CHECK_STR(pool->env[1], "EMPTY=");
    CHECK_STR(pool->env[2], "E\xc3\xa9=\xf0\x9f\x98\x80");
    CHECK(pool->env[3] == NULL);
    CHECK(!pool->inherit_env);
    CHECK_STR(pool->cwd, "/srv");
    CHECK(pool->protocol == SB_PROTOCOL_MCP);
    CHECK(pool->restart == SB_RESTART_ON_FAILURE);
    CHECK(pool->stderr_mode == SB_STDERR_INHERIT);
    CHECK(pool->init_timeout_sec == 7);
    CHECK(pool->exclusive);
    CHECK_STR(config.pools[1].command, "/bin/cat");
    sb_config_free(&config);
}

static void every_other_key_is_read(void)
{
    sb_config config = accept(sample);
    CHECK(config.default_pool == 1);
    CHECK(config.limits.max_input_buffer == 2048);
    CHECK(config.limits.max_output_queue == 4096);
    CHECK(config.limits.max_restarts == 0);
    CHECK(config.limits.restart_window_sec == 61);
    CHECK(config.limits.drain_timeout_sec == 0);
    CHECK(config.limits.backpressure_timeout_sec == 62);
    CHECK(config.limits.stall_timeout_sec == 63);
    CHECK(config.limits.max_sessions == 64);
    CHECK(config.limits.session_idle_sec == 65);
    CHECK(config.limits.max_pending == 66);
    CHECK(config.limits.max_clients == 67);
    CHECK(config.framing == SB_FRAMING_LENGTH);
    CHECK(config.warning_count == 0);
    sb_config_free(&config);
}

static void an_absent_pool_key_has_its_default(void)
{
    sb_config config = accept("{\"pools\":[" POOL "]}");
    const sb_pool_config *pool = &config.pools[0];
    CHECK(pool->args == NULL && pool->arg_count == 0);
    CHECK(pool->env == NULL && pool->env_count == 0);
    CHECK(pool->instances == 1);
    CHECK(pool->inherit_env);
    CHECK(pool->cwd == NULL && pool->initialize == NULL);
    CHECK(pool->protocol == SB_PROTOCOL_AUTO);
    CHECK(pool->restart == SB_RESTART_ALWAYS);
    CHECK(pool->stderr_mode == SB_STDERR_DEFAULT);
    CHECK(pool->init_timeout_sec == 30);
    CHECK(!pool->exclusive);
    sb_config_free(&config);
}

static void check_default_limits(const sb_limits *limits)
{
    CHECK(limits->max_input_buffer == 10485760);
    CHECK(limits->max_output_queue == 41943040);
    CHECK(limits->max_restarts == 5);
    CHECK(limits->restart_window_sec == 60);
    CHECK(limits->drain_timeout_sec == 30);
    CHECK(limits->backpressure_timeout_sec == 60);
    CHECK(limits->stall_timeout_sec == 0);
    CHECK(limits->max_sessions == 1048576);
    CHECK(limits->session_idle_sec == 0);
    CHECK(limits->max_pending == 1048576);
    CHECK(limits->max_clients == 65536);
}

static void an_absent_root_key_has_its_default(void)
{
    sb_config config = accept("{\"pools\":[" POOL "]}");
    check_default_limits(&config.limits);
    CHECK(config.default_pool == SIZE_MAX);
    CHECK(config.framing == SB_FRAMING_NDJSON);
    CHECK(config.warnings == NULL && config.warning_count == 0);
    sb_config_free(&config);
}

static void empty_limits_and_transport_have_the_defaults(void)
{
    sb_config config = accept(with_root_key("\"limits\":{},\"transport\":{}"));
    check_default_limits(&config.limits);
    CHECK(config.framing == SB_FRAMING_NDJSON);
    sb_config_free(&config);
}

static void every_word_of_an_enum_is_understood(void)
{
#define TARGET(name) offsetof(sb_pool_config, name), sizeof(((sb_pool_config *)NULL)->name)
    static const struct {
        const char *key, *words[5];
        size_t offset, width;
        uint32_t first;
    } enums[] = {
        {"protocol", {"auto", "ndjson", "mcp", "acp"}, TARGET(protocol), SB_PROTOCOL_AUTO},
        {"restart", {"always", "on-failure", "never"}, TARGET(restart), SB_RESTART_ALWAYS},
        {"stderr", {"log", "inherit", "null"}, TARGET(stderr_mode), SB_STDERR_LOG},
        {"clients", {"shared", "exclusive"}, TARGET(exclusive), false},
    };
    for (size_t i = 0; i < SB_COUNT(enums); i++) {
        for (unsigned w = 0; enums[i].words[w] != NULL; w++) {
            char member[64];
            snprintf(member, sizeof(member), "\"%s\":\"%s\"", enums[i].key, enums[i].words[w]);
            sb_config config = accept(with_pool_key(member));
            uint32_t large = enums[i].first + w;
            uint8_t small = (uint8_t)large;
            const void *want = enums[i].width == 1 ? (void *)&small : (void *)&large;
            CHECK(memcmp((char *)config.pools + enums[i].offset, want, enums[i].width) == 0);
            sb_config_free(&config);
        }
    }
}

static void initialize_is_kept_as_json_on_one_line_without_trailing_commas(void)
{
    sb_config config = accept(sample);
    CHECK_STR(config.pools[0].initialize, "{\"a\":[1,2.5e-3,\"x y\\\"\"],\"b\":{\"c\":null}}");
    sb_config_free(&config);
}

static void initialize_leaves_strings_as_they_are_written(void)
{
    const char *json = "{\"initialize\":\" ,} , ]\\\\\",\"\\\"x \\\" , }\":\" \\u00e9 \\n\"}";
    char member[256];
    snprintf(member, sizeof(member), "\"initialize\":%s", json);
    sb_config config = accept(with_pool_key(member));
    CHECK_STR(config.pools[0].initialize, json);
    sb_config_free(&config);
}

static void an_empty_initialize_is_an_empty_object(void)
{
    sb_config config = accept(with_pool_key("\"initialize\":{ \r\n\t}"));
    CHECK_STR(config.pools[0].initialize, "{}");
    sb_config_free(&config);
}

static void keys_of_the_incumbent_do_not_warn(void)
{
    accept_free(with_root_key("\"limits\":{\"max_input_buffer\":1048576,\"max_output_queue\":4194304,"
                              "\"max_restarts\":5,\"restart_window_sec\":60,\"drain_timeout_sec\":30,"
                              "\"backpressure_timeout_sec\":60}"));
    accept_free(with_root_key("\"transport\":{\"mode\":\"stdio\",\"framing\":\"ndjson\",\"protocol\":\"json\","
                              "\"options\":{\"mqueue_name\":\"/q\"}}"));
    accept_free(with_root_key("\"transport\":{\"mode\":\"embedded\"}"));
}

/* ---- numbers ------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned long long min, max;
    size_t offset, width;
} limits[] = {
#define LIMIT(name, min, max) {#name, min, max, offsetof(sb_limits, name), sizeof(((sb_limits *)NULL)->name)}
    LIMIT(max_input_buffer, 1024, 1073741824),
    LIMIT(max_output_queue, 1024, sizeof(size_t) > 4 ? 17179869184 : 1073741824),
    LIMIT(max_restarts, 0, 4294967295),
    LIMIT(restart_window_sec, 1, 4294967),
    LIMIT(drain_timeout_sec, 0, 4294967),
    LIMIT(backpressure_timeout_sec, 1, 4294967),
    LIMIT(stall_timeout_sec, 0, 4294967),
    LIMIT(max_sessions, 1, 1073741824),
    LIMIT(session_idle_sec, 0, 4294967),
    LIMIT(max_pending, 1, 1073741824),
    LIMIT(max_clients, 1, 1073741824),
};

static void accept_limit(size_t i, unsigned long long value)
{
    char member[128];
    snprintf(member, sizeof(member), "\"limits\":{\"%s\":%llu}", limits[i].name, value);
    sb_config config = accept(with_root_key(member));
    uint32_t narrow;
    size_t wide;
    const char *at = (const char *)&config.limits + limits[i].offset;
    memcpy(&narrow, at, sizeof(narrow));
    if (limits[i].width == sizeof(wide)) memcpy(&wide, at, sizeof(wide));
    else wide = narrow;
    CHECK(wide == value);
    sb_config_free(&config);
}

static void refuse_limit(size_t i, const char *value)
{
    char member[128], message[256];
    snprintf(member, sizeof(member), "\"limits\":{\"%s\":%s}", limits[i].name, value);
    snprintf(message, sizeof(message),
             "config: line 1, column %zu: limits.%s: must be a whole number from %llu to %llu, not %s",
             strlen("{\"pools\":[" POOL "],\"limits\":{\"\":") + strlen(limits[i].name) + 1, limits[i].name,
             limits[i].min, limits[i].max, value);
    refuse(with_root_key(member), message);
}

static void every_limit_takes_the_ends_of_its_range(void)
{
    for (size_t i = 0; i < SB_COUNT(limits); i++) {
        accept_limit(i, limits[i].min);
        accept_limit(i, limits[i].max);
    }
}

static void every_limit_refuses_what_is_beyond_its_range(void)
{
    for (size_t i = 0; i < SB_COUNT(limits); i++) {
        char value[32];
        snprintf(value, sizeof(value), "%llu", limits[i].max + 1);
        refuse_limit(i, value);
        snprintf(value, sizeof(value), "%lld", (long long)limits[i].min - 1);
        refuse_limit(i, value);
    }
}

static void a_number_that_would_wrap_is_refused(void)
{
    static const char *const values[] = {"18446744073709551615", "18446744073709551616", "18446744073709551618",
                                         "36893488147419103233", "100000000000000000000000000000000000000001"};
    for (size_t i = 0; i < SB_COUNT(values); i++) refuse_limit(0, values[i]);
}

static void a_number_that_is_not_written_as_a_whole_number_is_refused(void)
{
    static const char *const values[] = {"2048.0", "2e3", "2E+3", "-0", "-2048", "0.5", "1e400"};
    for (size_t i = 0; i < SB_COUNT(values); i++) refuse_limit(0, values[i]);
}

static void a_limit_that_is_no_number_is_refused(void)
{
    static const char *const values[] = {"\"2048\"", "null", "true", "false", "\"\""};
    for (size_t i = 0; i < SB_COUNT(values); i++) refuse_limit(0, values[i]);
}

static void instances_run_from_0_to_65536(void)
{
    accept_free(with_pool_key("\"instances\":0"));
    accept_free(with_pool_key("\"instances\":1"));
    sb_config config = accept(with_pool_key("\"instances\":65536"));
    CHECK(config.pools[0].instances == 65536);
    sb_config_free(&config);
    refuse(with_pool_key("\"instances\":65537"),
           "config: line 1, column 47: pools[0].instances: must be a whole number from 0 to 65536, not 65537");
    refuse("{\n  \"pools\": [\n    " POOL ",\n    {\"id\": \"q\", \"command\": \"c\", \"instances\": -1}]}",
           "config: line 4, column 46: pools[1].instances: must be a whole number from 0 to 65536, not -1");
}

static void only_a_pool_without_instances_needs_no_command(void)
{
    sb_config config = accept("{\"pools\":[{\"id\":\"p\",\"instances\":0}]}");
    CHECK(config.pools[0].instances == 0 && config.pools[0].command == NULL);
    sb_config_free(&config);
    refuse("{\"pools\":[{\"id\":\"p\",\"instances\":1}]}",
           "config: line 1, column 11: pools[0]: the key \"command\" is missing");
}

static void an_exclusive_pool_has_at_least_one_instance(void)
{
    refuse("{\"pools\":[{\"id\":\"p\",\"instances\":0,\"clients\":\"exclusive\"}]}",
           "config: line 1, column 33: pools[0].instances: must be at least 1 where \"clients\" is \"exclusive\"");
}

static void init_timeout_runs_from_1_to_49_days(void)
{
    accept_free(with_pool_key("\"init_timeout_sec\":1"));
    accept_free(with_pool_key("\"init_timeout_sec\":4294967"));
    refuse(with_pool_key("\"init_timeout_sec\":0"),
           "config: line 1, column 54: pools[0].init_timeout_sec: must be a whole number from 1 to 4294967, not 0");
}

/* ---- errors of the configuration ----------------------------------------- */

static void the_configuration_must_be_an_object(void)
{
    refuse("[]", "config: line 1, column 1: must be an object, not an array");
    refuse(" \"x\"", "config: line 1, column 2: must be an object, not \"x\"");
    refuse("null", "config: line 1, column 1: must be an object, not null");
}

static void pools_must_be_there_and_not_empty(void)
{
    refuse("{}", "config: line 1, column 1: the key \"pools\" is missing");
    refuse("{\"pools\":[]}", "config: line 1, column 10: pools: must contain at least one pool");
    refuse("{\"pools\":{}}", "config: line 1, column 10: pools: must be an array of pools, not an object");
    refuse("{\"pools\":[" POOL ",7]}", "config: line 1, column 36: pools[1]: must be an object, not 7");
}

static void too_many_pools_are_refused(void)
{
    char *json = malloc(32 * 10001 + 16), *p = json;
    p += sprintf(p, "{\"pools\":[");
    for (int i = 0; i <= 10000; i++) p += sprintf(p, "{},");
    sprintf(p, "]}");
    refuse(json, "config: line 1, column 10: pools: must not contain over 10000 pools");
    free(json);
}

static void ten_thousand_pools_are_read(void)
{
    char *json = malloc(48 * 10000 + 16), *p = json;
    p += sprintf(p, "{\"pools\":[");
    for (int i = 0; i < 10000; i++) p += sprintf(p, "{\"id\":\"pool-%d\",\"command\":\"c\"},", i);
    sprintf(p, "]}");
    sb_config config = accept(json);
    CHECK(config.pool_count == 10000);
    sb_config_free(&config);
    free(json);
}

static void a_pool_needs_an_id(void)
{
    refuse("{\"pools\":[{\"command\":\"c\"}]}", "config: line 1, column 11: pools[0]: the key \"id\" is missing");
    refuse("{\"pools\":[{\"id\":\"\",\"command\":\"c\"}]}",
           "config: line 1, column 17: pools[0].id: must be a non-empty string, not \"\"");
    refuse("{\"pools\":[{\"id\":7,\"command\":\"c\"}]}",
           "config: line 1, column 17: pools[0].id: must be a non-empty string, not 7");
}

static void a_pool_needs_a_command(void)
{
    refuse("{\"pools\":[{\"id\":\"p\"}]}", "config: line 1, column 11: pools[0]: the key \"command\" is missing");
    refuse("{\"pools\":[{\"id\":\"p\",\"command\":\"\"}]}",
           "config: line 1, column 31: pools[0].command: must be a non-empty string, not \"\"");
    refuse("{\"pools\":[{\"id\":\"p\",\"command\":[\"c\"]}]}",
           "config: line 1, column 31: pools[0].command: must be a non-empty string, not an array");
}

static void two_pools_with_one_id_are_refused_naming_both_places(void)
{
    refuse("{\"pools\":[\n" POOL ",\n{\"id\":\"q\",\"command\":\"c\"},\n {\"id\":\"\\u0070\",\"command\":\"c\"}]}",
           "config: line 4, column 8: pools[2].id: must be unique, but \"\\u0070\" is the id of pools[0] "
           "at line 2, column 7 too");
}

static void default_pool_must_name_a_pool(void)
{
    refuse(with_root_key("\"default_pool\":\"q\""),
           "config: line 1, column 52: default_pool: must be the id of one of the pools, not \"q\"");
    refuse(with_root_key("\"default_pool\":0"),
           "config: line 1, column 52: default_pool: must be the id of one of the pools, not 0");
    sb_config config = accept("{\"default_pool\":\"p\",\"pools\":[" POOL "]}");
    CHECK(config.default_pool == 0);
    sb_config_free(&config);
}

static void args_must_be_strings(void)
{
    accept_free(with_pool_key("\"args\":[]"));
    refuse(with_pool_key("\"args\":\"x\""),
           "config: line 1, column 42: pools[0].args: must be an array of strings, not \"x\"");
    refuse(with_pool_key("\"args\":[\"x\",\n1]"),
           "config: line 2, column 1: pools[0].args[1]: must be a string, not 1");
}

static void env_must_map_names_to_strings(void)
{
    accept_free(with_pool_key("\"env\":{}"));
    refuse(with_pool_key("\"env\":[\"A=B\"]"),
           "config: line 1, column 41: pools[0].env: must be an object of strings, not an array");
    refuse(with_pool_key("\"env\":{\"PORT\":80}"),
           "config: line 1, column 49: pools[0].env.PORT: must be a string, not 80");
    refuse(with_pool_key("\"env\":{\"\":\"x\"}"),
           "config: line 1, column 42: pools[0].env[\"\"]: the name must not be empty");
    refuse(with_pool_key("\"env\":{\"A=B\":\"x\"}"),
           "config: line 1, column 42: pools[0].env[\"A=B\"]: the name must not contain '='");
}

static void other_pool_keys_have_their_types(void)
{
    refuse(with_pool_key("\"inherit_env\":1"),
           "config: line 1, column 49: pools[0].inherit_env: must be true or false, not 1");
    refuse(with_pool_key("\"cwd\":\"\""),
           "config: line 1, column 41: pools[0].cwd: must be a non-empty string, not \"\"");
    refuse(with_pool_key("\"cwd\":null"),
           "config: line 1, column 41: pools[0].cwd: must be a non-empty string, not null");
    refuse(with_pool_key("\"initialize\":[]"),
           "config: line 1, column 48: pools[0].initialize: must be an object, not an array");
}

static void an_unknown_word_is_refused_with_the_words_allowed(void)
{
    refuse(with_pool_key("\"protocol\":\"MCP\""),
           "config: line 1, column 46: pools[0].protocol: must be \"auto\", \"ndjson\", \"mcp\" or \"acp\", "
           "not \"MCP\"");
    refuse(with_pool_key("\"restart\":true"),
           "config: line 1, column 45: pools[0].restart: must be \"always\", \"on-failure\" or \"never\", not true");
    refuse(with_pool_key("\"stderr\":null"),
           "config: line 1, column 44: pools[0].stderr: must be \"log\", \"inherit\" or \"null\", not null");
    refuse(with_pool_key("\"clients\":\"\""),
           "config: line 1, column 45: pools[0].clients: must be \"shared\" or \"exclusive\", not \"\"");
    refuse(with_pool_key("\"clients\":\"shared|exclusive\""),
           "config: line 1, column 45: pools[0].clients: must be \"shared\" or \"exclusive\", "
           "not \"shared|exclusive\"");
}

static void unsupported_transport_values_are_named(void)
{
    refuse(with_root_key("\"transport\":{\"framing\":\"raw\"}"),
           "config: line 1, column 60: transport.framing: must be \"ndjson\" or \"length\", not \"raw\"");
    refuse(with_root_key("\"transport\":{\"framing\":\"capnp\"}"),
           "config: line 1, column 60: transport.framing: must be \"ndjson\" or \"length\", not \"capnp\"");
    refuse(with_root_key("\"transport\":{\"protocol\":\"binary\"}"),
           "config: line 1, column 61: transport.protocol: must be \"json\", not \"binary\"");
    refuse(with_root_key("\"transport\":{\"mode\":\"shm\"}"),
           "config: line 1, column 57: transport.mode: must be \"stdio\" or \"embedded\", not \"shm\"");
    refuse(with_root_key("\"transport\":{\"mode\":\"mqueue\"}"),
           "config: line 1, column 57: transport.mode: must be \"stdio\" or \"embedded\", not \"mqueue\"");
    refuse(with_root_key("\"transport\":\"raw\""),
           "config: line 1, column 49: transport: must be an object, not \"raw\"");
    refuse(with_root_key("\"transport\":{\"options\":1}"),
           "config: line 1, column 60: transport.options: must be an object, not 1");
}

static void a_listening_transport_mode_says_where_listeners_are_set(void)
{
    refuse(with_root_key("\"transport\":{\"mode\":\"unix\"}"),
           "config: line 1, column 57: transport.mode: \"unix\" is not set here: open a listener with --unix, "
           "or with the listener option of the API");
    refuse(with_root_key("\"transport\":{\"mode\":\"tcp\"}"),
           "config: line 1, column 57: transport.mode: \"tcp\" is not set here: open a listener with --tcp, "
           "or with the listener option of the API");
}

static void limits_must_be_an_object(void)
{
    refuse(with_root_key("\"limits\":[]"), "config: line 1, column 46: limits: must be an object, not an array");
}

static void a_long_value_is_cut_between_characters_in_the_message(void)
{
    char member[256], message[512], shown[80] = "\"";
    for (int i = 0; i < 60; i++) strcat(shown, i < 31 ? "\xc3\xa9" : "");
    snprintf(member, sizeof(member), "\"clients\":%s\xf0\x9f\x98\x80\xc3\xa9\"", shown);
    snprintf(message, sizeof(message),
             "config: line 1, column 45: pools[0].clients: must be \"shared\" or \"exclusive\", not %s...", shown);
    refuse(with_pool_key(member), message);
}

static void a_text_over_64_mib_is_refused_unread(void)
{
    sb_config config;
    CHECK(sb_config_parse(&config, (sb_span){sample, SB_CONFIG_MAX + 1}, error) == STDIO_BUS_ERR_CONFIG);
    CHECK_STR(error, "config: the text is longer than 64 MiB");
}

/* ---- warnings ------------------------------------------------------------ */

static void unknown_keys_warn_with_their_path(void)
{
    sb_config config = accept("{\"pools\":[{\"id\":\"p\",\"command\":\"c\",\n\"comand\":1}],\n\n \"a b\":{\"x\":1},"
                              "\"limits\":{\"max\":[]},\"transport\":{\"\\u000a\":0}}");
    CHECK(config.warning_count == 4);
    CHECK_STR(config.warnings[0], "config: line 2, column 1: pools[0].comand: unknown key, ignored");
    CHECK_STR(config.warnings[1], "config: line 4, column 26: limits.max: unknown key, ignored");
    CHECK_STR(config.warnings[2], "config: line 4, column 49: transport[\"\\u000a\"]: unknown key, ignored");
    CHECK_STR(config.warnings[3], "config: line 4, column 2: [\"a b\"]: unknown key, ignored");
    CHECK(config.warnings[4] == NULL);
    sb_config_free(&config);
}

static void keys_are_case_sensitive(void)
{
    sb_config config = accept(with_pool_key("\"Instances\":9"));
    CHECK(config.pools[0].instances == 1);
    CHECK(config.warning_count == 1);
    sb_config_free(&config);
}

static void warnings_stop_after_a_hundred(void)
{
    char *json = malloc(32 * 1000), *p = json;
    p += sprintf(p, "{\"pools\":[" POOL "]");
    for (int i = 0; i < 1000; i++) p += sprintf(p, ",\"k%d\":%d", i, i);
    sprintf(p, "}");
    sb_config config = accept(json);
    CHECK(config.warning_count == 101);
    CHECK_STR(config.warnings[100], "config: further unknown keys are ignored without a warning");
    sb_config_free(&config);
    free(json);
}

static void keys_may_be_written_with_escapes(void)
{
    accept_free("{\"p\\u006fols\":[{\"\\u0069d\":\"p\",\"command\":\"c\"}]}");
}

static const sb_test tests[] = {
    TEST(every_pool_key_is_read),
    TEST(every_other_key_is_read),
    TEST(an_absent_pool_key_has_its_default),
    TEST(an_absent_root_key_has_its_default),
    TEST(empty_limits_and_transport_have_the_defaults),
    TEST(every_word_of_an_enum_is_understood),
    TEST(initialize_is_kept_as_json_on_one_line_without_trailing_commas),
    TEST(initialize_leaves_strings_as_they_are_written),
    TEST(an_empty_initialize_is_an_empty_object),
    TEST(keys_of_the_incumbent_do_not_warn),
    TEST(every_limit_takes_the_ends_of_its_range),
    TEST(every_limit_refuses_what_is_beyond_its_range),
    TEST(a_number_that_would_wrap_is_refused),
    TEST(a_number_that_is_not_written_as_a_whole_number_is_refused),
    TEST(a_limit_that_is_no_number_is_refused),
    TEST(instances_run_from_0_to_65536),
    TEST(only_a_pool_without_instances_needs_no_command),
    TEST(an_exclusive_pool_has_at_least_one_instance),
    TEST(init_timeout_runs_from_1_to_49_days),
    TEST(the_configuration_must_be_an_object),
    TEST(pools_must_be_there_and_not_empty),
    TEST(too_many_pools_are_refused),
    TEST(ten_thousand_pools_are_read),
    TEST(a_pool_needs_an_id),
    TEST(a_pool_needs_a_command),
    TEST(two_pools_with_one_id_are_refused_naming_both_places),
    TEST(default_pool_must_name_a_pool),
    TEST(args_must_be_strings),
    TEST(env_must_map_names_to_strings),
    TEST(other_pool_keys_have_their_types),
    TEST(an_unknown_word_is_refused_with_the_words_allowed),
    TEST(unsupported_transport_values_are_named),
    TEST(a_listening_transport_mode_says_where_listeners_are_set),
    TEST(limits_must_be_an_object),
    TEST(a_long_value_is_cut_between_characters_in_the_message),
    TEST(a_text_over_64_mib_is_refused_unread),
    TEST(unknown_keys_warn_with_their_path),
    TEST(keys_are_case_sensitive),
    TEST(warnings_stop_after_a_hundred),
    TEST(keys_may_be_written_with_escapes),
};

TEST_MAIN(tests)
