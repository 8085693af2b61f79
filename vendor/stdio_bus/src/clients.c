#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bus.h"

/* Tells a client that there is no room, as far as it can be told without waiting. */
static void turn_away(stdio_bus_t *bus, int fd)
{
    static const sb_span no_id = {NULL, 0};
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "Too many clients");
    sb_buf text = {0};
    bus->more.overload_refusals++;
    if (sb_answer_error(&text, no_id, &error)) {
        ssize_t ignored;
        text.data[text.len] = '\n';
        ignored = send(fd, text.data, text.len + 1, MSG_DONTWAIT
#ifdef MSG_NOSIGNAL
                                                        | MSG_NOSIGNAL
#endif
        );
        (void)ignored;
    }
    sb_buf_free(&text);
    close(fd);
}

int sb_clients_open(stdio_bus_t *bus, int fd_from, int fd_to, bool tcp, bool pair, const char *peer)
{
    sb_conn *conn;
    if (!pair && (uint32_t)bus->client_count >= bus->ctx.limits.max_clients) {
        turn_away(bus, fd_from);
        return STDIO_BUS_EFULL;
    }
    conn = sb_conn_open(&bus->ctx, bus->last_client_id + 1, fd_from, fd_to, tcp, pair);
    if (conn == NULL) {
        sb_log(&bus->ctx, SB_LOG_WARN, "cannot serve a client: %s", strerror(errno));
        if (!pair) close(fd_from);
        return STDIO_BUS_ERR;
    }
    bus->last_client_id++;
    conn->next = bus->clients;
    if (conn->next != NULL) conn->next->prev = conn;
    bus->clients = conn;
    bus->client_count++;
    bus->stats.client_connects++;
    sb_log(&bus->ctx, SB_LOG_INFO, "client %d connected: %s", conn->id, peer);
    sb_report_client(bus, STDIO_BUS_EVENT_CLIENT_CONNECTED, conn, peer);
    return conn->id;
}

void sb_clients_closed(sb_ctx *ctx, sb_conn *conn, const char *reason)
{
    stdio_bus_t *bus = sb_bus_of(ctx);
    sb_dispatch_give_up_asked(bus, &conn->peer);
    sb_dispatch_decline_held(bus, &conn->peer);
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
    bus->stats.client_disconnects++;
    sb_log(ctx, SB_LOG_INFO, "client %d disconnected: %s", conn->id, reason);
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

int sb_clients_listen(stdio_bus_t *bus, const stdio_bus_listen_options_t *options)
{
    char error[SB_LISTENER_ERROR_MAX];
    sb_listener *listener = NULL, **listeners;
    listeners = sb_realloc(bus->listeners, (bus->listener_count + 1) * sizeof(sb_listener *));
    if (listeners == NULL) return STDIO_BUS_ERR_BUFFER;
    bus->listeners = listeners;
    if (options->mode == STDIO_BUS_LISTEN_TCP) {
        const char *host = options->tcp_host != NULL ? options->tcp_host : "127.0.0.1";
        listener = sb_listener_open_tcp(&bus->ctx, host, (uint16_t)options->tcp_port, error);
    } else {
        mode_t mode = options->unix_mode != 0 ? (mode_t)options->unix_mode : 0600;
        listener = sb_listener_open_unix(&bus->ctx, options->unix_path, mode, error);
    }
    if (listener == NULL) {
        sb_report_error(bus, STDIO_BUS_EINVAL, "%s", error);
        return STDIO_BUS_EINVAL;
    }
    listeners[bus->listener_count] = listener;
    sb_log(&bus->ctx, SB_LOG_INFO, "listening on %s %s", listener->tcp ? "tcp" : "unix", listener->address);
    return (int)bus->listener_count++;
}

void sb_clients_close_listeners(stdio_bus_t *bus)
{
    for (size_t i = 0; i < bus->listener_count; i++) sb_listener_close(bus->listeners[i]);
    bus->listener_count = 0;
}
