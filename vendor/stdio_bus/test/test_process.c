/* test_process.c - a host that forks, and one that has closed its standard descriptors. */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

#define REQUEST "{\"id\":1,\"method\":\"m\"}"

static char socket_path[64];

static int open_unix(stdio_bus_t *bus)
{
    stdio_bus_listen_options_t options = {0};
    snprintf(socket_path, sizeof socket_path, "/tmp/stdio_bus-test-process-%d", (int)getpid());
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_UNIX;
    options.unix_path = socket_path;
    return stdio_bus_listen(bus, &options);
}

/* A child that destroys its copy of the bus, and ends well. */
static void destroy_in_a_child(stdio_bus_t *bus)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        stdio_bus_destroy(bus);
        _exit(seen.events == 0 && seen.disconnects == 0 && seen.errors == 0 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void answers(stdio_bus_t *bus)
{
    int before = seen.count;
    CHECK(ingest(bus, REQUEST) == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == before + 1);
    CHECK_STR(seen.frame[before].text, "{\"id\":1,\"result\":0}");
}

/* Everything a bus can have, in the child's copy as well. */
static void a_destroy_in_a_forked_child_does_not_touch_the_parents(unsigned flags)
{
    stdio_bus_t *bus = create(POOLS(ECHO("p")), flags);
    int remote, pair;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    stdio_bus_get_poll_fd(bus);
    CHECK(open_unix(bus) == 0);
    remote = connect_listener(bus, 0);
    pair = connect_pair(bus);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 2);
    memset(&seen, 0, sizeof seen);
    /* Something is on its way in both directions. */
    client_says(pair, "{\"id\":2,\"method\":\"m\"}\n");
    CHECK(ingest(bus, REQUEST) == STDIO_BUS_OK);
    destroy_in_a_child(bus);
    STEP_UNTIL(bus, seen.count == 1);
    client_hears(bus, pair, "{\"id\":2,\"result\":0}\n");
    client_says(remote, "{\"id\":3,\"method\":\"m\"}\n");
    client_hears(bus, remote, "{\"id\":3,\"result\":0}\n");
    answers(bus);
    CHECK(access(socket_path, F_OK) == 0);
    connect_listener(bus, 0);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 3);
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_STOPPED) == 0);
    finish(bus);
    CHECK(access(socket_path, F_OK) != 0);
}

static void a_destroy_in_a_forked_child_leaves_the_bus_of_the_parent_alone(void)
{
    a_destroy_in_a_forked_child_does_not_touch_the_parents(0);
}

static void a_destroy_in_a_forked_child_leaves_a_bus_that_polls_alone(void)
{
    a_destroy_in_a_forked_child_does_not_touch_the_parents(STDIO_BUS_CREATE_POLL);
}

static void a_destroy_in_a_forked_child_logs_nothing(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    int ends[2], before;
    char byte;
    fill_options(&options, &ext, POOLS(ECHO("p")));
    options.on_log = NULL;
    options.log_level = 3;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    connect_pair(bus);
    CHECK(pipe(ends) == 0);
    before = dup(STDERR_FILENO);
    CHECK(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    seen.events = 0;
    destroy_in_a_child(bus);
    CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO && close(ends[1]) == 0);
    CHECK(read(ends[0], &byte, 1) == 0);
    finish(bus);
}

/* ---- descriptors 0 to 2 --------------------------------------------------------------------- */

static bool is_free(int fd)
{
    return fcntl(fd, F_GETFD) < 0;
}

static void close_standard(void)
{
    for (int fd = 0; fd <= 2; fd++) close(fd);
}

static void check_standard_is_free(int report)
{
    /* There is no stderr to say it on. */
    if (!is_free(0) || !is_free(1) || !is_free(2)) {
        dup2(report, 2);
        CHECK(is_free(0) && is_free(1));
        sb_test_fail(__FILE__, __LINE__, "a descriptor from 0 to 2 is in use");
    }
}

static void a_bus_never_takes_the_standard_descriptors(unsigned flags)
{
    int report = fcntl(2, F_DUPFD_CLOEXEC, 100), remote;
    stdio_bus_t *bus;
    close_standard();
    bus = create(POOLS("{\"id\":\"p\",\"instances\":3,\"command\":\"sed\",\"args\":[\"-u\",\"s/.method.:.[a-z]*./"
                       "\\\"result\\\":0/\"]}"), flags);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    stdio_bus_get_poll_fd(bus);
    CHECK(open_unix(bus) == 0);
    check_standard_is_free(report);
    remote = connect_listener(bus, 0);
    /* The test's own. */
    CHECK(remote == 0);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    close(remote);
    answers(bus);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    check_standard_is_free(report);
    finish(bus);
    dup2(report, 2);
}

static void no_descriptor_of_a_bus_is_one_of_the_standard_ones(void)
{
    a_bus_never_takes_the_standard_descriptors(0);
}

static void no_descriptor_of_a_bus_that_polls_is_one_of_the_standard_ones(void)
{
    a_bus_never_takes_the_standard_descriptors(STDIO_BUS_CREATE_POLL);
}

static void a_worker_that_would_inherit_a_closed_stderr_gets_dev_null(void)
{
    int report = fcntl(2, F_DUPFD_CLOEXEC, 100);
    stdio_bus_t *bus;
    close_standard();
    bus = create(POOLS("{\"id\":\"p\",\"stderr\":\"inherit\",\"command\":\"sh\",\"args\":[\"-c\","
                       "\"read line; echo {\\\\\\\"id\\\\\\\":1,\\\\\\\"result\\\\\\\":\\\\\\\"$(readlink /proc/$$/fd/2)\\\\\\\"}\"]}"), 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(ingest(bus, REQUEST) == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    dup2(report, 2);
    CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":\"/dev/null\"}");
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_destroy_in_a_forked_child_leaves_the_bus_of_the_parent_alone),
    TEST(a_destroy_in_a_forked_child_leaves_a_bus_that_polls_alone),
    TEST(a_destroy_in_a_forked_child_logs_nothing),
    TEST(no_descriptor_of_a_bus_is_one_of_the_standard_ones),
    TEST(no_descriptor_of_a_bus_that_polls_is_one_of_the_standard_ones),
    TEST(a_worker_that_would_inherit_a_closed_stderr_gets_dev_null),
};

TEST_MAIN(tests)
