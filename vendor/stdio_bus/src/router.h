/*
 * router.h - who asked what of whom: peers, requests in both directions, ids
 * on the wire, sessions. Pure: no I/O, no clock.
 *
 * A peer is a client or a worker. A link joins one client and one worker that
 * have had to do with each other. A request hangs on a link, in one of two
 * directions, until it is answered or one side is gone. A request that was
 * given up leaves a tombstone with its holder, so that its id stays taken and
 * a late answer reaches nobody.
 */
#ifndef SB_ROUTER_H
#define SB_ROUTER_H

#include "balance.h"
#include "protocol.h"
#include "table.h"

typedef enum { SB_DOWN, SB_UP } sb_direction; /* client asks worker; worker asks client */

/* Requests in order of asking; entries of the router's slab. */
typedef struct {
    uint32_t head;
    uint32_t tail;
    uint32_t count;
} sb_request_list;

typedef struct {
    uint32_t key;          /* unique in this router, never used again */
    uint32_t links;        /* first link */
    uint32_t last_link;    /* the link used last, a short cut */
    uint32_t busy_links;   /* workers: first link with requests to answer */
    uint32_t next_link;    /* workers: of a walk over its links, which may be dropped meanwhile, the one to come */
    uint32_t sessions;     /* workers: first session bound here */
    uint32_t owned;        /* clients: first session that belongs to it */
    uint32_t session_count;
    uint32_t created;      /* workers: of those, the ones it has created */
    uint32_t opening;      /* workers: requests to create one that it has to answer */
    uint32_t pending;      /* requests it has to answer */
    uint32_t asked;        /* requests it waits for */
    bool worker;
    bool queue;            /* no process: what is given up here was sent to nobody and leaves no tombstone */
    bool stops;            /* it doesn't go on with what was given up: that is no load */
    sb_request_list tombs; /* given-up requests it may still answer */
    uint32_t tombs_made;   /* so far */
    uint64_t issued;       /* last id the bus made up towards it */
    sb_balance_node node;  /* workers: place in the pool's balance */
} sb_peer;

typedef struct {
    uint32_t next_of_client, prev_of_client; /* the client's links */
    uint32_t next_of_worker, prev_of_worker; /* the worker's links */
    uint32_t next_busy, prev_busy;           /* the worker's links with requests */
    sb_peer *client;
    sb_peer *worker;
    sb_request_list requests[2]; /* by sb_direction */
    uint32_t client_key;         /* 0 once the link is gone; see share.h */
    uint32_t given_up;           /* the worker's tombstones that hung here */
    size_t queued;               /* the client's bytes in the worker's outbox */
} sb_link;

typedef struct {
    uint32_t next, prev; /* in its link's list, or its holder's tombs */
    uint32_t link;       /* SB_NONE for a tombstone */
    uint32_t session;    /* SB_NONE without one; of a tombstone: the session whose turn it still holds up */
    union {
        uint32_t next_of_session;
        uint32_t owner; /* of a tombstone: the link it hung on */
    };
    union {
        uint32_t prev_of_session;
        uint32_t owner_key; /* and that link's client_key: one that is gone has another */
    };
    union {
        uint32_t asked_at;    /* in ticks of latency.h */
        uint32_t given_up_as; /* of a tombstone: its number among the holder's */
    };
    uint32_t wire_hash;   /* under which it stands in by_wire */
    sb_peer *holder;      /* who has to answer */
    uint64_t issued;     /* the number on the wire, or 0 if the asker's own id is there */
    uint32_t at;         /* where its frame begins among the bytes ever queued for the holder, modulo 2^32 */
    uint32_t serial : 24; /* tells this use of the entry from earlier ones */
    uint32_t up : 1;      /* sb_direction */
    uint32_t given_up : 1;
    uint32_t noted : 1;   /* sb_router_noted has something for it */
    uint32_t meaning : 4; /* sb_meaning */
    sb_text id;           /* the asker's token */
    uint32_t origin_hash; /* under which it stands in by_origin, where it does */
} sb_request;

typedef struct {
    uint32_t next_of_worker, prev_of_worker; /* sessions bound to that worker */
    uint32_t next_of_owner, prev_of_owner;   /* sessions that belong to that client */
    uint32_t newer, older;                   /* in the list of idle ones */
    uint32_t pool;     /* SB_NONE: the entry is free */
    uint32_t requests; /* first request of it that waits for an answer, in either direction */
    uint32_t turn;     /* the prompt of it that is pending, or SB_NONE */
    uint32_t ending;   /* tombstone of a turn that was given up and has not ended yet, or SB_NONE */
    uint32_t used_at;  /* seconds */
    bool created;      /* by its worker: ends with it, and not by being idle */
    bool own;          /* a client that is itself the session, and has no name: ends with it */
    sb_peer *worker;   /* NULL: not bound */
    sb_peer *owner;    /* the client it belongs to; NULL: the next one to use it */
    sb_text name;
} sb_session;

typedef struct {
    uint32_t newest;
    uint32_t oldest;
} sb_session_list;

typedef struct {
    uint64_t seed;
    uint32_t last_key;
    uint32_t max_sessions;
    uint32_t max_tombs; /* per peer */
    uint32_t pending;   /* live requests of direction SB_DOWN */
    sb_slab links;
    sb_slab requests;
    sb_slab sessions;
    sb_slab notes;
    sb_index by_pair;   /* (client, worker) -> link */
    sb_index by_wire;   /* (holder, id on the wire) -> request */
    sb_index by_origin; /* (asker, own id) -> request, where the wire has another id, or a worker asks */
    sb_index by_name;   /* (pool, name) -> session */
    sb_index by_note;   /* request -> note */
    sb_session_list idle; /* sessions that may be ended any time, by last use */
    uint32_t now;            /* seconds, as the caller last said: when a session is used */
} sb_router;

void sb_router_init(sb_router *router, uint64_t seed, uint32_t max_sessions);
void sb_router_free(sb_router *router);

/* Gives a zeroed peer its key. */
void sb_peer_init(sb_router *router, sb_peer *peer, bool worker);

/* What a worker's load is measured in. */
static inline uint32_t sb_peer_load(const sb_peer *worker)
{
    return worker->pending + (worker->stops ? 0 : worker->tombs.count);
}

/* The link of the two, made if needed; SB_NONE without memory. */
uint32_t sb_router_link(sb_router *router, sb_peer *client, sb_peer *worker);

/* Room for any decimal id and a NUL. */
#define SB_WIRE_MAX 24

/*
 * Records a request over `link`. The token that goes to the holder is written
 * to `wire` and returned as a span: the asker's own id, unless `issue` is set,
 * that id is in use there, or it is one that libraries re-spell; then a fresh
 * number. An absent span means out of memory, and nothing is recorded.
 */
sb_span sb_router_ask(sb_router *router, uint32_t link, sb_direction direction, sb_span id, bool issue,
                      uint32_t session, char wire[SB_WIRE_MAX], uint32_t *request);

/* A number for a request of the bus's own, that is in use nowhere towards `holder`. */
sb_span sb_router_issue(sb_router *router, sb_peer *holder, char wire[SB_WIRE_MAX]);

/* What stands on the wire for a request: its own id, or a number written to `wire`. */
sb_span sb_router_wire(const sb_router *router, uint32_t request, char wire[SB_WIRE_MAX]);

/* The number that an id token is, if the bus can have issued it; else 0. */
uint64_t sb_router_number(sb_span wire);

/* Whether the bus has once issued this id token towards `holder`. */
static inline bool sb_router_has_issued(const sb_peer *holder, sb_span wire)
{
    uint64_t number = sb_router_number(wire);
    return number != 0 && number <= holder->issued;
}

/* The request that `holder` answers with this id token, tombstones included; or SB_NONE. */
uint32_t sb_router_answered(const sb_router *router, const sb_peer *holder, sb_span wire);

/* The live request that `asker` asked under its own id token, or SB_NONE. */
uint32_t sb_router_asked(const sb_router *router, const sb_peer *asker, sb_span id);

/* Forgets a request: it was answered, or will never be. */
void sb_router_end(sb_router *router, uint32_t request);

/* The same, handing over the asker's id, which the caller frees. */
void sb_router_end_take(sb_router *router, uint32_t request, sb_text *id);

/* What a request asks for. */
void sb_router_mean(sb_router *router, uint32_t request, sb_meaning meaning);

/* Nobody waits for it any more: leaves a tombstone. */
void sb_router_give_up(sb_router *router, uint32_t request);

/* The same for a turn: until it is answered, its session is `ending`. */
void sb_router_give_up_turn(sb_router *router, uint32_t request);

/* Forgets the tombstones of a holder up to the one with this number. */
void sb_router_forget(sb_router *router, sb_peer *holder, uint32_t number);

/* Keeps a token that the asker gave a request, for as long as it is pending. False without memory. */
bool sb_router_note(sb_router *router, uint32_t request, sb_span token);
sb_span sb_router_noted(const sb_router *router, uint32_t request);

static inline sb_request *sb_router_request(const sb_router *router, uint32_t request)
{
    return sb_slab_at(&router->requests, request);
}

static inline sb_link *sb_router_link_at(const sb_router *router, uint32_t link)
{
    return sb_slab_at(&router->links, link);
}

static inline sb_session *sb_router_session_at(const sb_router *router, uint32_t session)
{
    return sb_slab_at(&router->sessions, session);
}

/* Who asked a live request. */
sb_peer *sb_router_asker(const sb_router *router, const sb_request *request);

/* The first request of `direction` that still hangs on a link of this peer, or SB_NONE. */
uint32_t sb_router_first(const sb_router *router, const sb_peer *peer, sb_direction direction);

/* How many requests of a peer's outbox, those given up included, begin at byte `at` or later (see sb_request.at). */
uint32_t sb_router_held_since(const sb_router *router, const sb_peer *holder, uint32_t at);

/*
 * Removes a peer. Its requests must have been ended or given up; its
 * tombstones and links go. A worker's sessions are unbound, or end if it had
 * created them. A client's sessions belong to whoever uses them next.
 */
void sb_router_remove(sb_router *router, sb_peer *peer);

/*
 * A session of this pool by name, made if `create`; SB_NONE if there is none,
 * or no room: the table is full of sessions with requests pending, or memory
 * ran out. Counts as a use.
 */
uint32_t sb_router_session(sb_router *router, uint32_t pool, sb_span name, bool create);

/* Ends the sessions that wait for nothing and were last used, or had their last answer, before `before` (seconds). */
void sb_router_end_idle(sb_router *router, uint32_t before);

/* Ends every session of a pool that is no more. */
void sb_router_end_sessions(sb_router *router, uint32_t pool);

/* The session that a client itself is in a pool; made if needed. SB_NONE as above. */
uint32_t sb_router_own_session(sb_router *router, uint32_t pool, sb_peer *client);

void sb_session_bind(sb_router *router, uint32_t session, sb_peer *worker);
/* A worker has created it, for this client. */
void sb_session_create(sb_router *router, uint32_t session, sb_peer *worker, sb_peer *client);
void sb_session_give(sb_router *router, uint32_t session, sb_peer *owner);
void sb_session_end(sb_router *router, uint32_t session);

/* For router.c: a request begins or ceases to be pending in a session; what holds up its next turn (or SB_NONE). */
void sb_session_attach(sb_router *router, uint32_t session, uint32_t request);
void sb_session_detach(sb_router *router, uint32_t request);
void sb_session_hold(sb_router *router, uint32_t session, uint32_t tomb);

/* The request of a client that what is said in the session belongs to: its prompt, else the newest; or SB_NONE. */
uint32_t sb_session_waiting(const sb_router *router, uint32_t session);

/* The client with this key, if it is linked with the worker; or NULL. */
sb_peer *sb_router_linked_client(const sb_router *router, uint32_t client_key, const sb_peer *worker);

/*
 * The only client with a request pending on the worker, else with none pending
 * the only one linked; or NULL. As long as a worker may still speak of what
 * others have given up, there is no telling.
 */
sb_peer *sb_router_only_client(const sb_router *router, const sb_peer *worker);

#endif
