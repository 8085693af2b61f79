/*
 * dispatch.h - what the files of the way of a message share: dispatch.c (what
 * clients send), route.c (pool, session, worker), to_client.c (what workers
 * send) and depart.c (what ends when somebody leaves).
 */
#ifndef SB_DISPATCH_H
#define SB_DISPATCH_H

#include "bus.h"
#include "scan.h"

/* Refuses a client's message: an answer, or for the host without answers just the status. */
int sb_refuse(stdio_bus_t *bus, const sb_sender *sender, sb_span id, const sb_error *error, int status);

/* The same for a message of either kind; a notification gets no answer, it is counted instead. */
int sb_refuse_message(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame,
                      const sb_error *error, int status);

/* Routes a request or notification. A status. */
int sb_route(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame);

/* Whether a token is a string that is not empty. */
static inline bool sb_is_text(sb_span token)
{
    return token.len > 2 && token.ptr[0] == '"';
}

/* Plain text of a string token, valid until the next call. Absent without memory or with a broken escape. */
sb_span sb_plain_text(stdio_bus_t *bus, sb_span token);

/* The session a message names: the token of the root member, else of the one in params; or absent. */
sb_span sb_session_token(const sb_envelope *envelope, sb_span frame);

/* Whether the bus makes up every id towards the pool's workers. */
static inline bool sb_issues_ids(const sb_pool *pool)
{
    return pool->config.protocol == SB_PROTOCOL_MCP || pool->config.protocol == SB_PROTOCOL_ACP;
}

#endif
