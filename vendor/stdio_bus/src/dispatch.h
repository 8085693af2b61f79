/*
 * dispatch.h - what the files of the way of a message share: dispatch.c (what
 * clients send), route.c (pool, session, worker), handshake.c and cancel.c
 * (what the bus itself has to do with), to_client.c (what workers send) and
 * depart.c (what ends when somebody leaves).
 */
#ifndef SB_DISPATCH_H
#define SB_DISPATCH_H

#include "bus.h"
#include "scan.h"

/* A client's request or notification on its way. */
typedef struct {
    const sb_sender *sender;
    const sb_envelope *envelope;
    sb_span frame;
    sb_pool *pool;      /* once it is known */
    sb_meaning meaning; /* to that pool */
    sb_span meta;       /* params._meta, where the pool speaks MCP; or absent */
} sb_message;

/* When a request was asked, in ticks: now, unless it has waited in a queue. */
static inline uint32_t sb_asked_at(const stdio_bus_t *bus, const sb_sender *sender)
{
    return sender->due != 0 ? sender->asked_at : bus->ctx.loop.ticks;
}

/* Refuses a client's message: an answer, or for the host without answers just the status. */
int sb_refuse(stdio_bus_t *bus, const sb_sender *sender, sb_span id, const sb_error *error, int status);

/* The same for a message of either kind; a notification gets no answer, it is counted instead. */
int sb_refuse_message(stdio_bus_t *bus, const sb_message *message, const sb_error *error, int status);

/* A message of a client that is dropped; it is counted. */
void sb_drop_message(stdio_bus_t *bus, const char *why);

/* Routes a request or notification. A status. */
int sb_route(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame);

/* Why a message can't be queued for this worker just now, on the account of the link's client; NULL if it can. */
const char *sb_no_room(const stdio_bus_t *bus, const sb_worker *worker, uint32_t link, const sb_envelope *envelope,
                       size_t len);

/* Hands a worker's answer to whoever had asked, under the id it was asked with. */
void sb_dispatch_answer(stdio_bus_t *bus, sb_peer *client, const sb_worker *worker, const sb_envelope *envelope,
                        sb_span frame, sb_span original);

/* No worker can take the message now: it is queued where one soon may, else refused. A status. */
int sb_route_later(stdio_bus_t *bus, const sb_message *message, uint32_t session, uint32_t *request);

/* Queues a message of this session (or SB_NONE) until it can be sent. A status; `request` is the entry in the router. */
int sb_pool_queue(stdio_bus_t *bus, const sb_message *message, uint32_t session, uint32_t *request);

/* Takes an initialize for a pool. A status. */
int sb_handshake_from_client(stdio_bus_t *bus, const sb_message *message);

/* Refuses what the pool's workers can't serve, after what has been agreed on with them. A status. */
int sb_handshake_refuse(stdio_bus_t *bus, const sb_message *message, const char *reason, const char *text);

/*
 * A client's notification that cancels something, or tells of progress with
 * what it was asked: goes by the id it names, whatever pool it would be routed
 * to. False if it names nothing of ours.
 */
bool sb_cancel_by_name(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame);

/* stdio_bus/cancel: the client gives up the request it names, under any protocol. False if it waits for none such. */
bool sb_cancel_own(stdio_bus_t *bus, const sb_sender *sender, sb_span params);

/* Plain text of a string token, valid until the next call. Absent without memory or with a broken escape. */
sb_span sb_plain_text(stdio_bus_t *bus, sb_span token);

/* The session a message names: the token of the root member, else of the one in params; or absent. */
sb_span sb_session_token(const sb_envelope *envelope, sb_span frame);

/* Whether the bus makes up every id towards the pool's workers. */
static inline bool sb_issues_ids(const sb_pool *pool)
{
    return pool->hello.protocol >= SB_PROTOCOL_MCP;
}

/* Whether the pool was told what it speaks: then nothing at the root of a message is for its workers. */
static inline bool sb_speaks_only(const sb_pool *pool)
{
    return pool->config.protocol >= SB_PROTOCOL_MCP;
}

/* Whether a client is itself a session, where it names none. */
static inline bool sb_is_stateful(const sb_pool *pool)
{
    return pool->hello.protocol == SB_PROTOCOL_ACP ||
           (pool->hello.protocol == SB_PROTOCOL_MCP && pool->hello.era == SB_ERA_HANDSHAKE);
}

#endif
