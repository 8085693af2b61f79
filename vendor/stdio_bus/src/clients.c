#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bus.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Clients that have not shown their token yet may not take the places of those that have. */
#define STRANGERS_MAX 64

/* Tells a client that there is no room, as far as it can be told without waiting. */
static void turn_away(stdio_bus_t *bus, int fd, bool length_framed)
{
    static const sb_span no_id = {NULL, 0};
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "Too many clients");
    sb_buf text = {0};
    bus->more.overload_refusals++;
    if (sb_answer_error(&text, no_id, &error)) {
        /* The answer is far shorter than 64 KiB. */
        unsigned char length[4] = {0, 0, (unsigned char)(text.len >> 8), (unsigned char)text.len};
        struct iovec pieces[2] = {{length, sizeof length}, {text.data, text.len}};
        struct msghdr message = {0};
        ssize_t ignored;
        if (!length_framed) {
            /* There is room for it: the text's own NUL. */
            text.data[text.len] = '\n';
            pieces[0].iov_len = 0;
            pieces[1].iov_len++;
        }
        message.msg_iov = pieces;
        message.msg_iovlen = 2;
        ignored = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)ignored;
    }
    sb_buf_free(&text);
    close(fd);
}

/* A client id, or a status; errno says why. */
static int open_client(stdio_bus_t *bus, const sb_conn_plan *plan, const char *peer)
{
    sb_conn *conn = sb_conn_open(&bus->ctx, bus->last_client_id + 1, plan);
    if (conn == NULL) {
        sb_log(&bus->ctx, SB_LOG_WARN, "cannot serve a client: %s", strerror(errno));
        return STDIO_BUS_ERR;
    }
    bus->last_client_id++;
    conn->next = bus->clients;
    if (conn->next != NULL) conn->next->prev = conn;
    bus->clients = conn;
    bus->client_count++;
    if (conn->listener != NULL) bus->strangers++;
    bus->stats.client_connects++;
    sb_log(&bus->ctx, SB_LOG_DEBUG, "client %d connected: %s", conn->id, peer);
    sb_report_client(bus, STDIO_BUS_EVENT_CLIENT_CONNECTED, conn, peer);
    return conn->id;
}

int sb_clients_adopt(stdio_bus_t *bus, const sb_conn_plan *plan)
{
    return open_client(bus, plan, "descriptors");
}

void sb_clients_accept(stdio_bus_t *bus, sb_listener *listener, int fd, const char *peer)
{
    sb_conn_plan plan = {0};
    plan.fd_from = plan.fd_to = fd;
    plan.tcp = listener->tcp;
    plan.length_framed = listener->length_framed;
    plan.pool = listener->pool;
    plan.listener = listener->token != NULL ? listener : NULL;
    if ((uint32_t)bus->client_count >= bus->ctx.limits.max_clients ||
        (plan.listener != NULL && bus->strangers >= STRANGERS_MAX)) {
        turn_away(bus, fd, plan.length_framed);
    } else if (open_client(bus, &plan, peer) < 0) {
        close(fd);
    }
}

void sb_clients_admit(stdio_bus_t *bus, sb_conn *conn)
{
    bus->strangers--;
    sb_conn_admit(conn);
}

void sb_clients_closed(sb_ctx *ctx, sb_conn *conn, const char *reason)
{
    bool usual = strcmp(reason, "closed") == 0 || strcmp(reason, "shutdown") == 0;
    stdio_bus_t *bus = sb_bus_of(ctx);
    uint32_t lost = sb_dispatch_count_unsent(bus, &conn->peer, &conn->sink);
    char why[64];
    sb_dispatch_give_up_asked(bus, &conn->peer);
    sb_dispatch_decline_held(bus, &conn->peer);
    sb_exclusive_leave(bus, &conn->peer);
    sb_router_remove(&ctx->router, &conn->peer);
    if (conn->prev != NULL) {
        conn->prev->next = conn->next;
    } else {
        bus->clients = conn->next;
    }
    if (conn->next != NULL) conn->next->prev = conn->prev;
    conn->next = bus->closed;
    bus->closed = conn;
    bus->client_count--;
    if (conn->listener != NULL) bus->strangers--;
    bus->stats.client_disconnects++;
    sb_log(ctx, usual ? SB_LOG_DEBUG : SB_LOG_WARN, "client %d disconnected: %s", conn->id, reason);
    snprintf(why, sizeof why, "the client is gone (%s)", reason);
    sb_report_unsent(bus, NULL, conn, lost, why);
    sb_report_client(bus, STDIO_BUS_EVENT_CLIENT_DISCONNECTED, conn, reason);
}

void sb_clients_close_all(stdio_bus_t *bus, const char *reason)
{
    while (bus->clients != NULL) sb_conn_close(bus->clients, reason);
}

void sb_clients_free_closed(stdio_bus_t *bus)
{
    while (bus->closed != NULL) {
        sb_conn *conn = bus->closed;
        bus->closed = conn->next;
        sb_conn_free(conn);
    }
}

static sb_listener *open_listener(stdio_bus_t *bus, const stdio_bus_listen_options_t *options,
                                  char error[SB_LISTENER_ERROR_MAX])
{
    sb_unix_access access = {0600, false, 0};
    switch (options->mode) {
    case STDIO_BUS_LISTEN_TCP:
        return sb_listener_open_tcp(&bus->ctx, options->tcp_host != NULL ? options->tcp_host : "127.0.0.1",
                                    (uint16_t)options->tcp_port, error);
    case STDIO_BUS_LISTEN_UNIX:
        if (options->unix_mode != 0) access.mode = (mode_t)options->unix_mode;
        access.set_group = options->flags & STDIO_BUS_LISTEN_SET_GROUP;
        access.group = (gid_t)options->unix_group;
        return sb_listener_open_unix(&bus->ctx, options->unix_path, access, error);
    default: return sb_listener_adopt(&bus->ctx, options->fd, error);
    }
}

/* Copies what its clients need. False without memory. */
static bool set_up(stdio_bus_t *bus, sb_listener *listener, const stdio_bus_listen_options_t *options, sb_pool *pool)
{
    listener->pool = pool;
    listener->length_framed = options->framing == STDIO_BUS_FRAMING_LENGTH ||
                              (options->framing == 0 && bus->config.framing == SB_FRAMING_LENGTH);
    if (options->token != NULL) {
        listener->token = sb_strndup(options->token, options->token_len);
        listener->token_len = options->token_len;
        if (listener->token == NULL) return false;
    }
    if (options->uid_count > 0) {
        listener->uids = sb_alloc(options->uid_count * sizeof *listener->uids);
        if (listener->uids == NULL) return false;
        memcpy(listener->uids, options->uids, options->uid_count * sizeof *listener->uids);
        listener->uid_count = options->uid_count;
    }
    return true;
}

static void warn_if_open(stdio_bus_t *bus, const sb_listener *listener)
{
    const char *address = listener->address;
    if (!listener->tcp || listener->token != NULL || bus->warned_open) return;
    if (strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]", 5) == 0) return;
    bus->warned_open = true;
    sb_log(&bus->ctx, SB_LOG_WARN, "tcp %s can be reached by other machines, and no token is required", address);
}

int sb_clients_listen(stdio_bus_t *bus, const stdio_bus_listen_options_t *options)
{
    char error[SB_LISTENER_ERROR_MAX];
    sb_pool *pool = NULL;
    sb_listener *listener, **listeners;
    int id;
    if (options->pool != NULL) {
        pool = sb_pool_named(bus, sb_span_of(options->pool));
        if (pool == NULL) return STDIO_BUS_ENOTFOUND;
    }
    listeners = sb_realloc(bus->listeners, (bus->listener_count + 1) * sizeof(sb_listener *));
    if (listeners == NULL) return STDIO_BUS_ERR_BUFFER;
    bus->listeners = listeners;
    listener = open_listener(bus, options, error);
    if (listener == NULL) {
        sb_report_error(bus, STDIO_BUS_EINVAL, "%s", error);
        return STDIO_BUS_EINVAL;
    }
    if (!set_up(bus, listener, options, pool)) {
        sb_listener_close(listener);
        return STDIO_BUS_ERR_BUFFER;
    }
    sb_listener_keep(listener);
    listeners[bus->listener_count] = listener;
    id = (int)bus->listener_count++;
    sb_log(&bus->ctx, SB_LOG_INFO, "listening on %s %s", listener->tcp ? "tcp" : "unix", listener->address);
    warn_if_open(bus, listener);
    return id;
}

void sb_clients_close_listeners(stdio_bus_t *bus)
{
    /* Who has not shown the token by now, never will. */
    for (sb_conn *conn = bus->clients, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->listener != NULL) sb_conn_close(conn, "shutdown");
    }
    for (size_t i = 0; i < bus->listener_count; i++) sb_listener_close(bus->listeners[i]);
    bus->listener_count = 0;
}
