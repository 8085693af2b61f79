/*
 * stress.h - what the stress programs share: the worker, what the process has
 * open, and how they fail.
 *
 * Each program is a host on the public API and, run with --worker, its own
 * worker. It ends with a line of counts and status 0, or with the violation
 * and status 1, within 60 seconds. `--small` is a reduced form of a few.
 */
#ifndef STRESS_H
#define STRESS_H

#include <dirent.h>
#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "stdio_bus_ext.h"

#define STRESS_BOUND_SEC 60

__attribute__((format(printf, 1, 2), noreturn)) static inline void stress_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("FAILED: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

#define STRESS_CHECK(condition) \
    do { \
        if (!(condition)) stress_fail("%s:%d: %s", __FILE__, __LINE__, #condition); \
    } while (0)

static inline long stress_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- what a process has ------------------------------------------------------- */

static inline int stress_entries(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    STRESS_CHECK(dir != NULL);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count - 2; /* "." and ".." */
}

typedef struct {
    int fds;
    int threads;
    int children; /* zombies included */
    int zombies;
    long rss_kib;
} stress_footprint;

static inline void stress_count_children(stress_footprint *found)
{
    const struct dirent *entry;
    DIR *dir = opendir("/proc");
    STRESS_CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        char path[300], text[512], state;
        const char *after;
        int parent;
        size_t len = 0;
        FILE *file;
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        file = fopen(path, "r");
        if (file == NULL) continue; /* it has just ended */
        len = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[len] = '\0';
        after = strrchr(text, ')'); /* a program's name may hold anything */
        if (after == NULL || sscanf(after + 1, " %c %d", &state, &parent) != 2 || parent != getpid()) continue;
        found->children++;
        if (state == 'Z') found->zombies++;
    }
    closedir(dir);
}

static inline stress_footprint stress_look(void)
{
    stress_footprint found = {0};
    long pages = 0;
    FILE *file;
#ifdef __GLIBC__
    malloc_trim(0); /* what the allocator keeps for later isn't the bus's */
#endif
    file = fopen("/proc/self/statm", "r");
    STRESS_CHECK(file != NULL && fscanf(file, "%*d %ld", &pages) == 1);
    fclose(file);
    found.rss_kib = pages * (sysconf(_SC_PAGESIZE) / 1024);
    found.fds = stress_entries("/proc/self/fd");
    found.threads = stress_entries("/proc/self/task");
    stress_count_children(&found);
    return found;
}

/* Everything but memory is as it was. */
static inline void stress_same(const stress_footprint *before, const stress_footprint *now, const char *when)
{
    if (now->fds != before->fds) stress_fail("%s: %d descriptors instead of %d", when, now->fds, before->fds);
    if (now->threads != before->threads) stress_fail("%s: %d threads, not %d", when, now->threads, before->threads);
    if (now->children != before->children) {
        stress_fail("%s: %d children instead of %d", when, now->children, before->children);
    }
    if (now->zombies != 0) stress_fail("%s: %d zombies", when, now->zombies);
}

/* A sanitizer keeps freed memory for a while, which says nothing about the bus. */
static inline void stress_flat(const stress_footprint *before, const stress_footprint *now, long slack_kib)
{
#ifdef __SANITIZE_ADDRESS__
    (void)before;
    (void)now;
    (void)slack_kib;
#else
    if (now->rss_kib > before->rss_kib + slack_kib) {
        stress_fail("RSS grew from %ld to %ld KiB", before->rss_kib, now->rss_kib);
    }
#endif
}

/* ---- the worker ----------------------------------------------------------------- */

/*
 * Answers "ask" with its params, the requests of one read in reverse order, so
 * that nobody gets away with counting; "hold" is never answered; "exit" ends
 * it. Its input is what this program sends, so it is searched, not parsed.
 */
static inline size_t stress_answer(const char *line, size_t len, char *out)
{
    static const char id_key[] = "\"id\":", method_key[] = ",\"method\":\"", params_key[] = "\"params\":";
    const char *id = memmem(line, len, id_key, sizeof id_key - 1), *method, *params;
    size_t at = 0, left;
    if (id == NULL) return 0;
    id += sizeof id_key - 1;
    method = memmem(id, len - (size_t)(id - line), method_key, sizeof method_key - 1);
    if (method == NULL) return 0;
    if (method[sizeof method_key - 1] == 'e') _exit(0);
    if (method[sizeof method_key - 1] == 'h') return 0;
    params = memmem(method, len - (size_t)(method - line), params_key, sizeof params_key - 1);
    if (params == NULL) return 0;
    params += sizeof params_key - 1;
    left = len - (size_t)(params - line) - 1; /* without the frame's own brace */
    memcpy(out, "{\"jsonrpc\":\"2.0\",\"id\":", 22);
    memcpy(out + 22, id, (size_t)(method - id));
    at = 22 + (size_t)(method - id);
    memcpy(out + at, ",\"result\":", 10);
    memcpy(out + at + 10, params, left);
    memcpy(out + at + 10 + left, "}\n", 2);
    return at + 12 + left;
}

enum { STRESS_WORKER_BUFFER = 1 << 20 };

static inline int stress_worker(void)
{
    static char in[STRESS_WORKER_BUFFER], out[STRESS_WORKER_BUFFER * 2];
    size_t have = 0;
    ssize_t n;
    while ((n = read(0, in + have, sizeof in - have)) > 0) {
        size_t end, used = 0, written = 0;
        have += (size_t)n;
        end = have;
        while (end > 0 && in[end - 1] != '\n') end--;
        for (size_t stop = end; stop > 0;) {
            size_t start = stop - 1;
            while (start > 0 && in[start - 1] != '\n') start--;
            used += stress_answer(in + start, stop - 1 - start, out + used);
            stop = start;
        }
        while (written < used) {
            n = write(1, out + written, used - written);
            if (n <= 0) return 1;
            written += (size_t)n;
        }
        memmove(in, in + end, have - end);
        have -= end;
    }
    return 0;
}

/* ---- the program ------------------------------------------------------------------ */

static inline int stress_quiet(void)
{
    return getenv("STRESS_LOG") == NULL;
}

static inline void stress_on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    if (!stress_quiet()) fprintf(stderr, "%d %s\n", level, message);
}

static inline void stress_on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    fprintf(stderr, "error %d: %s\n", code, message);
}

/* Returns whether it is the small form. Doesn't return in a worker. */
static inline int stress_begin(int argc, char **argv)
{
    struct rlimit files;
    if (argc > 1 && strcmp(argv[1], "--worker") == 0) exit(stress_worker());
    /* Thousands of workers and clients need more descriptors than the usual 1024. */
    STRESS_CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    STRESS_CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    if (files.rlim_cur < 16384) stress_fail("needs 16384 descriptors, may open %ld", (long)files.rlim_cur);
    alarm(STRESS_BOUND_SEC);
    return argc > 1 && strcmp(argv[1], "--small") == 0;
}

static inline stdio_bus_t *stress_create(const char *config, stdio_bus_frame_cb on_frame, stdio_bus_event_cb on_event,
                                         const char *socket_path)
{
    stdio_bus_options_t options = {0};
    stdio_bus_ext_options_t ext = {0};
    stdio_bus_t *bus;
    options.config_json = config;
    options.on_log = stress_on_log;
    options.on_error = stress_on_error;
    options.log_level = stress_quiet() ? 3 : 0;
    if (socket_path != NULL) {
        options.listener.mode = STDIO_BUS_LISTEN_UNIX;
        options.listener.unix_path = socket_path;
    }
    ext.size = sizeof ext;
    ext.on_frame = on_frame;
    ext.on_event = on_event;
    bus = stdio_bus_create_ext(&options, &ext);
    STRESS_CHECK(bus != NULL);
    return bus;
}

/* Steps until `condition` holds. That it takes for ever is what alarm is for. */
#define STRESS_STEP_UNTIL(bus, condition) \
    do { \
        while (!(condition)) STRESS_CHECK(stdio_bus_step(bus, 100) >= 0); \
    } while (0)

static inline void stress_stop(stdio_bus_t *bus)
{
    STRESS_CHECK(stdio_bus_stop(bus, 10) == STDIO_BUS_OK);
    STRESS_STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

/* A request of the host to a pool, under a number. */
static inline void stress_ask(stdio_bus_t *bus, const char *pool, const char *method, int id)
{
    char frame[160];
    stdio_bus_submit_options_t options = {0};
    int len = snprintf(frame, sizeof frame,
                       "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":{\"t\":%d}}", id, method, id);
    options.size = sizeof options;
    options.pool = pool;
    options.pool_len = strlen(pool);
    options.flags = STDIO_BUS_SUBMIT_ANSWER_ERRORS;
    STRESS_CHECK(stdio_bus_submit(bus, frame, (size_t)len, &options) == STDIO_BUS_OK);
}

#endif
