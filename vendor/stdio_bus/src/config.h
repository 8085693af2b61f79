/*
 * config.h - the configuration, read strictly from JSON.
 */
#ifndef SB_CONFIG_H
#define SB_CONFIG_H

#include "protocol.h"

typedef enum { SB_RESTART_ALWAYS, SB_RESTART_ON_FAILURE, SB_RESTART_NEVER } sb_restart;
typedef enum { SB_STDERR_DEFAULT, SB_STDERR_LOG, SB_STDERR_INHERIT, SB_STDERR_NULL } sb_stderr; /* DEFAULT: the host decides */
typedef enum { SB_FRAMING_NDJSON, SB_FRAMING_LENGTH } sb_framing;

typedef struct {
    char *id;
    char *command; /* NULL only if there are no instances */
    char **args; /* NULL-terminated, without the command */
    size_t arg_count;
    uint32_t instances; /* 0: only workers that the host registers */
    char **env; /* NULL-terminated "NAME=value" */
    size_t env_count;
    bool inherit_env;
    char *cwd; /* NULL: the host's */
    sb_protocol protocol;
    sb_restart restart;
    sb_stderr stderr_mode;
    char *initialize; /* the JSON text of the object, or NULL */
    uint32_t init_timeout_sec;
    bool exclusive; /* each client gets a worker of its own; `instances` is how many may have one */
} sb_pool_config;

typedef struct {
    size_t max_input_buffer;
    size_t max_output_queue;
    uint32_t max_restarts;
    uint32_t restart_window_sec;
    uint32_t drain_timeout_sec;
    uint32_t backpressure_timeout_sec;
    uint32_t stall_timeout_sec; /* 0: never */
    uint32_t max_sessions;
    uint32_t session_idle_sec; /* 0: never */
    uint32_t max_pending;
    uint32_t max_clients;
} sb_limits;

typedef struct {
    sb_pool_config *pools;
    size_t pool_count;
    size_t default_pool; /* index, or SIZE_MAX */
    sb_limits limits;
    sb_framing framing;
    char **warnings; /* unknown keys and the like, one sentence each */
    size_t warning_count;
} sb_config;

/* Longest configuration text, in bytes. */
#define SB_CONFIG_MAX (64u << 20)

/* Room for an error message, with its NUL. */
#define SB_CONFIG_ERROR_MAX 512

/*
 * Fills `config` from JSON text. Returns STDIO_BUS_OK; or STDIO_BUS_ERR_CONFIG
 * with a message in `error` ("config: line 3, column 14: pools[0].instances:
 * must be a whole number from 0 to 65536, not -1") and `config` empty.
 */
int sb_config_parse(sb_config *config, sb_span text, char error[SB_CONFIG_ERROR_MAX]);

/* The same from a file; what can't be read is STDIO_BUS_ERR_CONFIG too, naming path and reason. */
int sb_config_load(sb_config *config, const char *path, char error[SB_CONFIG_ERROR_MAX]);

/* Whether two pools are the same in everything. */
bool sb_pool_config_equal(const sb_pool_config *a, const sb_pool_config *b);

/* Frees what a pool's configuration holds, and empties it. */
void sb_pool_config_free(sb_pool_config *config);

/* Frees what parse allocated, and empties `config`. */
void sb_config_free(sb_config *config);

#endif
