/*
 * reap.h - learning that a child has ended, by its own pidfd or by asking for
 * its own pid; never for anybody else's children.
 */
#ifndef SB_REAP_H
#define SB_REAP_H

#include <sys/types.h>

#include "base.h"

/* How a process ended: one of the two is set. */
typedef struct {
    int code;   /* exit code, or -1 */
    int signal; /* signal number, or 0 */
} sb_exit;

/* A descriptor that is readable once the child has ended, or -1 where the system has none. */
int sb_reap_open(pid_t pid);

/* Whether the child has ended. It stays a zombie, so that its pid and its group's id are not used again. */
bool sb_reap_ended(pid_t pid);

/* Takes the child's exit status; the child must have ended. */
sb_exit sb_reap(pid_t pid);

#endif
