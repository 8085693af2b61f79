#include "stdio_bus_ext.h"

/* Every status code: name without prefix, message. */
#define STATUSES(X) \
    X(OK, "done") \
    X(ERR, "unspecified failure") \
    X(EAGAIN, "not now, try again after a step") \
    X(EOF, "the other side has closed") \
    X(EFULL, "a queue is full, nothing was accepted") \
    X(ENOTFOUND, "no such pool, worker, client, listener or request") \
    X(EINVAL, "the operating system refused an argument") \
    X(ERR_CONFIG, "the configuration is not valid") \
    X(ERR_WORKER, "a worker could not be started or has failed") \
    X(ERR_ROUTING, "no worker can be chosen for the message") \
    X(ERR_BUFFER, "the message exceeds max_input_buffer, or memory ran out") \
    X(ERR_INVALID, "an argument is NULL or out of range, or the message is not JSON-RPC") \
    X(ERR_STATE, "not allowed in this state, or from inside a callback")

const char *stdio_bus_version(void)
{
    return STDIO_BUS_VERSION;
}

const char *stdio_bus_status_name(int status)
{
#define NAME(code, message) \
    case STDIO_BUS_##code: \
        return "STDIO_BUS_" #code;
    switch (status) {
        STATUSES(NAME)
    }
#undef NAME
    return "STDIO_BUS_UNKNOWN";
}

const char *stdio_bus_status_message(int status)
{
#define MESSAGE(code, message) \
    case STDIO_BUS_##code: \
        return message;
    switch (status) {
        STATUSES(MESSAGE)
    }
#undef MESSAGE
    return "unknown status";
}
