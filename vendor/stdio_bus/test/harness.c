#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "test.h"

#define TIMEOUT_SEC 20

/* Why the running test failed: shared with its processes, empty while it has not. */
#define REASON_MAX 512
static char *reason;

/* The process group of the running test, for the alarm's handler. */
static volatile sig_atomic_t running;
static volatile sig_atomic_t timed_out;

static void on_alarm(int signal_number)
{
    (void)signal_number;
    timed_out = 1;
    kill(-(pid_t)running, SIGKILL);
}

void sb_test_fail(const char *file, int line, const char *what)
{
    const char *name = strrchr(file, '/');
    snprintf(reason, REASON_MAX, "%s:%d: %s", name != NULL ? name + 1 : file, line, what);
    fflush(NULL);
    _exit(1);
}

static void run_child(const sb_test *test)
{
    setpgid(0, 0);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    test->run();
    exit(0); /* not _exit: leaks are reported on the way out */
}

static void describe_end(int status)
{
    if (reason[0] != '\0') return;
    if (timed_out) {
        snprintf(reason, REASON_MAX, "did not end in time");
    } else if (WIFSIGNALED(status)) {
        snprintf(reason, REASON_MAX, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        snprintf(reason, REASON_MAX, "ended with status %d", WEXITSTATUS(status));
    }
}

static unsigned timeout_sec(void)
{
    const char *text = getenv("SB_TEST_TIMEOUT");
    int seconds = text != NULL ? atoi(text) : 0;
    return seconds > 0 ? (unsigned)seconds : TIMEOUT_SEC;
}

static bool run_test(const sb_test *test)
{
    reason[0] = '\0';
    timed_out = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    if (pid == 0) run_child(test);
    setpgid(pid, pid); /* here too: whoever comes first */
    running = (sig_atomic_t)pid;

    /* Not reaped before the group is killed, so that its number can't belong to anyone else by then. */
    siginfo_t info;
    alarm(timeout_sec());
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) continue;
    alarm(0);
    kill(-pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;

    describe_end(status);
    if (reason[0] == '\0') {
        printf("ok %s\n", test->name);
        return true;
    }
    printf("FAIL %s: %s\n", test->name, reason);
    return false;
}

int sb_test_main(int argc, char **argv, const sb_test *tests, size_t count)
{
    reason = mmap(NULL, REASON_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reason == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);

    size_t passed = 0, failed = 0;
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strstr(tests[i].name, argv[1]) == NULL) continue;
        if (run_test(&tests[i])) {
            passed++;
        } else {
            failed++;
        }
    }
    printf("%zu passed, %zu failed\n", passed, failed);
    return failed > 0;
}

static atomic_size_t allocations;
static size_t failing;
static bool failing_is_sticky;

bool sb_test_alloc_fails(void);

bool sb_test_alloc_fails(void)
{
    size_t number = atomic_fetch_add(&allocations, 1) + 1;
    return failing != 0 && (number == failing || (failing_is_sticky && number > failing));
}

size_t sb_test_fail_alloc(size_t n, bool sticky)
{
    failing = n;
    failing_is_sticky = sticky;
    return atomic_exchange(&allocations, 0);
}

char *sb_test_guarded(const void *data, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (len + page - 1) / page * page;
    char *map = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + size, page, PROT_NONE) != 0) {
        sb_test_fail(__FILE__, __LINE__, "no guarded page");
    }
    char *copy = map + size - len;
    if (len > 0) memcpy(copy, data, len);
    return copy;
}
