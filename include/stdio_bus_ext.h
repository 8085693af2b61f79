/*
 * stdio_bus_ext.h - additions to the embedding API.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything here is additive: a host may use the functions of
 * stdio_bus_embed.h on a bus created with stdio_bus_create_ext and the other
 * way round. Structures passed in start with `size`, set by the host to
 * sizeof: later versions only append fields. Zero a structure before filling
 * it; a zero field means the default. A `size` that is missing or too small is
 * STDIO_BUS_ERR_INVALID everywhere (stdio_bus_create_ext: NULL, and on_error).
 *
 * Unless said otherwise: calls follow the thread rule of stdio_bus_embed.h,
 * are allowed from inside callbacks (see the table there), copy what they are
 * given, and return STDIO_BUS_ERR_INVALID for a NULL bus or a NULL required
 * argument.
 */
#ifndef STDIO_BUS_EXT_H
#define STDIO_BUS_EXT_H

#include "stdio_bus_embed.h"

#ifdef __cplusplus
extern "C" {
#endif

#define STDIO_BUS_EXT_API_VERSION 1

/* Everything else in the library is hidden. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* Version of the linked library, "MAJOR.MINOR.PATCH". Any thread. Static storage. */
const char *stdio_bus_version(void);

/* Name ("STDIO_BUS_EFULL") and text of a status code. Never NULL. Any thread. Static storage. */
const char *stdio_bus_status_name(int status);
const char *stdio_bus_status_message(int status);

/* ---- frames and events ------------------------------------------------- */

/* What a frame is; see JSON-RPC 2.0 sections 4 and 5. */
#define STDIO_BUS_FRAME_REQUEST 1      /* a worker asks the host and wants an answer under the same id */
#define STDIO_BUS_FRAME_RESPONSE 2     /* the answer to a request the host submitted */
#define STDIO_BUS_FRAME_NOTIFICATION 3 /* no answer expected */

/* The frame was made by the bus, not by a worker: an error, or word that a question needs no answer any more. */
#define STDIO_BUS_FRAME_FROM_BUS 1u

/* A frame for the host. All pointers are valid until the callback returns. */
typedef struct stdio_bus_frame {
    uint32_t size;
    uint32_t kind;  /* STDIO_BUS_FRAME_* */
    uint32_t flags; /* STDIO_BUS_FRAME_FROM_BUS */
    int32_t client; /* the in-process client it is for; 0 is the host itself */
    int32_t worker; /* the worker it came from, -1 for none */
    uint32_t generation; /* how often that worker had been started, from 1 */
    const char *data; /* the frame, NUL-terminated */
    size_t len;
    const char *id; /* the JSON token of its id, or NULL; not NUL-terminated */
    size_t id_len;
    const char *session; /* the JSON string token of its session, quotes included, or NULL */
    size_t session_len;
    /*
     * Of what a worker says on its own (a chunk of a turn, progress, a question):
     * the id token of the host's pending request it belongs to, or NULL.
     */
    const char *request;
    size_t request_len;
} stdio_bus_frame_t;

#define STDIO_BUS_EVENT_WORKER_STARTED 1    /* the program was executed */
/*
 * It takes requests. Where there is a handshake to go through (a pool of MCP or
 * ACP whose "initialize" is configured, or known from a client) that is after
 * it. The first initialize of a client goes to workers that are ready already:
 * they take nothing until they have answered it, and then READY comes again.
 * It also comes after STALLED.
 */
#define STDIO_BUS_EVENT_WORKER_READY 2
#define STDIO_BUS_EVENT_WORKER_STOPPING 3   /* it was asked to end */
#define STDIO_BUS_EVENT_WORKER_STOPPED 4    /* it is gone: exit_code or exit_signal; `text` is the end of its stderr */
#define STDIO_BUS_EVENT_WORKER_RESTARTING 5 /* it is started again after delay_ms */
#define STDIO_BUS_EVENT_WORKER_FAILED 6     /* too many restarts, or it can't be executed: `text` */
#define STDIO_BUS_EVENT_WORKER_STDERR 7     /* a line of its stderr: `text` */
#define STDIO_BUS_EVENT_WORKER_GARBAGE 8    /* a line of its stdout that is no frame: `text`, cut */
#define STDIO_BUS_EVENT_CLIENT_CONNECTED 9     /* `client`, `text` is the peer */
#define STDIO_BUS_EVENT_CLIENT_DISCONNECTED 10 /* `client`, `text` is the reason */
#define STDIO_BUS_EVENT_DROPPED 11      /* frames could not be delivered: `text` says why, and how many if several */
#define STDIO_BUS_EVENT_UNATTRIBUTED 12 /* a worker's frame belongs to nobody */
#define STDIO_BUS_EVENT_WORKER_STALLED 13  /* it leaves its stdin unread; READY tells when it reads again */
#define STDIO_BUS_EVENT_WORKER_WRITABLE 14 /* its outbox, which had refused a message, has room again */

/* Of WORKER_STDERR: its pool doesn't say what becomes of it. */
#define STDIO_BUS_EVENT_STDERR_UNSAID 1u

/* Something happened. All pointers are valid until the callback returns. */
typedef struct stdio_bus_event {
    uint32_t size;
    uint32_t kind;       /* STDIO_BUS_EVENT_* */
    int32_t worker;      /* -1 for none */
    uint32_t generation; /* of that worker */
    int32_t client;      /* -1 for none */
    int32_t pid;         /* of the worker, 0 for none */
    int32_t exit_code;   /* -1 if it ended by a signal, still runs, or that is unknown */
    int32_t exit_signal; /* 0 if it ended by itself, or that is unknown */
    uint32_t delay_ms;
    uint32_t flags;      /* STDIO_BUS_EVENT_STDERR_* */
    uint64_t uptime_ms;
    const char *pool; /* id of the worker's pool, NUL-terminated, or NULL */
    const char *text; /* `text_len` bytes and a NUL, or NULL */
    size_t text_len;
} stdio_bus_event_t;

typedef void (*stdio_bus_frame_cb)(stdio_bus_t *bus, const stdio_bus_frame_t *frame, void *user_data);
typedef void (*stdio_bus_event_cb)(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data);

/* ---- create ------------------------------------------------------------- */

/* Use the poll(2) poller even where a better one exists. */
#define STDIO_BUS_CREATE_POLL 1u
/*
 * Workers get SIGTERM when the thread that starts them ends (Linux). Set it
 * only where one thread runs the bus for its whole life.
 */
#define STDIO_BUS_CREATE_PARENT_DEATH_SIGNAL 2u
/* Workers whose pool doesn't say what becomes of their stderr share the host's, instead of being read. */
#define STDIO_BUS_CREATE_STDERR_INHERIT 4u
/* The host asks nothing itself: what a worker says to nobody in particular is counted as unattributed. */
#define STDIO_BUS_CREATE_NO_HOST 8u

typedef struct stdio_bus_ext_options {
    uint32_t size;
    uint32_t flags;              /* STDIO_BUS_CREATE_* */
    stdio_bus_frame_cb on_frame; /* instead of on_message */
    stdio_bus_event_cb on_event; /* in addition to on_worker and the on_client callbacks */
} stdio_bus_ext_options_t;

/* stdio_bus_create with extensions; `ext` may be NULL. */
stdio_bus_t *stdio_bus_create_ext(const stdio_bus_options_t *options, const stdio_bus_ext_options_t *ext);

/*
 * Makes a step that runs, or the next one, return at once. Callable from any
 * thread, from a signal handler and while a step waits; the caller makes sure
 * that create has returned and the bus is not being destroyed. Many calls before a step cost one turn.
 */
int stdio_bus_wakeup(stdio_bus_t *bus);

/* stdio_bus_stop with the bound in milliseconds. */
int stdio_bus_stop_within(stdio_bus_t *bus, uint32_t timeout_ms);

/*
 * Closes the listeners (from inside a callback: when a step ends) and
 * refuses new requests with -32013 while answers still flow; stops, as
 * stdio_bus_stop_within(bus, grace_ms) would, once nothing is pending or
 * after `timeout_ms`, where STDIO_BUS_DRAIN_CONFIGURED means the limit
 * drain_timeout_sec of the configuration. STDIO_BUS_ERR_STATE unless RUNNING.
 */
#define STDIO_BUS_DRAIN_CONFIGURED 0xffffffffu
int stdio_bus_drain(stdio_bus_t *bus, uint32_t timeout_ms, uint32_t grace_ms);

/*
 * Replaces the configuration while running (`config_path` beats
 * `config_json`). Pools that stay the same are not touched. The workers of a
 * changed or removed pool take nothing new, and end when they have answered
 * everything, at the latest after drain_timeout_sec; its idle sessions move.
 * That goes for embedded workers, too: they are ended, and whoever wants them
 * in the new pool registers new ones. Listeners and clients with a pool of
 * their own go on with the one of the same name; if there is none, they are
 * from then on as if they had been given none (so default_pool is theirs), also
 * when a later reload brings that pool back. Worker ids of ended workers are
 * used again, and numbers of pools may change.
 *
 * STDIO_BUS_ERR_CONFIG or STDIO_BUS_ERR_WORKER (a program cannot be found),
 * with on_error, leave everything as it was, as does STDIO_BUS_ERR_BUFFER (no
 * memory). STDIO_BUS_ERR_STATE unless RUNNING, while draining, or from inside a
 * callback.
 */
int stdio_bus_reload(stdio_bus_t *bus, const char *config_path, const char *config_json);

/*
 * Looks whether each pool's program can be found and executed, and its folder
 * entered, as far as that shows without starting it. STDIO_BUS_OK, or
 * STDIO_BUS_ERR_WORKER with on_error, which names the first that cannot. In any
 * state.
 */
int stdio_bus_check(stdio_bus_t *bus);

/* ---- messages ------------------------------------------------------------ */

/*
 * A refused request is answered through on_frame, as a socket client's would
 * be, with a full JSON-RPC error; submit then returns STDIO_BUS_OK. The answer
 * comes from the next step.
 */
#define STDIO_BUS_SUBMIT_ANSWER_ERRORS 1u

typedef struct stdio_bus_submit_options {
    uint32_t size;
    uint32_t flags;      /* STDIO_BUS_SUBMIT_* */
    const char *session; /* route as if this were the frame's root sessionId (plain text), or NULL */
    size_t session_len;
    const char *pool; /* route as if this were the frame's root pool, or NULL */
    size_t pool_len;
} stdio_bus_submit_options_t;

/* stdio_bus_ingest with routing given beside the message; `options` may be NULL. */
int stdio_bus_submit(stdio_bus_t *bus, const char *msg, size_t len, const stdio_bus_submit_options_t *options);

/*
 * Gives up the host's pending request whose id is this JSON token (quotes
 * included, compared byte for byte: "a" is not "\u0061", 1 is not 1.0): it
 * counts as ended, and its late answer is swallowed. Where the pool speaks MCP or ACP
 * the worker is told with the protocol's cancellation (MCP
 * notifications/cancelled, ACP session/cancel or $/cancel_request).
 * STDIO_BUS_ENOTFOUND if no such request is pending (it may just have been
 * answered).
 */
int stdio_bus_cancel(stdio_bus_t *bus, const char *id, size_t id_len);

/*
 * Forgets a session of a pool (NULL: of every pool), so that its next message
 * binds it anew. Requests of it that are pending stay so. `session` is plain
 * text. STDIO_BUS_ENOTFOUND if there is none of that name.
 */
int stdio_bus_end_session(stdio_bus_t *bus, const char *pool, const char *session, size_t session_len);

/* ---- listeners and clients ------------------------------------------------ */

/* A stream socket that is bound already, TCP or Unix, listening or not: a third listen mode. */
#define STDIO_BUS_LISTEN_FD 3

/* How frames follow each other: as the configuration says, lines, or a length of four bytes before each. */
#define STDIO_BUS_FRAMING_CONFIGURED 0
#define STDIO_BUS_FRAMING_NDJSON 1
#define STDIO_BUS_FRAMING_LENGTH 2

/* unix_group counts. */
#define STDIO_BUS_LISTEN_SET_GROUP 1u

typedef struct stdio_bus_listen_options {
    uint32_t size;
    uint32_t mode;         /* STDIO_BUS_LISTEN_TCP, STDIO_BUS_LISTEN_UNIX or STDIO_BUS_LISTEN_FD */
    const char *tcp_host;  /* NULL means 127.0.0.1 */
    const char *unix_path;
    uint32_t tcp_port;   /* 0 lets the system choose */
    uint32_t unix_mode;  /* permissions of the socket file; 0 means 0600 */
    uint32_t flags;      /* STDIO_BUS_LISTEN_SET_GROUP */
    uint32_t unix_group; /* group of the socket file */
    int32_t fd;          /* for STDIO_BUS_LISTEN_FD; the bus owns it on success, and leaves a socket file alone */
    uint32_t framing;    /* STDIO_BUS_FRAMING_* */
    const char *pool;    /* where its clients' messages go if they name no pool, or NULL */
    const char *token;   /* what its clients have to show first, with stdio_bus/auth, or NULL */
    size_t token_len;    /* 0 exactly if there is no token */
    const uint32_t *uids; /* users that may connect to a Unix socket, besides the bus's own and root */
    size_t uid_count;
} stdio_bus_listen_options_t;

/*
 * Opens one more listener, before or after start. Returns its id (>= 0).
 * STDIO_BUS_EINVAL with on_error naming the address and the reason when it
 * cannot be bound, or when a descriptor is no bound stream socket (it stays
 * the caller's then, and as it was), STDIO_BUS_ENOTFOUND for an unknown pool,
 * STDIO_BUS_ERR_BUFFER without memory, STDIO_BUS_ERR_STATE while draining,
 * stopping or stopped.
 *
 * A client of a listener with a token has 5 s and 4 KiB for its first frame,
 * {"jsonrpc":"2.0","id":..,"method":"stdio_bus/auth","params":{"token":".."}};
 * anything else is answered with -32014, and it is closed. At most 64 clients
 * may be in that state at a time.
 */
int stdio_bus_listen(stdio_bus_t *bus, const stdio_bus_listen_options_t *options);

/* Number of open listeners; their ids are 0 .. count-1. */
int stdio_bus_listener_count(const stdio_bus_t *bus);

/*
 * Writes the bound address ("127.0.0.1:4711", "[::1]:4711" or the path) and a
 * NUL to `out`; returns its length without the NUL, STDIO_BUS_ENOTFOUND, or
 * STDIO_BUS_EFULL if `cap` is too small.
 */
int stdio_bus_listener_address(const stdio_bus_t *bus, int listener, char *out, size_t cap);

/*
 * Serves a client over two descriptors (the same one twice is allowed), as
 * `stdio_bus --stdio` does with 0 and 1. On success the bus owns them and makes
 * them non-blocking while it does. Returns the client id (> 0). They stay the
 * caller's, and as they were, with STDIO_BUS_ERR (they cannot be watched, or
 * there is no memory; a log line says why), STDIO_BUS_ERR_INVALID (negative)
 * and STDIO_BUS_ERR_STATE (draining, stopping or stopped).
 */
int stdio_bus_adopt_client(stdio_bus_t *bus, int fd_from_client, int fd_to_client);

typedef struct stdio_bus_client_options {
    uint32_t size;
    uint32_t framing; /* STDIO_BUS_FRAMING_* */
    const char *pool; /* as for a listener */
} stdio_bus_client_options_t;

/* stdio_bus_adopt_client with options, which may be NULL. STDIO_BUS_ENOTFOUND for an unknown pool. */
int stdio_bus_adopt_client_with(stdio_bus_t *bus, int fd_from_client, int fd_to_client,
                                const stdio_bus_client_options_t *options);

/* ---- introspection --------------------------------------------------------- */

#define STDIO_BUS_WORKER_STOPPED 0  /* not running, no restart due */
#define STDIO_BUS_WORKER_STARTING 1 /* not yet executed, or has not answered its initialize yet */
#define STDIO_BUS_WORKER_READY 2    /* takes requests */
#define STDIO_BUS_WORKER_STOPPING 3 /* asked to end */
#define STDIO_BUS_WORKER_BACKOFF 4  /* waits to be started again */
#define STDIO_BUS_WORKER_FAILED 5   /* given up for now */

typedef struct stdio_bus_worker_info {
    uint32_t size;
    int32_t worker;
    int32_t pid; /* 0 if it doesn't run, -1 for an embedded worker */
    uint32_t state; /* STDIO_BUS_WORKER_* */
    uint32_t generation;
    uint32_t restarts;
    uint32_t pending; /* requests it has not answered */
    uint32_t reserved;
    uint64_t uptime_ms;
    const char *pool; /* valid until the next step or reload */
} stdio_bus_worker_info_t;

/* Number of worker slots, running or not; ids are 0 .. count-1. One whose worker is gone for good is used again. */
int stdio_bus_worker_slots(const stdio_bus_t *bus);

/* Fills `info` (set info->size first). STDIO_BUS_ENOTFOUND for an unknown id. */
int stdio_bus_worker_info(const stdio_bus_t *bus, int worker, stdio_bus_worker_info_t *info);

/*
 * Copies the newest bytes of the worker's stderr, whole lines, with a NUL, to
 * `out`. Returns the length without the NUL. It outlives the worker's exit.
 */
int stdio_bus_worker_stderr(const stdio_bus_t *bus, int worker, char *out, size_t cap);

typedef struct stdio_bus_pool_info {
    uint32_t size;
    uint32_t workers; /* slots, running or not */
    uint32_t ready;   /* workers that take requests */
    uint32_t pending; /* requests their workers have not answered */
    uint32_t queued;  /* requests that wait for a worker to become ready */
    uint32_t sessions; /* bound to their workers */
    uint64_t queued_bytes;
    uint64_t outbox_bytes; /* queued for their workers' stdin */
    uint64_t requests;     /* given to their workers since create */
    uint64_t restarts;
    const char *id; /* valid until the next step or reload */
    uint64_t answered; /* requests that their workers have answered, with an error too; not those given up before */
    /*
     * How long those took, from when the bus had read the request to when it had
     * read the answer, what they waited for a worker included: what 50, 90 and 99
     * of 100 didn't exceed, at most a sixteenth too much, and the longest. Time is
     * read once in a step, after its wait, and for hosts that wait with the poll fd
     * once more when they submit. It is told in units of 16 us; what took more than
     * 19 hours counts as less.
     */
    uint64_t p50_us;
    uint64_t p90_us;
    uint64_t p99_us;
    uint64_t max_us;
} stdio_bus_pool_info_t;

/* Number of pools; their numbers are 0 .. count-1. */
int stdio_bus_pool_count(const stdio_bus_t *bus);

/* Fills `info` (set info->size first). STDIO_BUS_ENOTFOUND for an unknown number. */
int stdio_bus_pool_info(const stdio_bus_t *bus, int pool, stdio_bus_pool_info_t *info);

/* More counters since create. */
typedef struct stdio_bus_ext_stats {
    uint32_t size;
    uint32_t reserved;
    uint64_t parse_errors;       /* client frames that are not one JSON object, or no JSON-RPC */
    uint64_t worker_garbage;     /* lines on a worker's stdout that are no frame */
    uint64_t oversize_frames;    /* frames above max_input_buffer, both directions */
    uint64_t dropped_frames;     /* frames that could not be delivered */
    uint64_t unattributed_frames; /* workers' frames that belonged to nobody */
    uint64_t late_answers;       /* answers to requests that had been given up */
    uint64_t overload_refusals;  /* requests refused because a queue was full */
    uint64_t unauthorized;       /* clients that did not show their token */
    uint64_t outbox_bytes;       /* bytes queued now for workers and clients */
    uint64_t tombstones;         /* given-up requests whose answer may still come, now */
    uint64_t stale_cancels;      /* cancellations of requests that were not pending: swallowed */
} stdio_bus_ext_stats_t;

/* Fills `stats` (set stats->size first). */
int stdio_bus_ext_stats(const stdio_bus_t *bus, stdio_bus_ext_stats_t *stats);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
