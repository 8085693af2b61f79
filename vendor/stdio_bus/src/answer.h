/*
 * answer.h - the JSON-RPC errors the bus sends itself. Pure.
 */
#ifndef SB_ANSWER_H
#define SB_ANSWER_H

#include "buf.h"
#include "reap.h"
#include "stdio_bus.h"

/* JSON-RPC 2.0 section 5.1, and what hosts know from the public header. */
#define SB_RPC_PARSE_ERROR (-32700)
#define SB_RPC_INVALID_REQUEST (-32600)
#define SB_RPC_METHOD_NOT_FOUND (-32601)
#define SB_RPC_INTERNAL_ERROR (-32603)
#define SB_RPC_CANCELLED STDIO_BUS_RPC_CANCELLED /* ACP [Cancellation] */
#define SB_RPC_UNROUTABLE STDIO_BUS_RPC_UNROUTABLE
#define SB_RPC_WORKER_EXITED STDIO_BUS_RPC_WORKER_EXITED
#define SB_RPC_OVERLOADED STDIO_BUS_RPC_OVERLOADED
#define SB_RPC_SHUTTING_DOWN STDIO_BUS_RPC_SHUTTING_DOWN
#define SB_RPC_UNAUTHORIZED STDIO_BUS_RPC_UNAUTHORIZED

/* How much of a worker's stderr an error carries. */
#define SB_ANSWER_STDERR_MAX 2048

typedef struct {
    int code;
    const char *reason; /* stable word for programs */
    const char *message;
    const char *pool; /* NULL: left out, like everything below */
    int worker;       /* -1 */
    bool exited;      /* the three that follow count */
    sb_exit exit;
    uint64_t uptime_ms;
    const char *stderr_tail; /* NUL-terminated or NULL */
    int sent;                /* whether any byte had reached the worker: 0, 1, or -1 for unknown */
} sb_error;

/* An error without details. */
sb_error sb_error_of(int code, const char *reason, const char *message);

/* Writes a whole error answer (no newline) for this id token; absent means null. False without memory. */
bool sb_answer_error(sb_buf *out, sb_span id, const sb_error *error);

/* {"jsonrpc":"2.0","id":ID,"result":RESULT} */
bool sb_answer_result(sb_buf *out, sb_span id, sb_span result);

/* Appends text as a JSON string with quotes; bytes that are no UTF-8 become U+FFFD. False without memory. */
bool sb_answer_string(sb_buf *out, sb_span text);

#endif
