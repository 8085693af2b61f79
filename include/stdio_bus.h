/*
 * stdio_bus.h - version and status codes shared by both API headers.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Include stdio_bus_embed.h (the embedding API, version 2) or
 * stdio_bus_ext.h (our additions to it); both include this file.
 */
#ifndef STDIO_BUS_H
#define STDIO_BUS_H

/* Version of the library as a string, "MAJOR.MINOR.PATCH". */
#define STDIO_BUS_VERSION "0.1.0"

/*
 * Status codes. Every function that returns int returns one of these, or a
 * count >= 0 where its comment says so. Structures of stdio_bus_ext.h without
 * their `size`, or with a smaller one than theirs, are STDIO_BUS_ERR_INVALID.
 */
#define STDIO_BUS_OK 0           /* done */
#define STDIO_BUS_ERR (-1)       /* unspecified failure; on_error and on_log carry the details */
#define STDIO_BUS_EAGAIN (-2)    /* not now: try again after a step */
#define STDIO_BUS_EOF (-3)       /* the other side has closed */
#define STDIO_BUS_EFULL (-4)     /* a queue is full: nothing was accepted, try again later */
#define STDIO_BUS_ENOTFOUND (-5) /* no such pool, worker, client, listener or request */
#define STDIO_BUS_EINVAL (-6)    /* the operating system refused an argument */

#define STDIO_BUS_ERR_CONFIG (-10)  /* the configuration is not valid */
#define STDIO_BUS_ERR_WORKER (-11)  /* a worker could not be started or has failed */
#define STDIO_BUS_ERR_ROUTING (-12) /* no worker can be chosen for the message */
#define STDIO_BUS_ERR_BUFFER (-13)  /* the message exceeds max_input_buffer, or memory ran out */
#define STDIO_BUS_ERR_INVALID (-14) /* an argument is NULL or out of range, or the message is not JSON-RPC */
#define STDIO_BUS_ERR_STATE (-15)   /* not allowed in this state, or from inside a callback */

/*
 * Codes of the JSON-RPC errors that the bus itself answers with, besides those
 * of JSON-RPC (-32700, -32600, -32601, -32603). Such an answer has
 * error.data.source "stdio_bus"; workers may use the same numbers, without it.
 * What else error.data has:
 *
 *   reason  a word that stays as it is, for programs: given with each code
 *           below. Of JSON-RPC's codes: parse_error (-32700); batch, too_large,
 *           invalid_request (-32600); wrong_era, an MCP request of the other
 *           kind than the pool's workers speak (-32601); and of a worker's
 *           answer that can't be handed on, too_large, invalid_answer,
 *           session_exists (-32603).
 *   sent    whether any byte of the request has been written to a worker.
 *           false: no worker has seen it, it is safe to send again. true: it
 *           may have been carried out, so only send again what may happen
 *           twice. Absent: it was no proper request, or (-32603) was answered.
 *   pool, worker   whose they were, where that is known.
 *   exit    how the worker's process ended: code or signal (code -1: unknown,
 *           see stdio_bus_embed.h), uptime_ms, stderr_tail (its last lines).
 */
#define STDIO_BUS_RPC_UNROUTABLE (-32010)    /* unroutable: unknown pool, or several and none named */
#define STDIO_BUS_RPC_WORKER_EXITED (-32011) /* worker_exited: ended before it answered; or none runs, or gets ready */
#define STDIO_BUS_RPC_OVERLOADED (-32012)    /* overloaded: some queue or limit is full. Send again a little later */
#define STDIO_BUS_RPC_SHUTTING_DOWN (-32013) /* shutting_down: the bus drains or stops. Send again to another one */
#define STDIO_BUS_RPC_UNAUTHORIZED (-32014)  /* unauthorized: no valid token; the connection is closed */
#define STDIO_BUS_RPC_CANCELLED (-32800)     /* cancelled: on its client's word, before it was sent */

#endif
