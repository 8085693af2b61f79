/*
 * test_host.c - the bus is a good guest: what a C host with default signal
 * dispositions, children and threads of its own may rely on.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stdio_bus_ext.h"

/* A worker that answers every request with true. */
#define ECHO_POOL "{\"id\":\"w\",\"command\":\"sed\",\"args\":[\"-u\",\"s/\\\"method\\\":\\\"[a-z]*\\\"/\\\"result\\\":true/\"]}"
#define SHELL_POOL(script) "{\"id\":\"w\",\"command\":\"sh\",\"args\":[\"-c\",\"" script "\"]}"
#define CONFIG(pool) "{\"pools\":[" pool "]}"
#define REQUEST "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ask\"}"

enum { BOUND_MS = 10000 };

/* What the callbacks have seen. */
typedef struct {
    int messages;
    char last[512];
    int stopped; /* workers that ended */
} seen_t;

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    seen_t *seen = user_data;
    (void)bus;
    seen->messages++;
    snprintf(seen->last, sizeof seen->last, "%.*s", (int)len, msg);
}

static void on_worker(stdio_bus_t *bus, int worker, const char *event, void *user_data)
{
    seen_t *seen = user_data;
    (void)bus;
    (void)worker;
    if (strcmp(event, "stopped") == 0) seen->stopped++;
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    fprintf(stderr, "bus error %d: %s\n", code, message);
}

static void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)level;
    (void)message;
    (void)user_data;
}

static stdio_bus_t *create(const char *config, seen_t *seen)
{
    stdio_bus_options_t options = {0};
    options.config_json = config;
    options.on_message = on_message;
    options.on_worker = on_worker;
    options.on_error = on_error;
    options.on_log = on_log;
    options.user_data = seen;
    stdio_bus_t *bus = stdio_bus_create(&options);
    CHECK(bus != NULL);
    return bus;
}

static stdio_bus_t *create_and_start(const char *config, seen_t *seen)
{
    stdio_bus_t *bus = create(config, seen);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

static long now_ms(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Steps until `condition` holds; fails the test if that takes too long. */
#define STEP_UNTIL(bus, condition) \
    do { \
        long deadline_ = now_ms() + BOUND_MS; \
        while (!(condition)) { \
            if (now_ms() >= deadline_) sb_test_fail(__FILE__, __LINE__, "in time: " #condition); \
            CHECK(stdio_bus_step(bus, 20) >= 0); \
        } \
    } while (0)

static void ask_and_get_an_answer(stdio_bus_t *bus, seen_t *seen)
{
    int before = seen->messages;
    CHECK(stdio_bus_ingest(bus, REQUEST, strlen(REQUEST)) == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen->messages > before);
}

static void stop_and_destroy(stdio_bus_t *bus)
{
    CHECK(stdio_bus_stop(bus, 2) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static int worker_pid(stdio_bus_t *bus)
{
    stdio_bus_worker_info_t info = {0};
    info.size = sizeof info;
    CHECK(stdio_bus_worker_info(bus, 0, &info) == STDIO_BUS_OK);
    return info.pid;
}

static void kill_the_worker(stdio_bus_t *bus, seen_t *seen)
{
    int before = seen->stopped;
    CHECK(kill(worker_pid(bus), SIGKILL) == 0);
    STEP_UNTIL(bus, seen->stopped > before);
}

static void default_dispositions(void)
{
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    CHECK(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
}

static bool is_pending(int signum)
{
    sigset_t pending;
    CHECK(sigpending(&pending) == 0);
    return sigismember(&pending, signum) == 1;
}

/* The descriptors ("/proc/self/fd") or threads ("/proc/self/task") of this process, plus a constant. */
static int count_entries(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count;
}

/* The disposition of every signal and the mask, to be compared. */
typedef struct {
    void (*handlers[65])(int);
    sigset_t mask;
} signals_t;

static void read_signals(signals_t *signals)
{
    memset(signals, 0, sizeof *signals);
    for (int signum = 1; signum < 65; signum++) {
        struct sigaction action;
        if (sigaction(signum, NULL, &action) == 0) signals->handlers[signum] = action.sa_handler;
    }
    CHECK(sigprocmask(SIG_BLOCK, NULL, &signals->mask) == 0);
}

static void check_same_signals(const signals_t *before)
{
    signals_t now;
    read_signals(&now);
    for (int signum = 1; signum < 65; signum++) {
        CHECK(now.handlers[signum] == before->handlers[signum]);
        CHECK(sigismember(&now.mask, signum) == sigismember(&before->mask, signum));
    }
}

static void a_bus_changes_no_signal_disposition_and_no_mask(void)
{
    signals_t before;
    seen_t seen = {0};
    default_dispositions();
    read_signals(&before);

    stdio_bus_t *bus = create_and_start(CONFIG(ECHO_POOL), &seen);
    check_same_signals(&before);
    ask_and_get_an_answer(bus, &seen);
    kill_the_worker(bus, &seen);
    check_same_signals(&before);
    stop_and_destroy(bus);
    check_same_signals(&before);
}

static void a_worker_that_closed_its_input_raises_no_sigpipe(void)
{
    seen_t seen = {0};
    default_dispositions();
    stdio_bus_t *bus = create_and_start(CONFIG(SHELL_POOL("exec <&-; echo '{\\\"method\\\":\\\"closed\\\"}'; sleep 60")), &seen);
    STEP_UNTIL(bus, seen.messages > 0); /* its notification: from now on nobody reads the pipe */

    int status = stdio_bus_ingest(bus, REQUEST, strlen(REQUEST));
    if (status == STDIO_BUS_OK) STEP_UNTIL(bus, seen.messages > 1); /* accepted: so it ends, with an error */
    CHECK(!is_pending(SIGPIPE));
    stop_and_destroy(bus);
}

static void a_worker_that_dies_with_requests_pending_raises_no_sigpipe(void)
{
    seen_t seen = {0};
    default_dispositions();
    stdio_bus_t *bus = create_and_start(CONFIG(SHELL_POOL("sleep 60")), &seen);
    int pid = worker_pid(bus);
    CHECK(kill(pid, SIGKILL) == 0);

    /* the bus hasn't stepped, so it doesn't know yet: it writes to a pipe that nobody reads */
    int accepted = 0;
    for (int id = 0; id < 100; id++) {
        char request[64];
        int len = snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"ask\"}", id);
        accepted += stdio_bus_ingest(bus, request, (size_t)len) == STDIO_BUS_OK;
    }
    STEP_UNTIL(bus, seen.stopped > 0);
    stdio_bus_stop(bus, 0); /* whatever waits for the next worker ends too */
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(seen.messages == accepted);
    CHECK(!is_pending(SIGPIPE));
    stdio_bus_destroy(bus);
}

static void a_client_that_leaves_before_its_answer_raises_no_sigpipe(void)
{
    seen_t seen = {0};
    default_dispositions();
    stdio_bus_t *bus = create(CONFIG(ECHO_POOL), &seen);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/stdio_bus-test-host-%d.sock", (int)getpid());
    stdio_bus_listen_options_t listen_options = {.size = sizeof listen_options, .mode = STDIO_BUS_LISTEN_UNIX};
    listen_options.unix_path = address.sun_path;
    CHECK(stdio_bus_listen(bus, &listen_options) >= 0);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);

    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(client, REQUEST "\n", strlen(REQUEST) + 1) == (ssize_t)strlen(REQUEST) + 1);
    close(client);
    stdio_bus_stats_t stats = {0};
    STEP_UNTIL(bus, (stdio_bus_get_stats(bus, &stats), stats.client_disconnects == 1));
    ask_and_get_an_answer(bus, &seen);
    CHECK(!is_pending(SIGPIPE));
    stop_and_destroy(bus);
}

static void the_children_of_the_host_stay_its_own(void)
{
    seen_t seen = {0};
    default_dispositions();
    stdio_bus_t *bus = create_and_start(CONFIG(ECHO_POOL), &seen);
    pid_t mine = fork();
    CHECK(mine >= 0);
    if (mine == 0) _exit(7);

    kill_the_worker(bus, &seen); /* the bus reaps that one, and only that */
    ask_and_get_an_answer(bus, &seen);
    stop_and_destroy(bus);

    int status = 0;
    CHECK(waitpid(mine, &status, 0) == mine);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void a_host_that_ignores_sigchld_still_sees_its_workers_end(void)
{
    seen_t seen = {0};
    CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    stdio_bus_t *bus = create_and_start(CONFIG(ECHO_POOL), &seen);
    kill_the_worker(bus, &seen);
    ask_and_get_an_answer(bus, &seen);
    stop_and_destroy(bus);
}

static void *start_and_ask(void *arg)
{
    stdio_bus_t *bus = arg;
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(stdio_bus_step(bus, 0) >= 0);
    return NULL;
}

static void a_host_that_steps_from_a_thread_that_ends_keeps_its_workers(void)
{
    seen_t seen = {0};
    default_dispositions();
    stdio_bus_t *bus = create(CONFIG(ECHO_POOL), &seen);
    pthread_t thread;
    int threads = count_entries("/proc/self/task");
    CHECK(pthread_create(&thread, NULL, start_and_ask, bus) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    STEP_UNTIL(bus, count_entries("/proc/self/task") == threads); /* join returns a little earlier */

    int pid = worker_pid(bus);
    ask_and_get_an_answer(bus, &seen);
    ask_and_get_an_answer(bus, &seen);
    CHECK(worker_pid(bus) == pid);
    CHECK(seen.stopped == 0);
    stop_and_destroy(bus);
}

static void a_destroyed_bus_leaves_no_descriptor_and_no_child(void)
{
    seen_t seen = {0};
    default_dispositions();
    int before = count_entries("/proc/self/fd");
    stdio_bus_t *bus = create_and_start(CONFIG(ECHO_POOL), &seen);
    ask_and_get_an_answer(bus, &seen);
    kill_the_worker(bus, &seen);
    ask_and_get_an_answer(bus, &seen);
    stdio_bus_destroy(bus); /* without a stop */

    CHECK(count_entries("/proc/self/fd") == before);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static void a_bus_leaves_the_folder_and_the_umask_of_the_host_alone(void)
{
    char before[4096], after[4096];
    seen_t seen = {0};
    umask(027);
    CHECK(getcwd(before, sizeof before) != NULL);
    stdio_bus_t *bus = create_and_start(CONFIG("{\"id\":\"w\",\"command\":\"sed\",\"args\":[\"-u\",\"s/x/x/\"],\"cwd\":\"/\"}"), &seen);
    stop_and_destroy(bus);
    CHECK(getcwd(after, sizeof after) != NULL);
    CHECK_STR(after, before);
    CHECK(umask(027) == 027);
}

static const sb_test tests[] = {
    TEST(a_bus_changes_no_signal_disposition_and_no_mask),
    TEST(a_worker_that_closed_its_input_raises_no_sigpipe),
    TEST(a_worker_that_dies_with_requests_pending_raises_no_sigpipe),
    TEST(a_client_that_leaves_before_its_answer_raises_no_sigpipe),
    TEST(the_children_of_the_host_stay_its_own),
    TEST(a_host_that_ignores_sigchld_still_sees_its_workers_end),
    TEST(a_host_that_steps_from_a_thread_that_ends_keeps_its_workers),
    TEST(a_destroyed_bus_leaves_no_descriptor_and_no_child),
    TEST(a_bus_leaves_the_folder_and_the_umask_of_the_host_alone),
};

TEST_MAIN(tests)
