/*
 * protocol.h - what frames of MCP and ACP mean to the bus: a table of methods
 * per protocol, the paths of the fields it understands, and the few frames it
 * sends itself. Pure. The next revision of a protocol is a change in here.
 *
 * Sources: MCP revisions 2024-11-05 to 2025-11-25 (with a handshake) and
 * 2026-07-28 (stateless); ACP protocol version 1.
 */
#ifndef SB_PROTOCOL_H
#define SB_PROTOCOL_H

#include "buf.h"

/* Those from MCP on are understood: the bus issues every id. */
typedef enum { SB_PROTOCOL_AUTO, SB_PROTOCOL_NDJSON, SB_PROTOCOL_MCP, SB_PROTOCOL_ACP } sb_protocol;

/* What a method asks of the bus, beyond being handed on. */
typedef enum {
    SB_MEANS_NOTHING,
    /* requests of clients */
    SB_MEANS_INITIALIZE,    /* belongs to the pool */
    SB_MEANS_STATELESS,     /* MCP 2026-07-28: if it is answered, the pool needs no handshake */
    SB_MEANS_NEW_SESSION,   /* the result names a session that the worker has created */
    SB_MEANS_LOAD_SESSION,  /* makes one out of the session in the params */
    SB_MEANS_CLOSE_SESSION, /* ends it */
    SB_MEANS_PROMPT,        /* a turn of a session, until its answer */
    /* requests of workers */
    SB_MEANS_PERMISSION, /* declined by an outcome, not by an error */
    SB_MEANS_PING,       /* answered for whoever can't */
    SB_MEANS_LAST_REQUEST = SB_MEANS_PING,
    /* notifications of clients */
    SB_MEANS_INITIALIZED, /* belongs to the pool */
    SB_MEANS_CANCEL_TURN, /* ends a turn early */
    /* of either side */
    SB_MEANS_CANCEL,   /* names a request of its sender, who no longer wants it answered */
    SB_MEANS_PROGRESS, /* belongs to the request whose token it carries */
    /* of workers */
    SB_MEANS_LIST_CHANGED, /* concerns every client of the worker */
    SB_MEANINGS            /* how many there are */
} sb_meaning;

/* What a client's message means to a pool that speaks this protocol. */
sb_meaning sb_protocol_client_means(sb_protocol protocol, sb_span method);

/* What a worker's message means. Told by its form, whatever the pool speaks. */
sb_meaning sb_protocol_worker_means(sb_span method);

/* The protocol that an initialize with these params belongs to; SB_PROTOCOL_AUTO if it is none of ours. */
sb_protocol sb_protocol_of_initialize(sb_span params);

/*
 * Fields, as tokens in the frame; absent where there is none of the right
 * type. What they are looked for in may be absent or of any type.
 */
sb_span sb_protocol_session(sb_span params_or_result); /* sessionId, a string that isn't empty */
sb_span sb_protocol_told_token(sb_span params);        /* of notifications/progress: progressToken */
sb_span sb_protocol_cancelled(sb_span params);         /* of a cancellation: requestId */
sb_span sb_protocol_meta(sb_span params);              /* _meta, an object: the next three are in it */
sb_span sb_protocol_asked_token(sb_span meta);         /* of a request: progressToken */
sb_span sb_protocol_subscription(sb_span meta);        /* io.modelcontextprotocol/subscriptionId */
bool sb_protocol_is_stateless(sb_span meta); /* a version, as every request of MCP 2026-07-28 has [Base Protocol] */

/* Whether who cancels a request waits for no answer any more [MCP Cancellation]; else there will still be one. */
static inline bool sb_protocol_ends_wait(sb_protocol protocol)
{
    return protocol == SB_PROTOCOL_MCP;
}

/* Frames, appended without a newline. False without memory. */
bool sb_protocol_put_initialize(sb_buf *out, sb_span id, sb_span params);
bool sb_protocol_put_initialized(sb_buf *out);
bool sb_protocol_put_cancel(sb_buf *out, sb_protocol protocol, sb_span id);
bool sb_protocol_put_ping(sb_buf *out, sb_span id); /* MCP up to 2025-11-25 [Ping] */
bool sb_protocol_put_cancel_turn(sb_buf *out, sb_span session); /* `session` is plain text */

#endif
