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
 * count >= 0 where its comment says so.
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

#endif
