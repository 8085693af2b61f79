/*
 * launch.h - starts the process that a pool's configuration describes.
 */
#ifndef SB_LAUNCH_H
#define SB_LAUNCH_H

#include "ctx.h"
#include "spawn.h"

/* Starts it. Returns 0 or an errno value. */
int sb_launch(const sb_ctx *ctx, const sb_pool_config *config, sb_child *child);

/*
 * Whether the program can be executed, as far as that can be told without doing it: 0 or an errno value, and in
 * that case what of it can't be done.
 */
int sb_launch_check(const sb_pool_config *config, const char **step);

#endif
