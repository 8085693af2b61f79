/*
 * listener.h - a TCP or Unix socket on which clients connect.
 */
#ifndef SB_LISTENER_H
#define SB_LISTENER_H

#include <sys/types.h>

#include "ctx.h"

typedef struct {
    sb_ctx *ctx;
    sb_io io;
    sb_timer timer; /* pause after accept failed */
    bool tcp;
    char *address; /* "127.0.0.1:4711", "[::1]:4711" or the path */
    dev_t device;  /* of the socket file that is ours to remove */
    ino_t inode;
} sb_listener;

#define SB_LISTENER_ERROR_MAX 512

/* Binds and listens. NULL with a message in `error`, which names the address and the reason. */
sb_listener *sb_listener_open_tcp(sb_ctx *ctx, const char *host, uint16_t port, char error[SB_LISTENER_ERROR_MAX]);
sb_listener *sb_listener_open_unix(sb_ctx *ctx, const char *path, mode_t mode, char error[SB_LISTENER_ERROR_MAX]);

/* Closes it, removes its socket file if that is still the one it made, and frees it. */
void sb_listener_close(sb_listener *listener);

#endif
