#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bus.h"

#define LINE_MAX_LEN 1024

void sb_log(sb_ctx *ctx, int level, const char *format, ...)
{
    char line[LINE_MAX_LEN];
    va_list args;
    if (level < ctx->log_level) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ctx->hooks.log(ctx, level, line);
}

/* Where the host gave no on_log: one line on stderr, in one write. */
static void log_to_stderr(int level, const char *message)
{
    static const char *const name[] = {"DEBUG", "INFO", "WARN", "ERROR"};
    char line[LINE_MAX_LEN + 64];
    struct tm when;
    time_t now = time(NULL);
    size_t len;
    ssize_t ignored;
    localtime_r(&now, &when);
    len = strftime(line, sizeof line, "[%Y-%m-%dT%H:%M:%S] ", &when);
    len += (size_t)snprintf(line + len, sizeof line - len, "[%s] %.*s\n", name[level], LINE_MAX_LEN, message);
    ignored = write(STDERR_FILENO, line, len);
    (void)ignored;
}

void sb_report_log(sb_ctx *ctx, int level, const char *message)
{
    stdio_bus_t *bus = sb_bus_of(ctx);
    if (bus->options.on_log != NULL) {
        bus->options.on_log(bus, level, message, bus->options.user_data);
    } else {
        log_to_stderr(level, message);
    }
}

void sb_report_error(stdio_bus_t *bus, int code, const char *format, ...)
{
    char message[LINE_MAX_LEN];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (bus->options.on_error != NULL) bus->options.on_error(bus, code, message, bus->options.user_data);
    sb_log(&bus->ctx, SB_LOG_ERROR, "%s", message);
}

static void emit(stdio_bus_t *bus, stdio_bus_event_t *event)
{
    event->size = sizeof *event;
    if (bus->ext.on_event != NULL) bus->ext.on_event(bus, event, bus->options.user_data);
}

static void fill_worker(stdio_bus_event_t *event, const sb_worker *worker)
{
    event->worker = -1;
    event->client = -1;
    event->exit_code = -1;
    if (worker == NULL) return;
    event->worker = worker->id;
    event->generation = worker->generation;
    event->pid = worker->embedded ? -1 : (int32_t)worker->pid;
    event->pool = worker->config->id;
}

/* Copies text with a NUL behind it; false without memory, and the event goes without. */
static void fill_text(stdio_bus_event_t *event, sb_buf *copy, sb_span text)
{
    if (text.ptr == NULL || !sb_buf_reserve(copy, text.len + 1)) return;
    memcpy(copy->data, text.ptr, text.len);
    copy->data[text.len] = '\0';
    event->text = copy->data;
    event->text_len = text.len;
}

static const char *v2_name(uint32_t kind)
{
    switch (kind) {
    case STDIO_BUS_EVENT_WORKER_STARTED: return "started";
    case STDIO_BUS_EVENT_WORKER_STOPPING: return "stopping";
    case STDIO_BUS_EVENT_WORKER_STOPPED: return "stopped";
    case STDIO_BUS_EVENT_WORKER_RESTARTING: return "restarting";
    case STDIO_BUS_EVENT_WORKER_FAILED: return "failed";
    default: return NULL;
    }
}

void sb_report_worker(stdio_bus_t *bus, uint32_t kind, sb_worker *worker, sb_span text, uint32_t delay_ms)
{
    stdio_bus_event_t event = {0};
    sb_buf copy = {0};
    const char *name = v2_name(kind);
    event.kind = kind;
    event.delay_ms = delay_ms;
    fill_worker(&event, worker);
    if (kind == STDIO_BUS_EVENT_WORKER_STOPPED) {
        event.exit_code = worker->exit.signal != 0 ? -1 : worker->exit.code;
        event.exit_signal = worker->exit.signal;
        event.uptime_ms = worker->uptime_ms;
        if (!worker->embedded) event.pid = (int32_t)worker->last_pid;
    }
    if (kind == STDIO_BUS_EVENT_WORKER_STDERR && worker->config->stderr_mode == SB_STDERR_DEFAULT) {
        event.flags = STDIO_BUS_EVENT_STDERR_UNSAID;
    }
    if (bus->ext.on_event != NULL) fill_text(&event, &copy, text);
    emit(bus, &event);
    sb_buf_free(&copy);
    if (name != NULL && bus->options.on_worker != NULL) {
        bus->options.on_worker(bus, worker->id, name, bus->options.user_data);
    }
}

void sb_report_client(stdio_bus_t *bus, uint32_t kind, const sb_conn *conn, const char *text)
{
    stdio_bus_event_t event = {0};
    bool connected = kind == STDIO_BUS_EVENT_CLIENT_CONNECTED;
    event.kind = kind;
    fill_worker(&event, NULL);
    event.client = conn->id;
    event.text = text;
    event.text_len = strlen(text);
    emit(bus, &event);
    if (connected && bus->options.on_client_connect != NULL) {
        bus->options.on_client_connect(bus, conn->id, text, bus->options.user_data);
    } else if (!connected && bus->options.on_client_disconnect != NULL) {
        bus->options.on_client_disconnect(bus, conn->id, text, bus->options.user_data);
    }
}

void sb_report_unsent(stdio_bus_t *bus, sb_worker *worker, const sb_conn *conn, uint32_t count, const char *why)
{
    stdio_bus_event_t event = {0};
    char text[128];
    if (count == 0) return;
    event.kind = STDIO_BUS_EVENT_DROPPED;
    fill_worker(&event, worker);
    if (conn != NULL) event.client = conn->id;
    snprintf(text, sizeof text, "%u unsent message%s: %s", (unsigned)count, count == 1 ? "" : "s", why);
    event.text = text;
    event.text_len = strlen(text);
    emit(bus, &event);
}

void sb_report_lost(stdio_bus_t *bus, uint32_t kind, sb_worker *worker, const char *why)
{
    stdio_bus_event_t event = {0};
    event.kind = kind;
    fill_worker(&event, worker);
    event.text = why;
    event.text_len = strlen(why);
    emit(bus, &event);
}
