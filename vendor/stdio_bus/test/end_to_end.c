/*
 * end_to_end.c - real workers and a client, from create to destroy, for `make
 * valgrind`: answers, deaths that have to be noticed soon although there is
 * no pidfd to tell of them, restarts, and an end that leaves nothing behind.
 * What it does needs no harness, so that nothing but the library is measured.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "stdio_bus_ext.h"

/*
 * `echo` answers; `silent` reads only; `holder` leaves a child behind that
 * keeps its stdout open, so that no end of file tells of its death; `deaf`
 * ignores SIGTERM and the end of its input.
 */
static const char config[] =
    "{\"pools\":["
    "{\"id\":\"echo\",\"command\":\"sed\",\"args\":[\"-u\",\"s/\\\"method\\\"/\\\"result\\\"/\"]},"
    "{\"id\":\"silent\",\"command\":\"sh\",\"args\":[\"-c\",\"echo up >&2; while read -r line; do :; done\"],\"restart\":\"never\"},"
    "{\"id\":\"holder\",\"command\":\"sh\",\"args\":[\"-c\",\"sleep 60 & while read -r line; do :; done\"],\"restart\":\"never\"},"
    "{\"id\":\"deaf\",\"command\":\"sh\",\"args\":[\"-c\",\"trap '' TERM; while :; do sleep 1; done\"]}"
    "],\"default_pool\":\"echo\"}";

enum { ECHO, SILENT, HOLDER, BOUND_MS = 20000, NOTICED_MS = 1500 };

static int answers;
static char last[4096];

#define CHECK(cond) \
    do { \
        if (!(cond)) { \
            fprintf(stderr, "%s:%d: %s\nlast: %s\n", __FILE__, __LINE__, #cond, last); \
            exit(1); \
        } \
    } while (0)

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    (void)user_data;
    CHECK(len < sizeof last);
    memcpy(last, msg, len + 1);
    answers++;
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#define STEP_UNTIL(bus, condition, bound) \
    do { \
        long deadline_ = now_ms() + (bound); \
        while (!(condition)) { \
            CHECK(now_ms() < deadline_); \
            stdio_bus_step(bus, 1000); \
        } \
    } while (0)

static stdio_bus_worker_info_t info_of(stdio_bus_t *bus, int worker)
{
    stdio_bus_worker_info_t info = {0};
    info.size = sizeof info;
    CHECK(stdio_bus_worker_info(bus, worker, &info) == STDIO_BUS_OK);
    return info;
}

static void ask(stdio_bus_t *bus, const char *request)
{
    CHECK(stdio_bus_ingest(bus, request, strlen(request)) == STDIO_BUS_OK);
}

/* The worker is killed while it owes an answer; the error must come without a step's timeout having to pass. */
static void kill_asked(stdio_bus_t *bus, int worker, const char *request)
{
    int before = answers;
    ask(bus, request);
    stdio_bus_step(bus, 0);
    long killed = now_ms();
    CHECK(kill(info_of(bus, worker).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, answers > before, BOUND_MS);
    long took = now_ms() - killed;
    printf("worker %d: its end was noticed after %ld ms\n", worker, took);
    CHECK(strstr(last, "-32011") != NULL && took <= NOTICED_MS);
}

static void serve_a_client(stdio_bus_t *bus)
{
    static const char request[] = "{\"id\":\"c\",\"method\":\"m\",\"pool\":\"echo\"}\n";
    char got[256];
    ssize_t len = -1;
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    CHECK(write(pair[0], request, sizeof request - 1) == (ssize_t)sizeof request - 1);
    STEP_UNTIL(bus, (len = recv(pair[0], got, sizeof got - 1, MSG_DONTWAIT)) > 0, BOUND_MS);
    got[len] = '\0';
    CHECK(strstr(got, "\"id\":\"c\",\"result\":\"m\"") != NULL);
    close(pair[0]);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0, BOUND_MS);
}

int main(void)
{
    stdio_bus_options_t options = {0};
    options.config_json = config;
    options.on_message = on_message;
    options.log_level = 3;
    stdio_bus_t *bus = stdio_bus_create(&options);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);

    ask(bus, "{\"id\":1,\"method\":\"m\"}");
    STEP_UNTIL(bus, answers == 1, BOUND_MS);
    CHECK(strstr(last, "\"id\":1,\"result\":\"m\"") != NULL);
    serve_a_client(bus);

    kill_asked(bus, SILENT, "{\"id\":2,\"method\":\"m\",\"pool\":\"silent\"}");
    kill_asked(bus, HOLDER, "{\"id\":3,\"method\":\"m\",\"pool\":\"holder\"}");
    CHECK(kill(info_of(bus, ECHO).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, info_of(bus, ECHO).generation == 2, BOUND_MS);
    ask(bus, "{\"id\":4,\"method\":\"m\"}");
    STEP_UNTIL(bus, strstr(last, "\"id\":4,\"result\":\"m\"") != NULL, BOUND_MS);

    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED, BOUND_MS);
    stdio_bus_destroy(bus);
    puts("ok");
    return 0;
}
