/*
 * bus.h - what makes up a bus, and how its parts call each other.
 */
#ifndef SB_BUS_H
#define SB_BUS_H

#include "answer.h"
#include "conn.h"
#include "listener.h"
#include "splice.h"
#include "stdio_bus_ext.h"
#include "worker.h"

/* Who sends a message, and what was said beside it. */
typedef struct {
    sb_peer *peer;
    sb_conn *conn;       /* NULL: the host */
    bool answer_errors;  /* refusals become answers; else only a status */
    sb_span session;     /* plain text; absent: as the message says */
    sb_span pool;
    uint64_t due;        /* until when it may wait in a queue; 0: as its pool says, and it has not waited yet */
    uint32_t asked_at;   /* of a request that has waited: see sb_request */
} sb_sender;

/* A message that waits for a worker of its pool to become ready. */
typedef struct sb_queued {
    struct sb_queued *next;
    uint32_t client;  /* key of its sender */
    uint32_t request; /* entry in the router; SB_NONE for a notification */
    uint32_t serial;  /* of that entry: another one means the request is over */
    bool turn;        /* a prompt of the session */
    uint64_t due;     /* until when it waits */
    size_t session_len; /* SIZE_MAX: of no session that has a name */
    size_t len;
    char data[]; /* session (plain text), then the frame */
} sb_queued;

/* Which kind of MCP a pool's workers speak. */
typedef enum { SB_ERA_UNKNOWN, SB_ERA_HANDSHAKE, SB_ERA_STATELESS } sb_era;

/* What a pool has agreed on with its workers; see handshake.c. */
typedef struct {
    sb_protocol protocol; /* what they speak; SB_PROTOCOL_AUTO until that shows */
    sb_era era;
    sb_buf params;   /* of the initialize that each of them gets; empty: none is known */
    sb_buf result;   /* what the first of them has answered; empty: none has */
    uint32_t round;  /* changes with the params */
    uint32_t asker;  /* the request in the queue whose params these are, or SB_NONE */
    uint32_t serial; /* of that entry */
    sb_timer timer;  /* looks for workers that don't answer */
    const char *trouble; /* what was wrong with the last worker that didn't do it; NULL: nothing */
} sb_handshake;

struct sb_pool {
    sb_pool *next;         /* of the retired, or the private ones */
    sb_pool *model;        /* the exclusive pool that this one is a private one of, or NULL; see exclusive.c */
    sb_pool *next_of_tenant;
    sb_peer *tenant;       /* the client that a private pool is for; NULL once that has left */
    uint32_t taken;        /* of an exclusive pool: clients that have a private one now */
    uint32_t copies;       /* private pools that still exist: they share its configuration */
    sb_pool_config config; /* its own copy */
    uint32_t key;          /* never used again: what its sessions are filed under */
    sb_worker *workers;    /* slots that are its own, linked by next_of_pool */
    sb_worker **last_link; /* where the next one is linked */
    bool started;          /* its workers have been started */
    bool retired;          /* replaced by a reload, or its client is gone: its workers finish what they have */
    uint64_t end_due;      /* when the workers of a retired pool are stopped, whatever they have */
    sb_balance balance;    /* its ready workers */
    sb_handshake hello;
    sb_peer waiting;    /* holds the requests in the queue */
    stdio_bus_t *bus;
    sb_timer queue_timer; /* the first of the queue has waited long enough */
    sb_queued *head, *tail;
    size_t queued_bytes;
    /* Counted with the model of a private pool, which outlives it. */
    uint64_t requests; /* given to its workers */
    uint64_t restarts; /* of its workers */
    sb_latency latency; /* of their answers */
};

/* Where what a pool does is counted. */
static inline sb_pool *sb_pool_counted(sb_pool *pool)
{
    return pool->model != NULL ? pool->model : pool;
}

/* A frame the bus made for the host, to be handed out by the next step. */
typedef struct sb_letter {
    struct sb_letter *next;
    uint32_t kind; /* STDIO_BUS_FRAME_* */
    int32_t worker;
    uint32_t generation;
    size_t id_at, id_len;
    size_t len;
    char data[];
} sb_letter;

struct stdio_bus {
    sb_ctx ctx; /* first, so that a ctx is its bus */
    sb_config config;
    stdio_bus_options_t options; /* callbacks and user data; its strings are not ours */
    stdio_bus_ext_options_t ext;
    stdio_bus_state_t state;
    sb_pool **pools; /* as the configuration lists them */
    size_t pool_count;
    sb_pool *default_pool;
    sb_pool *retired;
    sb_pool *private_pools;
    sb_pool *host_pools; /* those of them that are the host's */
    uint32_t last_pool_key;
    sb_worker **workers; /* by id */
    size_t worker_count;
    sb_worker *free_slots; /* workers that no pool has, linked by next_of_pool */
    sb_listener **listeners;
    size_t listener_count;
    stdio_bus_listen_options_t first_listener; /* from the v2 options, opened by start */
    char *first_host, *first_path;
    sb_peer host;
    bool no_host; /* the host isn't interested in what belongs to nobody */
    sb_conn *clients;
    sb_conn *closed; /* to be freed at the end of the step */
    int client_count;
    int strangers; /* clients that have not shown their token yet */
    int last_client_id;
    sb_letter *letters, *last_letter;
    sb_buf compose; /* a frame while it is put together */
    sb_buf plain;   /* a session name while it is decoded */
    sb_buf request; /* the id of a request while the host hears of it */
    sb_timer retire_timer; /* when the workers of a retired pool are stopped */
    sb_timer idle_timer; /* looks for idle sessions */
    sb_timer timer; /* end of draining, or of stopping */
    uint64_t grace_ms; /* for the stop that follows draining */
    uint64_t stop_ms;  /* for the stop that was asked for inside a callback */
    bool stop_wanted;
    bool draining;
    bool warned_open; /* that others can reach a listener */
    bool overdue; /* the time for stopping has passed */
    unsigned calls; /* functions that may call back and run now; 0: the host is outside */
    bool whole;     /* create got to its end */
    pid_t process;  /* that has created it */
    bool destroy_wanted;
    stdio_bus_stats_t stats;
    stdio_bus_ext_stats_t more;
};

static inline stdio_bus_t *sb_bus_of(sb_ctx *ctx)
{
    return (stdio_bus_t *)(void *)ctx;
}

/* ---- bus.c ------------------------------------------------------------------ */

/*
 * Every function of the API that may call the host back enters first and
 * leaves at its end. The outermost makes the poll fd agree with what is to be
 * done, and destroys the bus if a callback has asked for that: the bus must
 * not be touched after leaving.
 */
void sb_bus_enter(stdio_bus_t *bus);
void sb_bus_leave(stdio_bus_t *bus);

/* Whether a function of the API, which has not entered yet, was called from inside a callback. */
static inline bool sb_bus_in_callback(const stdio_bus_t *bus)
{
    return bus->calls > 0;
}

/* The same for one that has entered. */
static inline bool sb_bus_is_nested(const stdio_bus_t *bus)
{
    return bus->calls > 1;
}

/* A session is used: the router has to know when, where idle ones are to be ended. */
void sb_bus_tell_time(stdio_bus_t *bus);

/* stdio_bus_stop_within without its checks. */
int sb_bus_stop(stdio_bus_t *bus, uint64_t timeout_ms);

/* stdio_bus_submit without its checks. */
int sb_bus_submit(stdio_bus_t *bus, const sb_sender *sender, sb_span frame);

/* ---- dispatch.c: the way of a message ----------------------------------------- */

/* Takes a message from a client or the host. Returns a status; a client has its answer by then. */
int sb_dispatch_from_client(stdio_bus_t *bus, const sb_sender *sender, sb_span frame);
void sb_dispatch_client_oversize(stdio_bus_t *bus, const sb_sender *sender, sb_span beginning);
void sb_dispatch_from_worker(stdio_bus_t *bus, sb_worker *worker, sb_span frame);
void sb_dispatch_worker_oversize(stdio_bus_t *bus, sb_worker *worker, sb_span beginning);

/* Refuses a client that did not show its token, and closes it. */
void sb_dispatch_turn_away(stdio_bus_t *bus, sb_conn *conn, sb_span id);

/* Queues a frame for a worker, on the account of the link's client or (SB_NONE) of nobody. False without memory. */
bool sb_dispatch_send(stdio_bus_t *bus, sb_worker *worker, uint32_t link, sb_span frame, const sb_edits *edits);

/* Sends a message into a pool whose sender has been looked at before. */
int sb_dispatch_to_pool(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span frame);

/* Queues a frame that was put together for a worker. False without memory, or if it takes none any more. */
bool sb_dispatch_put(stdio_bus_t *bus, sb_worker *worker, const sb_buf *text);

/* ---- handshake.c: what a pool and its workers agree on ------------------------------ */

/* From the pool's configuration. False without memory. */
bool sb_handshake_init(stdio_bus_t *bus, sb_pool *pool);
void sb_handshake_free(stdio_bus_t *bus, sb_pool *pool);

/* The pool takes over what another one knows of its clients, unless its own configuration says more. */
void sb_handshake_inherit(sb_pool *pool, const sb_pool *from);

/* A worker was started. Whether it has to answer an initialize before it is ready. */
bool sb_handshake_begin(stdio_bus_t *bus, sb_worker *worker);

/* Whether an answer that can't be used, with this id, was meant for its initialize. */
/* The worker has written something that is no message. */
void sb_handshake_garbage(sb_worker *worker);

/* Why a worker of the pool is not ready, as what follows its name; NULL if the handshake is not the reason. */
const char *sb_handshake_trouble(const sb_pool *pool);

bool sb_handshake_unusable(stdio_bus_t *bus, sb_worker *worker, sb_span id);

/* Whether a worker's answer was that to its initialize (which is out); it has been dealt with then. */
bool sb_handshake_answered(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame);

/* ---- cancel.c: requests that nobody wants answered any more ----------------------------- */

/* Whether a worker's answer was that to the ping of the bus (which is out). */
bool sb_cancel_fenced(stdio_bus_t *bus, sb_worker *worker, sb_span id);

/* Nobody waits for a client's request any more: its worker is told, and what it still says goes nowhere. */
void sb_dispatch_give_up(stdio_bus_t *bus, uint32_t request);

/*
 * A worker's question needs no answer any more, and its client is told so.
 * `declined`: the worker gets the one that says that there was none.
 */
void sb_dispatch_withdraw(stdio_bus_t *bus, uint32_t request, bool declined);

/* ---- depart.c: when somebody leaves ------------------------------------------------ */

/* Answers a worker's request that no client can answer. */
void sb_dispatch_decline(stdio_bus_t *bus, sb_worker *worker, sb_span id, sb_meaning meaning);

/* Ends what a worker asked a client, who can't answer it. */
void sb_dispatch_decline_asked(stdio_bus_t *bus, uint32_t request);

/* Ends one request with an error. */
void sb_dispatch_fail(stdio_bus_t *bus, uint32_t request, const sb_error *error, int worker, uint32_t generation);

/* A client's answer with this id can't be used: the worker that waits for it is told. */
void sb_dispatch_decline_answered(stdio_bus_t *bus, sb_peer *client, sb_span id);

/* A pool has failed: everything in its queue ends with this error. */
void sb_dispatch_fail_queued(stdio_bus_t *bus, sb_pool *pool, const sb_error *error);

/*
 * Somebody is gone whose sink has been closed: counts as dropped what had not
 * been written, and returns how much that is. Requests are not in it: they end
 * in their own way. To be called while the router still knows them.
 */
uint32_t sb_dispatch_count_unsent(stdio_bus_t *bus, const sb_peer *peer, const sb_sink *sink);

/* A worker is gone: everything it had to answer ends with this error, which is told what had been sent. */
void sb_dispatch_fail_held(stdio_bus_t *bus, sb_worker *worker, sb_error *error);

/* A worker is gone: what it asked clients is no longer asked. */
void sb_dispatch_forget_asked(stdio_bus_t *bus, sb_peer *worker);

/* A client can't answer any more: the workers that wait for it are told. */
void sb_dispatch_decline_held(stdio_bus_t *bus, sb_peer *client);

/* A client is gone: what it asked is given up. */
void sb_dispatch_give_up_asked(stdio_bus_t *bus, sb_peer *client);

/* The same, but the client, which is still there, is told of each. */
void sb_dispatch_fail_asked(stdio_bus_t *bus, sb_peer *client, const sb_error *error);

/* ---- deliver.c: to clients and the host ------------------------------------------ */

typedef struct {
    uint32_t kind;     /* STDIO_BUS_FRAME_* */
    int32_t worker;    /* -1 for none */
    uint32_t generation;
    sb_span frame;
    const sb_edits *edits; /* NULL: as it is */
    sb_member id;
    sb_span new_id;    /* what the edits make of it; absent: unchanged */
    sb_member session;
    uint32_t request;  /* the pending request it belongs to without answering it, or SB_NONE */
} sb_delivery;

/* Hands a frame to a client or the host. False if it was dropped, which has been counted. */
bool sb_deliver(stdio_bus_t *bus, sb_peer *client, const sb_delivery *delivery);

/* Answers with an error made by the bus. */
void sb_deliver_error(stdio_bus_t *bus, sb_peer *client, sb_span id, const sb_error *error, int worker,
                      uint32_t generation);

/* Answers with a result made by the bus, which is JSON text. */
void sb_deliver_result(stdio_bus_t *bus, sb_peer *client, sb_span id, sb_span result);

/* Hands over a notification made by the bus. */
void sb_deliver_notice(stdio_bus_t *bus, sb_peer *client, const sb_buf *text, const sb_worker *worker);

/* Hands out the letters that are there now. Returns how many. */
int sb_deliver_letters(stdio_bus_t *bus);

/* The client a peer belongs to; NULL for the host. */
sb_conn *sb_conn_of(stdio_bus_t *bus, sb_peer *client);

/* ---- pool.c: workers and when to start them again ---------------------------------- */

/* Makes pools and worker slots from the configuration. False without memory. */
bool sb_pools_init(stdio_bus_t *bus);

/* A pool that takes over this configuration, which is empty then; with its worker slots. NULL without memory. */
sb_pool *sb_pool_new(stdio_bus_t *bus, sb_pool_config *config);

/* A private pool of an exclusive one. NULL without memory. */
sb_pool *sb_pool_new_private(stdio_bus_t *bus, sb_pool *model);

/* Has the workers of a new pool started, in a bus that runs. */
void sb_pool_start_workers(stdio_bus_t *bus, sb_pool *pool);

/* Frees a pool whose workers are gone; its slots become free. */
void sb_pool_free(stdio_bus_t *bus, sb_pool *pool);

/* Starts every worker and waits for the verdicts. A status; on_error has the reason. */
int sb_pools_start(stdio_bus_t *bus);

/* Stops every worker within the time. */
void sb_pools_stop(stdio_bus_t *bus, uint64_t timeout_ms);

/* Whether any worker runs. */
bool sb_pools_running(const stdio_bus_t *bus);

void sb_pools_free(stdio_bus_t *bus);

/* The pool with this id, or NULL. */
sb_pool *sb_pool_named(stdio_bus_t *bus, sb_span id);

/* The worker, which doesn't run, no longer belongs to its pool. */
void sb_pool_release(stdio_bus_t *bus, sb_worker *worker);

/* A new worker slot in a pool; NULL without memory. */
sb_worker *sb_pool_add_worker(stdio_bus_t *bus, sb_pool *pool);

/* Whether a worker of the pool may become ready without anybody doing anything. */
bool sb_pool_recovers(const sb_pool *pool);

/* Why a pool has no worker: adds to an error how one of its workers ended last. */
void sb_pool_explain(const sb_pool *pool, sb_error *error, char tail[SB_ANSWER_STDERR_MAX]);

/* A worker is ready: it gets its share of the messages from now on, and what is in the queue. */
void sb_pool_worker_ready(stdio_bus_t *bus, sb_worker *worker);

/* What workers report; see sb_hooks. */
void sb_pool_worker_started(sb_ctx *ctx, sb_worker *worker);
void sb_pool_worker_stalled(sb_ctx *ctx, sb_worker *worker);
void sb_pool_worker_reads(sb_ctx *ctx, sb_worker *worker);
void sb_pool_worker_writable(sb_ctx *ctx, sb_worker *worker);
void sb_pool_worker_stopping(sb_ctx *ctx, sb_worker *worker);
void sb_pool_worker_stopped(sb_ctx *ctx, sb_worker *worker);
void sb_pool_worker_retry(sb_ctx *ctx, sb_worker *worker);

/* ---- queue.c: messages that wait for a worker or a turn ------------------------------------ */

bool sb_queue_init(stdio_bus_t *bus, sb_pool *pool); /* false without memory */
void sb_queue_free(stdio_bus_t *bus, sb_pool *pool);

/* Sends what waits in a pool's queue on its way, into `to`, which may be another pool. */
void sb_pool_flush_queue(stdio_bus_t *bus, sb_pool *pool, sb_pool *to);

/* What waits in a pool's queue ends with an error. */
void sb_pool_fail_queue(stdio_bus_t *bus, sb_pool *pool);

/* Sends what waits there for this session (plain text) on its way. */
void sb_pool_flush_session(stdio_bus_t *bus, sb_pool *pool, sb_span session);

/* Turns of this session (plain text) that have not begun end as cancelled. */
void sb_pool_end_turns(stdio_bus_t *bus, sb_pool *pool, sb_span session);

/* ---- exclusive.c: pools that give each client a worker of its own ---------------------------- */

/* The private pool that a client has of this one, or NULL. */
sb_pool *sb_exclusive_find(stdio_bus_t *bus, const sb_pool *pool, sb_peer *client);

/* The same, made if needed; NULL if all are taken, or without memory. */
sb_pool *sb_exclusive_take(stdio_bus_t *bus, sb_pool *pool, sb_peer *client);

/* A client is gone. */
void sb_exclusive_leave(stdio_bus_t *bus, sb_peer *client);

/* A pool is replaced (`to` may be NULL): its clients go on with what takes its place. */
void sb_exclusive_replace(stdio_bus_t *bus, const sb_pool *pool, sb_pool *to);

/* ---- reload.c: another configuration while running ------------------------------------- */

/* A status; after anything but STDIO_BUS_OK nothing has changed. Takes over what it needs of `config`. */
int sb_reload(stdio_bus_t *bus, sb_config *config);

/* Whether the pool's workers could be started, as far as that shows beforehand; else an error for `what`. */
int sb_check_program(stdio_bus_t *bus, const char *what, const sb_pool_config *pool);

/* Tells why a pool's program can't be started: the step, as of sb_launch_check, and an errno value. */
void sb_report_launch(stdio_bus_t *bus, const char *what, const sb_pool_config *pool, const char *step, int error);

/* A pool takes nothing new; it is freed once its workers have ended. */
void sb_pool_retire(stdio_bus_t *bus, sb_pool *pool);

/* Stops the workers of retired pools that have nothing left to do, and frees pools without workers. */
void sb_reload_progress(stdio_bus_t *bus);

/* The time of a retired pool is over. */
void sb_reload_on_timer(sb_timer *timer);

/* ---- clients.c: connections and listeners --------------------------------------------- */

int sb_clients_adopt(stdio_bus_t *bus, const sb_conn_plan *plan);
void sb_clients_admit(stdio_bus_t *bus, sb_conn *conn); /* it has shown its token */
void sb_clients_accept(stdio_bus_t *bus, sb_listener *listener, int fd, const char *peer);
void sb_clients_close_all(stdio_bus_t *bus, const char *reason);
void sb_clients_free_closed(stdio_bus_t *bus);
void sb_clients_closed(sb_ctx *ctx, sb_conn *conn, const char *reason); /* see sb_hooks */
int sb_clients_listen(stdio_bus_t *bus, const stdio_bus_listen_options_t *options);
void sb_clients_close_listeners(stdio_bus_t *bus);

/* ---- report.c: log lines, errors and events -------------------------------------------- */

void sb_report_error(stdio_bus_t *bus, int code, const char *format, ...) SB_PRINTF(3, 4);
void sb_report_log(sb_ctx *ctx, int level, const char *message);

/* An event about a worker (NULL for none), filled as far as its kind needs it. */
void sb_report_worker(stdio_bus_t *bus, uint32_t kind, sb_worker *worker, sb_span text, uint32_t delay_ms);
void sb_report_client(stdio_bus_t *bus, uint32_t kind, const sb_conn *conn, const char *text);
/* What sb_dispatch_count_unsent has counted; about a worker or a client, the other is NULL. */
void sb_report_unsent(stdio_bus_t *bus, sb_worker *worker, const sb_conn *conn, uint32_t count, const char *why);
void sb_report_lost(stdio_bus_t *bus, uint32_t kind, sb_worker *worker, const char *why);

/* hooks.c: joins the parts below the bus to it. */
extern const sb_hooks sb_bus_hooks;

#endif
