/*
 * stdio_bus_embed.h - the embedding API, version 2.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Names, values and layout are those of embedding API version 2 of the
 * stdio_bus family, so a host built for it links against this library
 * unchanged. What behaves better than there is said at each function.
 * Additions live in stdio_bus_ext.h.
 *
 * Lifecycle: create -> start -> step ... step -> stop -> step until STOPPED
 * -> destroy. A stopped bus cannot be started again.
 *
 * Threads: all calls on one bus come from one thread at a time; only
 * stdio_bus_wakeup (stdio_bus_ext.h) may be called from anywhere.
 *
 * Callbacks run inside stdio_bus_step, and inside other calls for what these
 * do themselves. Which can call back, and with what, besides on_log:
 *
 *   create                on_error
 *   start                 workers' events, on_error
 *   step                  everything
 *   ingest, submit,       frames that are dropped, clients that are closed;
 *   cancel, reload        never a message (reload: on_error, too)
 *   register, unregister  the same, the events of that worker, and messages it
 *                         has left
 *   stop, drain           workers' and clients' events, and messages that
 *                         embedded workers have left
 *   listen                on_error
 *   adopt_client          that client's event
 *   destroy               nothing else
 *   all others            nothing at all
 *
 * Which may be called from inside a callback, whichever call it comes from;
 * during start (state STARTING) fewer:
 *
 *                                    in a callback           during start
 *   queries, wakeup, end_session     yes                     yes
 *   ingest, submit, register, drain  yes                     ERR_STATE
 *   cancel                           yes                     ENOTFOUND
 *   stop, stop_within                yes, at a step's end    ERR_STATE
 *   listen, adopt_client             yes                     yes
 *   start, step, reload, unregister  ERR_STATE               ERR_STATE
 *   destroy                          when the outermost call returns
 *
 * destroy takes effect when the outermost call returns; the bus must not be
 * touched after it. What that call returns is still its own result. During
 * create and during destroy itself everything but the queries is refused, and
 * destroy does nothing: a bus that create returns is the host's to destroy,
 * and one that it doesn't return (on_error gets its pointer all the same) is
 * gone by itself.
 *
 * The library is a good guest: it installs no signal handler, waits only for
 * its own children, keeps no globals, and never raises SIGPIPE in the host. No
 * descriptor it opens is 0, 1 or 2, even where the host has closed these.
 *
 * Workers are started with none of the host's descriptors but stderr (where
 * that is to be inherited; /dev/null if the host has closed it), with default
 * signal dispositions and no signal blocked, in a process group of their own.
 *
 * Fork: a forked child shares the bus's descriptors with its parent and must
 * not call anything but stdio_bus_destroy, outside of callbacks; there that
 * closes and frees the copy, and leaves workers, socket files and everything
 * else to the parent. A child that executes a program need not do even that:
 * what the bus has opened is close-on-exec.
 *
 * SIGCHLD: a host that ignores it (SIG_IGN), or waits for any child
 * (waitpid(-1)), takes the exit status away from the bus. It still notices
 * each end, but exit_code -1 with exit_signal 0 then means unknown, and a
 * pool's "restart": "on-failure" takes that for a failure.
 */
#ifndef STDIO_BUS_EMBED_H
#define STDIO_BUS_EMBED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stdio_bus.h"

#ifdef __cplusplus
extern "C" {
#endif

#define STDIO_BUS_EMBED_API_VERSION 2

/* Everything else in the library is hidden. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* A bus. Opaque; owned by the host between create and destroy. */
typedef struct stdio_bus stdio_bus_t;

/*
 * A message for the host: an answer to a request it ingested, or a worker's
 * request or notification that no other client owns. `msg` is NUL-terminated,
 * `len` excludes the NUL; valid until the callback returns.
 */
typedef void (*stdio_bus_message_cb)(stdio_bus_t *bus, const char *msg, size_t len, void *user_data);

/* What a status alone doesn't say. `code` is that status, STDIO_BUS_E* or STDIO_BUS_ERR_*. */
typedef void (*stdio_bus_error_cb)(stdio_bus_t *bus, int code, const char *message, void *user_data);

/* A log line. `level`: 0 debug, 1 info, 2 warning, 3 error. When unset, lines go to stderr. */
typedef void (*stdio_bus_log_cb)(stdio_bus_t *bus, int level, const char *message, void *user_data);

/* A worker changed: "started", "stopping", "stopped", "restarting" or "failed". */
typedef void (*stdio_bus_worker_cb)(stdio_bus_t *bus, int worker_id, const char *event, void *user_data);

/*
 * A client connected. `peer_info` is "unix" or "ip:port", or "descriptors" for
 * one that was adopted (stdio_bus_ext.h). Client ids are never reused.
 */
typedef void (*stdio_bus_client_connect_cb)(stdio_bus_t *bus, int client_id, const char *peer_info, void *user_data);

/* A socket client is gone. `reason`: "closed", "error", "timeout", "overflow" or "shutdown". */
typedef void (*stdio_bus_client_disconnect_cb)(stdio_bus_t *bus, int client_id, const char *reason, void *user_data);

typedef enum {
    STDIO_BUS_LISTEN_NONE = 0, /* no listener: messages come from stdio_bus_ingest only */
    STDIO_BUS_LISTEN_TCP = 1,
    STDIO_BUS_LISTEN_UNIX = 2
} stdio_bus_listen_mode_t;

typedef struct stdio_bus_listener_config {
    stdio_bus_listen_mode_t mode;
    const char *tcp_host;  /* name or address; NULL means 127.0.0.1 */
    uint16_t tcp_port;     /* 0 lets the system choose */
    const char *unix_path; /* required for STDIO_BUS_LISTEN_UNIX */
} stdio_bus_listener_config_t;

/*
 * Options of a bus. Zero the structure first. Strings are copied by create.
 * `config_path` beats `config_json`; one of them is required, as is
 * `on_message` (unless stdio_bus_create_ext is given an on_frame).
 */
typedef struct stdio_bus_options {
    const char *config_path;
    const char *config_json;
    stdio_bus_listener_config_t listener;
    stdio_bus_message_cb on_message;
    stdio_bus_error_cb on_error;
    stdio_bus_log_cb on_log;
    stdio_bus_worker_cb on_worker;
    stdio_bus_client_connect_cb on_client_connect;
    stdio_bus_client_disconnect_cb on_client_disconnect;
    void *user_data; /* passed to every callback, never read */
    int log_level;   /* lowest level to report: 0 debug (what a zeroed structure says), 1 info, 2 warning, 3 error */
} stdio_bus_options_t;

typedef enum {
    STDIO_BUS_STATE_CREATED = 0,
    STDIO_BUS_STATE_STARTING = 1,
    STDIO_BUS_STATE_RUNNING = 2,
    STDIO_BUS_STATE_STOPPING = 3,
    STDIO_BUS_STATE_STOPPED = 4
} stdio_bus_state_t;

/*
 * Counters since create; none of them ever decreases. A message that got as
 * far as routing is in messages_in, also a request that was then refused with
 * an answer (no such pool, overloaded, no worker). What is no JSON-RPC, a
 * refusal that is only a status, a notification that was dropped, and what
 * comes too late before a stop are not.
 */
typedef struct stdio_bus_stats {
    uint64_t messages_in;        /* frames accepted from the host and from clients */
    uint64_t messages_out;       /* frames queued for the host and for clients */
    uint64_t bytes_in;           /* bytes of the frames in messages_in */
    uint64_t bytes_out;          /* bytes of the frames in messages_out */
    uint64_t worker_restarts;    /* times a worker was started again after an exit */
    uint64_t routing_errors;     /* messages for which no worker could be chosen */
    uint64_t client_connects;    /* socket clients accepted */
    uint64_t client_disconnects; /* socket clients gone */
} stdio_bus_stats_t;

/*
 * Reads the configuration and allocates the bus; nothing is started. Returns
 * NULL on failure, after one call of on_error with the reason (none, if
 * `options` is NULL or there is no memory for the bus itself). The bus that
 * on_error is given then is not to be kept: see above.
 */
stdio_bus_t *stdio_bus_create(const stdio_bus_options_t *options);

/*
 * Binds the configured listener, then starts every worker and returns once
 * each program has been executed. Failures: STDIO_BUS_ERR_WORKER when a program
 * cannot be executed (on_error names the program and the reason; what was
 * started is stopped again), STDIO_BUS_EINVAL when the listener cannot be
 * bound, STDIO_BUS_ERR_STATE unless the state is CREATED.
 */
int stdio_bus_start(stdio_bus_t *bus);

/*
 * One bounded turn of the loop: waits up to `timeout_ms` for something to do
 * (0: does not wait, -1: without limit) and does it. Returns the number of
 * events handled, or STDIO_BUS_ERR_STATE from inside a callback. A bus that is
 * CREATED or STOPPED has nothing to do: 0, at once.
 */
int stdio_bus_step(stdio_bus_t *bus, int timeout_ms);

/*
 * Begins to stop: no message is accepted any more, queued bytes are flushed,
 * then each worker sees end of input, SIGTERM and at last SIGKILL, all within
 * `timeout_sec` seconds. Keep calling step until the state is STOPPED. 0 kills
 * at once. While stopping or stopped it returns STDIO_BUS_OK and changes
 * nothing, except that 0 still kills at once. Before start it makes the bus
 * STOPPED. STDIO_BUS_ERR_INVALID for a negative time, STDIO_BUS_ERR_STATE in a
 * callback during start. From inside a callback it begins when the step that
 * runs, or the next one, ends.
 */
int stdio_bus_stop(stdio_bus_t *bus, int timeout_sec);

/*
 * Frees the bus; NULL is allowed. Workers that still run are killed and reaped
 * first. From inside a callback it takes effect when the outermost call
 * returns; the bus must not be touched after it. In a forked child it touches
 * nothing of the parent's.
 */
void stdio_bus_destroy(stdio_bus_t *bus);

/*
 * Hands one JSON-RPC message (no newline needed) to the bus and copies it.
 * Routed like a client's message. STDIO_BUS_OK means accepted: a request then
 * gets exactly one answer through on_message. Any other status means not
 * accepted, and no message follows: STDIO_BUS_EFULL (the worker's outbox has
 * max_output_queue bytes, or half of that from this one client; or another
 * limit is reached), STDIO_BUS_ERR_ROUTING (which pool is not clear),
 * STDIO_BUS_ERR_WORKER (the pool has no running worker, and none is being
 * started), STDIO_BUS_ERR_INVALID (not one JSON-RPC object),
 * STDIO_BUS_ERR_BUFFER (larger than max_input_buffer), STDIO_BUS_ERR_STATE (not
 * running; a request while draining).
 */
int stdio_bus_ingest(stdio_bus_t *bus, const char *msg, size_t len);

/* The state; STDIO_BUS_STATE_STOPPED for NULL. */
stdio_bus_state_t stdio_bus_get_state(const stdio_bus_t *bus);

/* Copies the counters. Does nothing if either argument is NULL. */
void stdio_bus_get_stats(const stdio_bus_t *bus, stdio_bus_stats_t *stats);

/* Workers that run; sessions that are bound; requests that wait for an answer; connected clients. */
int stdio_bus_worker_count(const stdio_bus_t *bus);
int stdio_bus_session_count(const stdio_bus_t *bus);
int stdio_bus_pending_count(const stdio_bus_t *bus);
int stdio_bus_client_count(const stdio_bus_t *bus);

/*
 * A descriptor that is readable exactly when stdio_bus_step has work, timers
 * and child exits included, for a host with an event loop of its own: wait for
 * it to become readable (level-triggered; never read from it), then call
 * stdio_bus_step(bus, 0). What other calls set going makes it readable, too,
 * so nothing else has to be stepped for. The same one from create to destroy;
 * owned by the bus. -1 with the poll(2) poller, which has no descriptor.
 */
int stdio_bus_get_poll_fd(const stdio_bus_t *bus);

/*
 * Adds a worker that lives in the host: the bus writes frames to
 * `fd_to_worker` and reads them from `fd_from_worker`, which must be two
 * different descriptors (dup a socket). On success the bus owns both and has
 * made them non-blocking. Frames are lines, however clients are framed. It
 * takes messages at once (where its pool speaks MCP or ACP and a handshake is
 * known: after that), beside the pool's own processes; it is gone, and not
 * started again, when the host closes its ends. Where the thread that steps is
 * also the one that works, it must not wait on its ends.
 *
 * A pool that is only for such workers has "instances": 0, and then needs no
 * "command". What comes while none is registered is refused, not kept:
 * STDIO_BUS_ERR_WORKER, or -32011 "The pool has no running worker".
 *
 * Returns the worker id (>= 0), which a later worker may get again once this
 * one is gone. The descriptors stay the caller's with STDIO_BUS_ENOTFOUND for
 * an unknown pool, STDIO_BUS_EINVAL for one whose clients are exclusive,
 * STDIO_BUS_ERR_WORKER for descriptors that cannot be watched,
 * STDIO_BUS_ERR_BUFFER without memory, STDIO_BUS_ERR_INVALID (two that are the
 * same, or negative) and STDIO_BUS_ERR_STATE (not RUNNING).
 */
int stdio_bus_register_embedded_worker(stdio_bus_t *bus, int fd_to_worker, int fd_from_worker, const char *pool_id);

/*
 * Removes a worker added by stdio_bus_register_embedded_worker and closes its
 * descriptors; what it has written is still read, and its pending requests end
 * with an error. Doing it twice is allowed. STDIO_BUS_ENOTFOUND for an id that
 * is no embedded worker, STDIO_BUS_ERR_STATE from inside a callback.
 */
int stdio_bus_unregister_embedded_worker(stdio_bus_t *bus, int worker_id);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
