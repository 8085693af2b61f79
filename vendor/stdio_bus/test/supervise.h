/*
 * supervise.h - what the tests of supervision share: a bus that starts real
 * programs, and what it tells of them.
 */
#ifndef SB_TEST_SUPERVISE_H
#define SB_TEST_SUPERVISE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/bus.h"
#include "test.h"

/* Answers every request with true, and ends at end of input. */
#define ECHO "\"sed\",\"args\":[\"-u\",\"s/\\\"method\\\":\\\"[a-z]*\\\"/\\\"result\\\":true/\"]"
#define SHELL(script) "\"sh\",\"args\":[\"-c\",\"" script "\"]"
#define POOL(command) "{\"id\":\"p\",\"command\":" command "}"
#define CONFIG(command) "{\"pools\":[" POOL(command) "]}"

/* Sees neither end of input nor SIGTERM. */
#define STUBBORN "trap '' TERM; echo '{\\\"method\\\":\\\"up\\\"}'; while :; do sleep 1; done"

enum { BOUND_MS = 15000, EVENTS_MAX = 4096 };

typedef struct {
    uint32_t kind;
    int worker;
    uint32_t generation;
    int pid;
    int code, signal;
    uint32_t delay_ms, flags;
    long at;
    size_t text_len;
    char text[64]; /* its beginning */
} event_t;

static event_t events[EVENTS_MAX];
static int event_count;
static int messages;
static char last_message[512];

static inline long now_ms(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    (void)user_data;
    messages++;
    snprintf(last_message, sizeof last_message, "%.*s", (int)(len < 500 ? len : 500), msg);
}

static inline void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    event_t *seen = &events[event_count];
    (void)bus;
    (void)user_data;
    CHECK(event_count < EVENTS_MAX);
    seen->kind = event->kind;
    seen->worker = event->worker;
    seen->generation = event->generation;
    seen->pid = event->pid;
    seen->code = event->exit_code;
    seen->signal = event->exit_signal;
    seen->delay_ms = event->delay_ms;
    seen->flags = event->flags;
    seen->at = now_ms();
    seen->text_len = event->text_len;
    snprintf(seen->text, sizeof seen->text, "%.60s", event->text != NULL ? event->text : "");
    event_count++;
}

static inline void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    fprintf(stderr, "bus error %d: %s\n", code, message);
}

static inline void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)level;
    (void)message;
    (void)user_data;
}

static inline stdio_bus_t *start_with(const char *config, unsigned flags)
{
    stdio_bus_options_t options = {0};
    stdio_bus_ext_options_t ext = {0};
    stdio_bus_t *bus;
    options.config_json = config;
    options.on_message = on_message;
    options.on_error = on_error;
    options.on_log = on_log;
    ext.size = sizeof ext;
    ext.flags = flags;
    ext.on_event = on_event;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

static inline stdio_bus_t *start(const char *config)
{
    return start_with(config, 0);
}

#define STEP_UNTIL(bus, condition) \
    do { \
        long deadline_ = now_ms() + BOUND_MS; \
        while (!(condition)) { \
            if (now_ms() >= deadline_) sb_test_fail(__FILE__, __LINE__, "in time: " #condition); \
            CHECK(stdio_bus_step(bus, 20) >= 0); \
        } \
    } while (0)

/* How long stopping takes, in milliseconds. */
static inline long stop_and_destroy(stdio_bus_t *bus, uint32_t timeout_ms)
{
    long began = now_ms(), took;
    CHECK(stdio_bus_stop_within(bus, timeout_ms) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    took = now_ms() - began;
    stdio_bus_destroy(bus);
    return took;
}

/* Event number `nth` (from 1) of this kind, or NULL. */
static inline const event_t *nth_event(uint32_t kind, int nth)
{
    for (int i = 0; i < event_count; i++) {
        if (events[i].kind == kind && --nth == 0) return &events[i];
    }
    return NULL;
}

static inline int count_events(uint32_t kind)
{
    int count = 0;
    for (int i = 0; i < event_count; i++) count += events[i].kind == kind;
    return count;
}

static inline int ingest(stdio_bus_t *bus, const char *msg)
{
    return stdio_bus_ingest(bus, msg, strlen(msg));
}

static inline stdio_bus_worker_info_t info_of(stdio_bus_t *bus, int worker)
{
    stdio_bus_worker_info_t info = {0};
    info.size = sizeof info;
    CHECK(stdio_bus_worker_info(bus, worker, &info) == STDIO_BUS_OK);
    return info;
}

static inline int count_entries(const char *path)
{
    int count = -2; /* . and .. */
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count;
}

/* Opens that many descriptors that a program would inherit. */
static inline void open_many(int count)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 16384 ? limit.rlim_max : 16384;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < count; i++) CHECK(open("/dev/null", O_RDONLY) >= 0);
}

/* A request of this size; static. */
static inline const char *request(int id, size_t size)
{
    static char text[4 << 20];
    int len = snprintf(text, sizeof text, "{\"id\":%d,\"method\":\"m\",\"params\":\"", id);
    CHECK(size + 2 < sizeof text && size > (size_t)len + 2);
    memset(text + len, 'x', size - (size_t)len - 2);
    memcpy(text + size - 2, "\"}", 3);
    return text;
}

#endif
