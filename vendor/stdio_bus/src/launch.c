#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "fd.h"

extern char **environ;

static const char *env_value(char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; env != NULL && *env != NULL; env++) {
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=') return *env + len + 1;
    }
    return NULL;
}

static bool env_has(char *const *env, const char *entry)
{
    size_t len = strcspn(entry, "=");
    for (; env != NULL && *env != NULL; env++) {
        if (strncmp(*env, entry, len) == 0 && (*env)[len] == '=') return true;
    }
    return false;
}

/* The pool's own variables, then the host's that they don't replace. Freed by the caller; NULL without memory. */
static char **make_env(const sb_pool_config *config)
{
    size_t count = config->env_count, host = 0;
    char **env;
    while (config->inherit_env && environ != NULL && environ[host] != NULL) host++;
    env = sb_alloc((count + host + 1) * sizeof *env);
    if (env == NULL) return NULL;
    for (size_t i = 0; i < count; i++) env[i] = config->env[i];
    for (size_t i = 0; i < host; i++) {
        if (!env_has(config->env, environ[i])) env[count++] = environ[i];
    }
    env[count] = NULL;
    return env;
}

static char **make_argv(const sb_pool_config *config)
{
    char **argv = sb_alloc((config->arg_count + 2) * sizeof *argv);
    if (argv == NULL) return NULL;
    argv[0] = config->command;
    for (size_t i = 0; i < config->arg_count; i++) argv[i + 1] = config->args[i];
    argv[config->arg_count + 1] = NULL;
    return argv;
}

static sb_child_stderr stderr_plan(const sb_ctx *ctx, const sb_pool_config *config)
{
    switch (config->stderr_mode) {
    case SB_STDERR_INHERIT: return SB_CHILD_STDERR_INHERIT;
    case SB_STDERR_NULL: return SB_CHILD_STDERR_NULL;
    case SB_STDERR_LOG: return SB_CHILD_STDERR_PIPE;
    case SB_STDERR_DEFAULT: break;
    }
    return ctx->stderr_inherit ? SB_CHILD_STDERR_INHERIT : SB_CHILD_STDERR_PIPE;
}

/* Where the program is. Freed by the caller; NULL with *error set. */
static char *find_program(const sb_pool_config *config, int *error)
{
    const char *search = env_value(config->env, "PATH");
    return sb_spawn_resolve(config->command, search != NULL ? search : getenv("PATH"), error);
}

int sb_launch(const sb_ctx *ctx, const sb_pool_config *config, sb_child *child)
{
    sb_spawn_plan plan = {0};
    char **argv = make_argv(config), **env = make_env(config), *path = NULL;
    int error = ENOMEM;
    if (argv != NULL && env != NULL) path = find_program(config, &error);
    if (path != NULL) {
        plan.path = path;
        plan.argv = argv;
        plan.envp = env;
        plan.cwd = config->cwd;
        plan.stderr_mode = stderr_plan(ctx, config);
        plan.parent_death_signal = ctx->parent_death_signal;
        error = sb_spawn(&plan, child);
    }
    sb_free(path);
    sb_free(env);
    sb_free(argv);
    return error;
}

int sb_launch_check(const sb_pool_config *config, const char **step)
{
    int error = 0, dir = AT_FDCWD;
    char *path = find_program(config, &error);
    *step = "execute";
    if (path == NULL) return error;
    error = 0;
    if (config->cwd != NULL) dir = sb_fd_clear(open(config->cwd, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (dir == -1) *step = "enter the directory of";
    if (dir == -1 || faccessat(dir, path, X_OK, 0) != 0) error = errno;
    if (dir >= 0) close(dir);
    sb_free(path);
    return error;
}
