/*
 * test_config.h - what the tests of the configuration share: a sample that
 * uses every key, and checks that a text is accepted or refused.
 */
#ifndef SB_TEST_CONFIG_H
#define SB_TEST_CONFIG_H

#include <stdlib.h>

#include "../src/config.h"
#include "test.h"

#define POOL "{\"id\":\"p\",\"command\":\"c\"}"

/* Uses every key, every kind of value, escapes, trailing commas and several lines. */
static const char sample[] =
    "{ \"pools\": [\n"
    "    { \"id\": \"echo\", \"command\": \"python3\", \"args\": [\"w.py\", \"-v\\n\", \"\",], \"instances\": 2,\n"
    "      \"env\": {\"K\": \"V\", \"EMPTY\": \"\", \"E\\u00e9\": \"\\ud83d\\ude00\"}, \"inherit_env\": false,\n"
    "      \"cwd\": \"/srv\", \"protocol\": \"mcp\", \"restart\": \"on-failure\", \"stderr\": \"inherit\",\n"
    "      \"initialize\": { \"a\" : [1, 2.5e-3, \"x y\\\"\", ],\n\t\"b\": {\"c\": null,}, },\n"
    "      \"init_timeout_sec\": 7, \"clients\": \"exclusive\" },\n"
    "    { \"id\": \"two\", \"command\": \"/bin/cat\" },\n"
    "  ],\n"
    "  \"default_pool\": \"two\",\n"
    "  \"limits\": { \"max_input_buffer\": 2048, \"max_output_queue\": 4096, \"max_restarts\": 0,\n"
    "    \"restart_window_sec\": 61, \"drain_timeout_sec\": 0, \"backpressure_timeout_sec\": 62,\n"
    "    \"stall_timeout_sec\": 63, \"max_sessions\": 64, \"session_idle_sec\": 65, \"max_pending\": 66,\n"
    "    \"max_clients\": 67, },\n"
    "  \"transport\": { \"framing\": \"length\", \"mode\": \"stdio\", \"protocol\": \"json\", \"options\": {} },\n"
    "}\n";

static char error[SB_CONFIG_ERROR_MAX];

static inline int parse(sb_config *config, const char *json)
{
    sb_span text = sb_span_of(json);
    text.ptr = sb_test_guarded(text.ptr, text.len);
    return sb_config_parse(config, text, error);
}

static inline sb_config accept(const char *json)
{
    sb_config config;
    if (parse(&config, json) != STDIO_BUS_OK) {
        fprintf(stderr, "%s\n%s\n", json, error);
        CHECK(!"accepted");
    }
    CHECK_STR(error, "");
    return config;
}

static inline void refuse(const char *json, const char *message)
{
    sb_config config;
    int status = parse(&config, json);
    if (status == STDIO_BUS_OK) fprintf(stderr, "accepted: %s\n", json);
    CHECK(status == STDIO_BUS_ERR_CONFIG);
    CHECK_STR(error, message);
    CHECK(config.pools == NULL && config.pool_count == 0 && config.warnings == NULL && config.warning_count == 0);
}

#endif
