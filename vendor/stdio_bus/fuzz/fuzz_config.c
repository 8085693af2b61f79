/*
 * fuzz_config.c - the configuration: what is accepted is complete and equal
 * to itself, what is refused leaves nothing, and no failing allocation leaks.
 * Input: the text.
 */
#include "../src/config.h"
#include "fuzz.h"



static void check_refused(const sb_config *config, const char *error)
{
    size_t len = strnlen(error, SB_CONFIG_ERROR_MAX);
    CHECK(len > sizeof "config: " - 1 && len < SB_CONFIG_ERROR_MAX && strncmp(error, "config: ", 8) == 0);
    CHECK(config->pools == NULL && config->pool_count == 0 && config->warnings == NULL && config->warning_count == 0);
}

static void check_list(char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) CHECK(list[i] != NULL);
    if (list != NULL) CHECK(list[count] == NULL);
}

static void check_accepted(const sb_config *config)
{
    CHECK(config->pool_count > 0);
    CHECK(config->default_pool == SIZE_MAX || config->default_pool < config->pool_count);
    for (size_t i = 0; i < config->pool_count; i++) {
        const sb_pool_config *pool = &config->pools[i];
        CHECK(pool->id != NULL && pool->id[0] != '\0');
        CHECK(pool->command != NULL ? pool->command[0] != '\0' : pool->instances == 0);
        CHECK(sb_pool_config_equal(pool, pool) && (pool->instances >= 1 || !pool->exclusive));
        check_list(pool->args, pool->arg_count);
        check_list(pool->env, pool->env_count);
        /* Ids are unique. */
        if (i > 0) CHECK(!sb_pool_config_equal(pool, &config->pools[i - 1]));
    }
    for (size_t i = 0; i < config->warning_count; i++) CHECK(config->warnings[i][0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[SB_CONFIG_ERROR_MAX];
    sb_config config, again;
    uint64_t seed = fuzz_seed(data, size);
    if (size > FUZZ_INPUT_MAX) return 0;
    sb_span input = {(const char *)data, size}, text = place_span(input);

    memset(error, 'x', sizeof error);
    sb_test_fail_alloc(0, false);
    int status = sb_config_parse(&config, text, error);
    size_t allocations = sb_test_fail_alloc(0, false);
    if (status != STDIO_BUS_OK) {
        CHECK(status == STDIO_BUS_ERR_CONFIG);
        check_refused(&config, error);
    } else {
        check_accepted(&config);
        CHECK(sb_config_parse(&again, text, error) == STDIO_BUS_OK && again.pool_count == config.pool_count);
        for (size_t i = 0; i < config.pool_count; i++) CHECK(sb_pool_config_equal(&config.pools[i], &again.pools[i]));
        CHECK(memcmp(&config.limits, &again.limits, sizeof config.limits) == 0);
        sb_config_free(&again);
        sb_config_free(&config);
        CHECK(config.pools == NULL && config.pool_count == 0);
    }
    if (allocations == 0) return 0;

    sb_test_fail_alloc(1 + random_below(&seed, allocations), seed & 2);
    if (sb_config_parse(&config, text, error) == STDIO_BUS_OK) {
        check_accepted(&config);
        sb_config_free(&config);
    } else {
        check_refused(&config, error);
    }
    sb_test_fail_alloc(0, false);
    return 0;
}
