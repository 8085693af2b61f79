/*
 * spawn.h - starts a child process as a plan describes it. What the child does
 * between fork and exec is a fixed list of async-signal-safe steps.
 */
#ifndef SB_SPAWN_H
#define SB_SPAWN_H

#include <sys/types.h>

#include "base.h"

typedef enum { SB_CHILD_STDERR_PIPE, SB_CHILD_STDERR_INHERIT, SB_CHILD_STDERR_NULL } sb_child_stderr;

typedef struct {
    const char *path; /* to execute, as sb_spawn_resolve found it */
    char *const *argv;
    char *const *envp;
    const char *cwd; /* NULL: the host's */
    sb_child_stderr stderr_mode;
    bool parent_death_signal; /* SIGTERM when the calling thread ends (Linux) */
} sb_spawn_plan;

typedef struct {
    pid_t pid;
    int to;      /* its stdin; non-blocking, like all of these */
    int from;    /* its stdout */
    int err;     /* its stderr, or -1 */
    int verdict; /* end of file once it was executed, else an error report; see sb_spawn_verdict */
} sb_child;

/* Starts the child in a process group of its own. Returns 0 or an errno value. */
int sb_spawn(const sb_spawn_plan *plan, sb_child *child);

typedef enum { SB_SPAWN_UNDECIDED, SB_SPAWN_EXECUTED, SB_SPAWN_FAILED } sb_spawn_result;

/* Reads the verdict; after SB_SPAWN_FAILED *error says why and *step what was tried ("execute", "enter directory"). */
sb_spawn_result sb_spawn_verdict(int verdict, int *error, const char **step);

/*
 * Finds a program as a shell would: a name without '/' along `search` (the
 * value of PATH; NULL means the system's default). The result is to be freed;
 * NULL with *error set to an errno value if there is none.
 */
char *sb_spawn_resolve(const char *command, const char *search, int *error);

#endif
