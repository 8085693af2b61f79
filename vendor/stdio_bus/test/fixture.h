/*
 * fixture.h - a bus with everything it needs, for tests of the public API: the
 * test plays the workers, over the pipes of embedded ones, and the clients, so
 * that every order of events is the test's to choose. Each test has a process
 * of its own, so what is seen starts empty.
 */
#ifndef SB_TEST_FIXTURE_H
#define SB_TEST_FIXTURE_H

#include "stdio_bus_ext.h"
#include "test.h"

/* A pool whose one process ends at once and is not started again. */
#define DEAD(id) "{\"id\":\"" id "\",\"command\":\"true\",\"restart\":\"never\"}"
/* The same with more members: DEAD_WITH("p", "\"protocol\":\"mcp\""). */
#define DEAD_WITH(id, more) "{\"id\":\"" id "\",\"command\":\"true\",\"restart\":\"never\"," more "}"
/* One whose process runs a shell script. */
#define SHELL(id, script) "{\"id\":\"" id "\",\"command\":\"sh\",\"args\":[\"-c\",\"" script "\"]}"
/* One that answers every request with 0. */
#define ECHO(id) "{\"id\":\"" id "\",\"command\":\"sed\",\"args\":[\"-u\",\"s/.method.:.[a-z]*./\\\"result\\\":0/\"]}"

#define POOLS(list) "{\"pools\":[" list "]}"
#define LIMITED(list, limits) "{\"pools\":[" list "],\"limits\":{" limits "}}"
#define CONFIG POOLS(DEAD("p"))

enum { BOUND_MS = 10000, SEEN_MAX = 256, EVENTS_MAX = 1024 };

/* A frame for the host. All but the text comes with stdio_bus_ext_options_t.on_frame only. */
typedef struct {
    char text[2048]; /* cut */
    size_t len;
    uint32_t kind, flags, generation;
    int worker, client;
    char id[128], session[128], request[128];
} seen_frame;

typedef struct {
    stdio_bus_event_t event; /* its pointers are not to be used */
    char pool[32];
    char text[512]; /* cut */
} seen_event;

/* What the callbacks were given. */
typedef struct {
    seen_frame frame[SEEN_MAX];
    int count;
    seen_event event[EVENTS_MAX];
    int events;
    int connects, disconnects;
    char peer[64], reason[32];
    int errors, code;
    char error[512];
    int logs[4];
    char log[4][512]; /* the last of each level */
    char workers[1024]; /* the words of on_worker, each with a space */
    int nested;         /* what calls made inside a callback returned */
    void (*inside)(stdio_bus_t *bus); /* called by the next callback for a frame */
} seen_t;

extern seen_t seen;

long now_ms(void);

#define STEP_UNTIL(bus, condition) \
    do { \
        long deadline_ = now_ms() + BOUND_MS; \
        while (!(condition)) { \
            if (now_ms() >= deadline_) sb_test_fail(__FILE__, __LINE__, "in time: " #condition); \
            CHECK(stdio_bus_step(bus, 20) >= 0); \
        } \
    } while (0)

/* ---- a bus -------------------------------------------------------------------------- */

/* Options with every callback set, to be changed before stdio_bus_create_ext. */
void fill_options(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext, const char *config);

/* A bus that was created; NULL if that failed. `flags`: STDIO_BUS_CREATE_*. */
stdio_bus_t *create(const char *config, unsigned flags);

/* The same with on_frame in place of on_message. */
stdio_bus_t *create_with_frames(const char *config, unsigned flags);

/* A bus whose own processes have ended, with `played` in its pool "p". */
stdio_bus_t *start(const char *config, unsigned flags);
void start_created(stdio_bus_t *bus);

/* Stops and destroys. */
void finish(stdio_bus_t *bus);

int ingest(stdio_bus_t *bus, const char *msg);

/* How many events of a kind were seen, and the last of them (NULL: none). */
int events_of(uint32_t kind);
const seen_event *last_event(uint32_t kind);

stdio_bus_ext_stats_t ext_stats(stdio_bus_t *bus);
stdio_bus_worker_info_t worker_info(stdio_bus_t *bus, int worker);
stdio_bus_pool_info_t pool_info(stdio_bus_t *bus, int pool);

/* ---- workers the test plays -------------------------------------------------------------- */

typedef struct {
    int id;
    int in;  /* its stdin */
    int out; /* its stdout */
} worker_t;

extern worker_t played; /* the one that start() made */

worker_t embed(stdio_bus_t *bus, const char *pool);

/* The next line on its stdin, valid until the next call for it; NULL at its end. */
const char *reads(stdio_bus_t *bus, worker_t worker);
void says(worker_t worker, const char *text);

/* Closes its stdout, which is how it ends. */
void goes(worker_t worker);

const char *worker_reads(stdio_bus_t *bus);
void worker_says(const char *text);

/* ---- clients ------------------------------------------------------------------------------ */

/* The client's end of a socket pair whose other end the bus has adopted. */
int connect_pair(stdio_bus_t *bus);
int connect_pair_with(stdio_bus_t *bus, const stdio_bus_client_options_t *options);

/* A connection to a listener of the bus ("127.0.0.1:4711" or a path). */
int connect_listener(stdio_bus_t *bus, int listener);

void client_says(int fd, const char *text);
void client_sends(int fd, const void *bytes, size_t len);

/* The next line, valid until the next call for it; NULL once the bus has closed. */
const char *client_line(stdio_bus_t *bus, int fd);

/* The next bytes are these. */
void client_hears(stdio_bus_t *bus, int fd, const char *want);
void client_gets(stdio_bus_t *bus, int fd, void *bytes, size_t len);

#endif
