/*
 * listener.h - a TCP or Unix socket on which clients connect.
 */
#ifndef SB_LISTENER_H
#define SB_LISTENER_H

#include <sys/types.h>

#include "ctx.h"

struct sb_listener {
    sb_ctx *ctx;
    sb_io io;
    sb_timer timer; /* pause after accept failed */
    bool tcp;
    bool length_framed;
    bool owns_file; /* the socket file is ours to remove */
    bool borrowed;  /* the descriptor is still the host's */
    sb_pool *pool;  /* of its clients, or NULL */
    char *token;    /* what clients have to show first, or NULL */
    size_t token_len;
    uint32_t *uids; /* users that may connect, besides the bus's own and root */
    size_t uid_count;
    char *address; /* "127.0.0.1:4711", "[::1]:4711" or the path */
    dev_t device;  /* of the socket file */
    ino_t inode;
};

/* Who may own the socket file of a Unix listener, besides its user. */
typedef struct {
    mode_t mode;
    bool set_group;
    gid_t group;
} sb_unix_access;

#define SB_LISTENER_ERROR_MAX 512

/* Binds and listens. NULL with a message in `error`, which names the address and the reason. */
sb_listener *sb_listener_open_tcp(sb_ctx *ctx, const char *host, uint16_t port, char error[SB_LISTENER_ERROR_MAX]);
sb_listener *sb_listener_open_unix(sb_ctx *ctx, const char *path, sb_unix_access access,
                                   char error[SB_LISTENER_ERROR_MAX]);

/*
 * Listens on a socket that is bound already, as a service manager hands it
 * down. It stays the caller's, and as it was, until it is kept.
 */
sb_listener *sb_listener_adopt(sb_ctx *ctx, int fd, char error[SB_LISTENER_ERROR_MAX]);

/* Takes it over. Does nothing with a socket that was the bus's from the beginning. */
void sb_listener_keep(sb_listener *listener);

/* Whether this is the listener's token; takes as long for any of the same length. */
bool sb_listener_knows(const sb_listener *listener, sb_span token);

/* Closes it, removes its socket file if that is still the one it made, and frees it. */
void sb_listener_close(sb_listener *listener);

#endif
