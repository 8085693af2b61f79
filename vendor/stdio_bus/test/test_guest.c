/* test_guest.c - the library is a good guest: it gives back memory and descriptors, and keeps off the host's stderr. */
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

/* ---- memory -------------------------------------------------------------------------------- */

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* Chunks that are kept for the next burst: 256 of 4 KiB and 32 of 64 KiB (buf.c). */
#define KEPT (3 * MIB + 64 * KIB)

/* With AddressSanitizer, which has its own malloc. */
__attribute__((weak)) size_t __sanitizer_get_current_allocated_bytes(void);

static size_t allocated(void)
{
    struct mallinfo2 info;
    if (__sanitizer_get_current_allocated_bytes != NULL) return __sanitizer_get_current_allocated_bytes();
    info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* A line of `len` bytes: head, then x's, then tail. To be freed by the caller. */
static char *line_of(size_t len, const char *head, const char *tail)
{
    char *line = malloc(len);
    CHECK(line != NULL);
    memset(line, 'x', len);
    memcpy(line, head, strlen(head));
    memcpy(line + len - strlen(tail), tail, strlen(tail));
    return line;
}

/* Writes all of it while the bus reads. */
static void pour(stdio_bus_t *bus, int fd, const char *bytes, size_t len)
{
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
        CHECK(stdio_bus_step(bus, 0) >= 0);
    }
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
}

/* Takes `len` bytes and throws them away. */
static void swallow(stdio_bus_t *bus, int fd, size_t len)
{
    static char nowhere[65536];
    struct pollfd ready = {fd, POLLIN, 0};
    long deadline = now_ms() + BOUND_MS;
    while (len > 0) {
        CHECK(now_ms() < deadline && stdio_bus_step(bus, 0) >= 0);
        if (poll(&ready, 1, 1) == 1) {
            ssize_t n = read(fd, nowhere, len < sizeof nowhere ? len : sizeof nowhere);
            CHECK(n > 0);
            len -= (size_t)n;
        }
    }
}

/* A short request and its answer: everything that is needed once has been allocated after that. */
static void ask(stdio_bus_t *bus, int client)
{
    client_says(client, "{\"id\":\"short\",\"method\":\"m\"}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":\"short\",\"method\":\"m\"}");
    worker_says("{\"id\":\"short\",\"result\":0}\n");
    client_hears(bus, client, "{\"id\":\"short\",\"result\":0}\n");
}

static void memory_is_given_back_after_a_clients_frame_above_the_limit(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_input_buffer\":1048576"), 0);
    char *line = line_of(3 * MIB, "{\"id\":1,\"method\":\"", "\"}\n");
    int client = connect_pair(bus);
    size_t before;
    ask(bus, client);
    before = allocated();
    pour(bus, client, line, MIB / 2);
    CHECK(allocated() >= before + MIB / 2);
    pour(bus, client, line + MIB / 2, 3 * MIB - MIB / 2);
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32600,\"message\":\"Message too large\",\"data\":"
                              "{\"source\":\"stdio_bus\",\"reason\":\"too_large\"}}}\n");
    ask(bus, client);
    CHECK(allocated() <= before + KIB);
    finish(bus);
    free(line);
}

static void memory_is_given_back_after_a_workers_frame_above_the_limit(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_input_buffer\":1048576"), 0);
    char *line = line_of(3 * MIB, "{\"id\":1,\"result\":\"", "\"}\n");
    int client = connect_pair(bus);
    size_t before;
    ask(bus, client);
    before = allocated();
    pour(bus, played.out, line, MIB / 2);
    CHECK(allocated() >= before + MIB / 2);
    pour(bus, played.out, line + MIB / 2, 3 * MIB - MIB / 2);
    STEP_UNTIL(bus, ext_stats(bus).oversize_frames == 1);
    ask(bus, client);
    CHECK(allocated() <= before + KIB);
    finish(bus);
    free(line);
}

static void memory_is_given_back_after_a_large_frame_each_way(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    size_t len = 9 * MIB, before;
    char *request = line_of(len, "{\"id\":1,\"method\":\"", "\"}\n"), *answer = line_of(len, "{\"id\":1,\"result\":\"", "\"}\n");
    int client = connect_pair(bus);
    ask(bus, client);
    before = allocated();
    pour(bus, client, request, len);
    CHECK(allocated() >= before + len);
    swallow(bus, played.in, len);
    pour(bus, played.out, answer, len);
    CHECK(allocated() >= before + len);
    swallow(bus, client, len);
    ask(bus, client);
    CHECK(allocated() <= before + KEPT);
    finish(bus);
    free(request);
    free(answer);
}

static void memory_is_given_back_after_a_burst_each_way(void)
{
    enum { FRAMES = 8000, FRAME = 1000 };
    static const size_t burst = (size_t)FRAMES * FRAME;
    stdio_bus_t *bus = start(CONFIG, 0);
    char *line = line_of(FRAME, "{\"method\":\"", "\"}\n");
    int client = connect_pair(bus);
    size_t before;
    ask(bus, client);
    before = allocated();
    for (int i = 0; i < FRAMES; i++) pour(bus, client, line, FRAME);
    CHECK(allocated() >= before + burst * 9 / 10);
    swallow(bus, played.in, burst);
    CHECK(allocated() <= before + KEPT);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    for (int i = 0; i < FRAMES; i++) pour(bus, played.out, line, FRAME);
    CHECK(allocated() >= before + burst * 9 / 10);
    swallow(bus, client, burst);
    ask(bus, client);
    CHECK(allocated() <= before + KEPT);
    finish(bus);
    free(line);
}

/* ---- descriptors and slots ------------------------------------------------------------------- */

static bool is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    CHECK(flags >= 0);
    return flags & O_NONBLOCK;
}

/* As 0 and 1 are on a terminal: two descriptors of one open file, of which `ours` is a third. */
static int adopt_twice_the_same_file(stdio_bus_t *bus, int *ours)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    *ours = dup(pair[1]);
    CHECK(stdio_bus_adopt_client(bus, pair[1], dup(pair[1])) > 0 && is_nonblocking(*ours));
    return pair[0];
}

static void a_file_that_was_handed_over_twice_is_left_as_it_was(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int ours, client = adopt_twice_the_same_file(bus, &ours);
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(!is_nonblocking(ours));
    finish(bus);
}

static void the_end_of_input_does_not_make_the_output_of_the_same_file_blocking(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int ours, client = adopt_twice_the_same_file(bus, &ours);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    CHECK(shutdown(client, SHUT_WR) == 0);
    worker_reads(bus);
    CHECK(stdio_bus_step(bus, 0) >= 0 && stdio_bus_step(bus, 0) >= 0);
    CHECK(is_nonblocking(ours));
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(!is_nonblocking(ours));
    finish(bus);
}

static void registrations_that_fail_leave_no_slots_behind(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int before;
    CHECK(stdio_bus_register_embedded_worker(bus, 1000, 1001, "p") == STDIO_BUS_ERR_WORKER);
    before = stdio_bus_worker_slots(bus);
    for (int i = 0; i < 10; i++) {
        CHECK(stdio_bus_register_embedded_worker(bus, 1000, 1001, "p") == STDIO_BUS_ERR_WORKER);
    }
    CHECK(stdio_bus_worker_slots(bus) == before);
    embed(bus, "p");
    CHECK(stdio_bus_worker_slots(bus) == before);
    finish(bus);
}

/* ---- stderr ---------------------------------------------------------------------------------- */

static int real_stderr;

/* From now on what is written to stderr can be read from the descriptor that is returned. */
static int catch_stderr(void)
{
    int pair[2];
    CHECK(pipe(pair) == 0 && fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0);
    real_stderr = dup(STDERR_FILENO);
    CHECK(real_stderr >= 0 && dup2(pair[1], STDERR_FILENO) == STDERR_FILENO && close(pair[1]) == 0);
    return pair[0];
}

/* What was written meanwhile, in bytes. */
static size_t release_stderr(int from)
{
    static char text[65536];
    ssize_t n;
    CHECK(dup2(real_stderr, STDERR_FILENO) == STDERR_FILENO);
    n = read(from, text, sizeof text);
    return n > 0 ? (size_t)n : 0;
}

/* A life in which there is something to say at each level, and a worker talks too. */
static void live_loudly(bool has_log)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    int client;
    fill_options(&options, &ext, POOLS(SHELL("p", "echo to stderr >&2; echo garbage; exec cat") "," DEAD("q")));
    options.log_level = 0;
    if (!has_log) options.on_log = NULL;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_GARBAGE) > 0 && events_of(STDIO_BUS_EVENT_WORKER_STDERR) > 0 &&
                        events_of(STDIO_BUS_EVENT_WORKER_STOPPED) > 0);
    client = connect_pair(bus);
    client_says(client, "no json\n");
    client_line(bus, client);
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(stdio_bus_reload(bus, NULL, "{\"pools\":[") == STDIO_BUS_ERR_CONFIG);
    finish(bus);
    options.config_json = "{\"pools\":[],\"unknown\":1}";
    CHECK(stdio_bus_create_ext(&options, &ext) == NULL);
}

static void nothing_reaches_stderr_where_the_host_takes_the_log(void)
{
    int from = catch_stderr();
    live_loudly(true);
    CHECK(release_stderr(from) == 0);
    for (int level = 0; level < 4; level++) CHECK(seen.logs[level] > 0);
}

static void the_log_goes_to_stderr_where_the_host_does_not_take_it(void)
{
    int from = catch_stderr();
    live_loudly(false);
    CHECK(release_stderr(from) > 0);
}

static const sb_test tests[] = {
    TEST(memory_is_given_back_after_a_clients_frame_above_the_limit),
    TEST(memory_is_given_back_after_a_workers_frame_above_the_limit),
    TEST(memory_is_given_back_after_a_large_frame_each_way),
    TEST(memory_is_given_back_after_a_burst_each_way),
    TEST(a_file_that_was_handed_over_twice_is_left_as_it_was),
    TEST(the_end_of_input_does_not_make_the_output_of_the_same_file_blocking),
    TEST(registrations_that_fail_leave_no_slots_behind),
    TEST(nothing_reaches_stderr_where_the_host_takes_the_log),
    TEST(the_log_goes_to_stderr_where_the_host_does_not_take_it),
};

TEST_MAIN(tests)
