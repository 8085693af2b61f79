/*
 * listening.h - what the tests of listeners share: a bus whose worker the test
 * plays, its listeners, and clients that connect to them.
 */
#ifndef SB_TEST_LISTENING_H
#define SB_TEST_LISTENING_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/bus.h"
#include "test.h"

#define PLAYED(id) "{\"id\":\"" id "\",\"command\":\"true\",\"restart\":\"never\"}"
#define CONFIG "{\"pools\":[" PLAYED("p") "]}"
#define LIMITED(limits) "{\"pools\":[" PLAYED("p") "],\"limits\":{" limits "}}"
#define AUTH(token) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"" token "\"}}\n"
#define AUTH_OK "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":true}}\n"
#define NOBODY 65534

enum { BOUND_MS = 10000 };

static int connects, disconnects, warnings, messages;
static char reason[32], error[1024], warning[1024];
static int to_worker[2], from_worker[2];

static inline long now_ms(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    (void)msg;
    (void)len;
    (void)user_data;
    messages++;
}

static inline void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)code;
    (void)user_data;
    snprintf(error, sizeof error, "%s", message);
}

static inline void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    if (level != 2 || strstr(message, "worker") == message) return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

static inline void on_connect(stdio_bus_t *bus, int client, const char *peer, void *user_data)
{
    (void)bus;
    (void)client;
    (void)peer;
    (void)user_data;
    connects++;
}

static inline void on_disconnect(stdio_bus_t *bus, int client, const char *why, void *user_data)
{
    (void)bus;
    (void)client;
    (void)user_data;
    disconnects++;
    snprintf(reason, sizeof reason, "%s", why);
}

#define STEP_UNTIL(bus, condition) \
    do { \
        long deadline_ = now_ms() + BOUND_MS; \
        while (!(condition)) { \
            if (now_ms() >= deadline_) sb_test_fail(__FILE__, __LINE__, "in time: " #condition); \
            CHECK(stdio_bus_step(bus, 10) >= 0); \
        } \
    } while (0)

static inline stdio_bus_t *create(const char *config)
{
    stdio_bus_options_t options = {0};
    stdio_bus_t *bus;
    options.config_json = config;
    options.on_message = on_message;
    options.on_error = on_error;
    options.on_log = on_log;
    options.on_client_connect = on_connect;
    options.on_client_disconnect = on_disconnect;
    bus = stdio_bus_create(&options);
    CHECK(bus != NULL);
    return bus;
}

static inline void embed(stdio_bus_t *bus, const char *pool, int to[2], int from[2])
{
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    CHECK(stdio_bus_register_embedded_worker(bus, to[1], from[0], pool) >= 0);
}

/* A started bus whose one worker the test plays. */
static inline stdio_bus_t *start(const char *config)
{
    stdio_bus_t *bus = create(config);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    embed(bus, "p", to_worker, from_worker);
    return bus;
}

static inline void finish(stdio_bus_t *bus)
{
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

/* ---- listening ---------------------------------------------------------------------- */

static inline stdio_bus_listen_options_t tcp_options(const char *host)
{
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_TCP};
    options.tcp_host = host;
    return options;
}

static inline stdio_bus_listen_options_t unix_options(const char *path)
{
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_UNIX};
    options.unix_path = path;
    return options;
}

/* The address of a listener; static. */
static inline const char *address_of(stdio_bus_t *bus, int listener)
{
    static char address[256];
    CHECK(stdio_bus_listener_address(bus, listener, address, sizeof address) > 0);
    return address;
}

/* A path for a socket, in a folder of the test's own that anyone may look into. */
static inline const char *socket_path(void)
{
    static char path[64];
    if (path[0] == '\0') {
        char folder[32];
        snprintf(folder, sizeof folder, "/tmp/sb-listen-%d", (int)getpid());
        CHECK(mkdir(folder, 0700) == 0 && chmod(folder, 0755) == 0);
        snprintf(path, sizeof path, "%s/s", folder);
    }
    return path;
}

static inline void remove_folder(void)
{
    char path[80];
    strcpy(path, socket_path());
    *strrchr(path, '/') = '\0';
    CHECK(rmdir(path) == 0); /* so nothing is left in it */
}

static struct sockaddr_un unix_name(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    CHECK(strlen(path) < sizeof name.sun_path);
    strcpy(name.sun_path, path);
    return name;
}

static inline int connect_unix(const char *path)
{
    struct sockaddr_un name = unix_name(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&name, sizeof name) == 0);
    return fd;
}

static inline int connect_tcp(const char *address)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    in_port_t port = htons((in_port_t)atoi(strrchr(address, ':') + 1));
    bool is_v6 = address[0] == '[';
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    v4.sin_port = v6.sin6_port = port;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v6.sin6_addr = in6addr_loopback;
    CHECK(fd >= 0);
    if (is_v6) CHECK(connect(fd, (struct sockaddr *)&v6, sizeof v6) == 0);
    else CHECK(connect(fd, (struct sockaddr *)&v4, sizeof v4) == 0);
    return fd;
}

/* Of a bus with a Unix listener, and a TCP one behind it. */
static inline int connect_either(stdio_bus_t *bus, bool tcp)
{
    return tcp ? connect_tcp(address_of(bus, 1)) : connect_unix(socket_path());
}

static inline void says(int fd, const char *text)
{
    CHECK(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* What comes until `len` bytes are there, or the other side has closed. Static. */
static inline const char *hears(stdio_bus_t *bus, int fd, size_t len)
{
    static char got[8192];
    size_t have = 0;
    long deadline = now_ms() + BOUND_MS;
    while (have < len) {
        struct pollfd wait = {fd, POLLIN, 0};
        if (now_ms() >= deadline) sb_test_fail(__FILE__, __LINE__, "the client hears something in time");
        stdio_bus_step(bus, 0);
        if (poll(&wait, 1, 5) == 1) {
            ssize_t n = read(fd, got + have, sizeof got - 1 - have);
            if (n <= 0) break;
            have += (size_t)n;
        }
    }
    got[have] = '\0';
    return got;
}

static inline void check_hears(stdio_bus_t *bus, int fd, const char *want)
{
    CHECK_STR(hears(bus, fd, strlen(want)), want);
}

static inline void check_refused(stdio_bus_t *bus, int fd, const char *code)
{
    const char *got = hears(bus, fd, SIZE_MAX); /* to the end: it is closed */
    if (strstr(got, code) == NULL || strchr(got, '\n') != got + strlen(got) - 1) {
        fprintf(stderr, "got: %s\n", got);
        sb_test_fail(__FILE__, __LINE__, "one answer, with the code that was expected");
    }
    close(fd);
}

static inline void is_served(stdio_bus_t *bus, int fd)
{
    says(fd, AUTH("any"));
    check_hears(bus, fd, AUTH_OK);
}

static inline const char *worker_reads(stdio_bus_t *bus, int to[2])
{
    static char line[4096];
    size_t len = 0;
    long deadline = now_ms() + BOUND_MS;
    while (len == 0 || line[len - 1] != '\n') {
        struct pollfd wait = {to[0], POLLIN, 0};
        if (now_ms() >= deadline) sb_test_fail(__FILE__, __LINE__, "the worker gets something in time");
        stdio_bus_step(bus, 0);
        if (poll(&wait, 1, 5) == 1) CHECK(read(to[0], line + len++, 1) == 1);
    }
    line[len - 1] = '\0';
    return line;
}

static inline void worker_says(const char *line)
{
    CHECK(write(from_worker[1], line, strlen(line)) == (ssize_t)strlen(line));
}

#endif
