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
    sb_timer timer; /* end of the time a half-closed client is kept */
    bool tcp;
    bool pair;   /* descriptors that were handed over, not accepted */
    bool greeted; /* its first frame has been judged */
    bool eof;    /* it has closed its sending side */
    bool closing; /* to be closed once its outbox is flushed */
    bool closed;
    int flags[2]; /* file status flags of handed-over descriptors, to be put back */
};

/* Serves a client over these descriptors. NULL with errno set on failure; the descriptors stay the caller's then. */
sb_conn *sb_conn_open(sb_ctx *ctx, int id, int fd_from, int fd_to, bool tcp, bool pair);

/* Closes it, tells the hook, and frees it at the end of the turn. */
void sb_conn_close(sb_conn *conn, const char *reason);

/* Reads nothing more; closes once what is queued has been written. */
void sb_conn_finish(sb_conn *conn);

/* Frees a closed client. */
void sb_conn_free(sb_conn *conn);

#endif
