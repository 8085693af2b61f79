/*
 * conn.h - one client on a socket or a pair of descriptors.
 */
#ifndef SB_CONN_H
#define SB_CONN_H

#include "sink.h"
#include "source.h"

struct sb_conn {
    sb_peer peer;
    sb_ctx *ctx;
    int id; /* never used again */
    sb_conn *next, *prev; /* all clients; next also links those to be freed */
    sb_io io;   /* where it is read from; written to as well, if that is the same descriptor */
    sb_io wio;  /* where it is written to, if that is another one */
    sb_sink sink;
    sb_source source;
    sb_timer timer;      /* the earliest of the three that follow; UINT64_MAX where one isn't set */
    uint64_t eof_due;    /* end of the time a half-closed client is kept */
    uint64_t stall_due;  /* end of the time it may leave its answers unread */
    uint64_t auth_due;   /* end of the time it has for its token */
    uint32_t seen_written; /* of the sink's `written`, when it last got on */
    sb_pool *pool;       /* of its listener, or NULL */
    sb_pool *private_pools; /* see exclusive.c */
    sb_listener *listener; /* whose token it must show; NULL once that is done */
    bool tcp;
    bool pair;   /* descriptors that were handed over, not accepted */
    bool greeted; /* its first frame has been judged */
    bool eof;    /* it has closed its sending side */
    bool overdue; /* and waited for its last answers as long as it may */
    bool leaves_at_eof; /* it speaks MCP or ACP, where that says that it is gone */
    bool closing; /* to be closed once its outbox is flushed */
    bool closed;
    int flags[2]; /* file status flags of handed-over descriptors, to be put back */
};

/* What kind of client it is. */
typedef struct {
    int fd_from, fd_to; /* may be the same */
    bool tcp;
    bool pair;
    bool length_framed;
    sb_pool *pool;                /* NULL: none of its own */
    sb_listener *listener; /* NULL: it needs no token */
} sb_conn_plan;

/* What a client may send and take before it has shown its token. */
#define SB_AUTH_FRAME_MAX 4096u
#define SB_AUTH_TIMEOUT_MS 5000u

/* Serves a client. NULL with errno set on failure; the descriptors stay the caller's then. */
sb_conn *sb_conn_open(sb_ctx *ctx, int id, const sb_conn_plan *plan);

/* It has shown its token. */
void sb_conn_admit(sb_conn *conn);

/* Closes it, tells the hook, and frees it at the end of the turn. */
void sb_conn_close(sb_conn *conn, const char *reason);

/* Reads nothing more; closes once what is queued has been written. */
void sb_conn_finish(sb_conn *conn);

/* Frees a closed client. */
void sb_conn_free(sb_conn *conn);

#endif
