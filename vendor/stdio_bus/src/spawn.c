#include "spawn.h"

#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

enum { STEP_SETUP, STEP_CWD, STEP_EXEC };
static const char *const step_name[] = {"set up", "enter the directory of", "execute"};

typedef struct {
    int32_t step;
    int32_t error;
} report;

/* Where the child keeps the write end of the verdict pipe. */
#define VERDICT_FD 3

static int open_pipe(int ends[2])
{
#ifdef __linux__
    if (pipe2(ends, O_CLOEXEC) != 0) return errno;
#else
    if (pipe(ends) != 0) return errno;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#endif
    /* So that none is in the way of another's dup2. */
    ends[0] = sb_fd_from(ends[0], VERDICT_FD + 1);
    ends[1] = sb_fd_from(ends[1], VERDICT_FD + 1);
    if (ends[0] >= 0 && ends[1] >= 0) return 0;
    if (ends[0] >= 0) close(ends[0]);
    if (ends[1] >= 0) close(ends[1]);
    ends[0] = ends[1] = -1;
    return EMFILE;
}

static void close_fd(int fd)
{
    if (fd >= 0) close(fd);
}

static void set_nonblocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* ---- in the child: async-signal-safe calls only ---------------------------- */

static void child_fail(int step)
{
    report failure = {step, errno};
    ssize_t ignored = write(VERDICT_FD, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

static void child_close_others(void)
{
    long limit;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)VERDICT_FD + 1, ~0u, 0) == 0) return;
#endif
    limit = sysconf(_SC_OPEN_MAX);
    for (int fd = VERDICT_FD + 1; fd < (limit > 0 ? limit : 1024); fd++) close(fd);
}

static void child_reset_signals(void)
{
    struct sigaction action;
    sigset_t none;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (int sig = 1; sig < NSIG; sig++) sigaction(sig, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_die_with_parent(pid_t parent)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* The parent may have ended before the line above. */
    if (getppid() != parent) _exit(127);
#else
    (void)parent;
#endif
}

static void child_run(const sb_spawn_plan *plan, pid_t parent, int pipes[4][2], char *const *shell_argv)
{
    int null_fd;
    if (dup2(pipes[3][1], VERDICT_FD) < 0) _exit(127);
    fcntl(VERDICT_FD, F_SETFD, FD_CLOEXEC);
    setpgid(0, 0);
    if (dup2(pipes[0][0], 0) < 0 || dup2(pipes[1][1], 1) < 0) child_fail(STEP_SETUP);
    if (plan->stderr_mode == SB_CHILD_STDERR_PIPE) {
        if (dup2(pipes[2][1], 2) < 0) child_fail(STEP_SETUP);
    } else if (plan->stderr_mode == SB_CHILD_STDERR_NULL || fcntl(2, F_GETFD) < 0) {
        null_fd = open("/dev/null", O_WRONLY);
        if (null_fd < 0 || dup2(null_fd, 2) < 0) child_fail(STEP_SETUP);
    }
    child_close_others();
    if (plan->cwd != NULL && chdir(plan->cwd) != 0) child_fail(STEP_CWD);
    if (plan->parent_death_signal) child_die_with_parent(parent);
    child_reset_signals();
    execve(plan->path, plan->argv, plan->envp);
    /* A script without an interpreter line: the shell runs it, as execvp would have it. */
    if (errno == ENOEXEC) execve("/bin/sh", shell_argv, plan->envp);
    child_fail(STEP_EXEC);
}

/* ---- in the parent ----------------------------------------------------------- */

static char **shell_arguments(const sb_spawn_plan *plan)
{
    size_t count = 0;
    char **argv;
    while (plan->argv[count] != NULL) count++;
    argv = sb_alloc((count + 2) * sizeof *argv);
    if (argv == NULL) return NULL;
    memcpy(argv + 1, plan->argv, (count + 1) * sizeof *argv);
    argv[0] = (char *)(uintptr_t)"sh";
    argv[1] = (char *)(uintptr_t)plan->path;
    return argv;
}

/* Signals stay blocked across fork, so that no handler of the host runs in the child. */
static pid_t fork_child(const sb_spawn_plan *plan, int pipes[4][2], char *const *shell_argv)
{
    sigset_t all, before;
    pid_t parent = getpid(), pid;
    int error;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0) child_run(plan, parent, pipes, shell_argv);
    error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

int sb_spawn(const sb_spawn_plan *plan, sb_child *child)
{
    int pipes[4][2] = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}}; /* stdin, stdout, stderr, verdict */
    char **shell_argv = shell_arguments(plan);
    int error = shell_argv == NULL ? ENOMEM : 0;
    for (int i = 0; i < 4 && error == 0; i++) {
        if (i == 2 && plan->stderr_mode != SB_CHILD_STDERR_PIPE) continue;
        error = open_pipe(pipes[i]);
    }
    if (error == 0) {
        child->pid = fork_child(plan, pipes, shell_argv);
        if (child->pid < 0) error = errno;
    }
    sb_free(shell_argv);
    close_fd(pipes[0][0]);
    close_fd(pipes[1][1]);
    close_fd(pipes[2][1]);
    close_fd(pipes[3][1]);
    child->to = pipes[0][1];
    child->from = pipes[1][0];
    child->err = pipes[2][0];
    child->verdict = pipes[3][0];
    if (error != 0) {
        close_fd(child->to);
        close_fd(child->from);
        close_fd(child->err);
        close_fd(child->verdict);
        return error;
    }
    /* The child does the same; whichever is first, the group exists from here on. */
    setpgid(child->pid, child->pid);
    set_nonblocking(child->to);
    set_nonblocking(child->from);
    if (child->err >= 0) set_nonblocking(child->err);
    set_nonblocking(child->verdict);
    return 0;
}

sb_spawn_result sb_spawn_verdict(int verdict, int *error, const char **step)
{
    report failure;
    ssize_t n = read(verdict, &failure, sizeof failure);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return SB_SPAWN_UNDECIDED;
    if (n != (ssize_t)sizeof failure) return SB_SPAWN_EXECUTED;
    *error = failure.error;
    *step = step_name[failure.step];
    return SB_SPAWN_FAILED;
}

static bool is_program(const char *path, int *error)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        /* Being refused somewhere says more than not being found elsewhere. */
        if (errno != ENOENT && errno != ENOTDIR) *error = errno;
        return false;
    }
    if (!S_ISREG(info.st_mode) || access(path, X_OK) != 0) {
        *error = EACCES;
        return false;
    }
    return true;
}

char *sb_spawn_resolve(const char *command, const char *search, int *error)
{
    size_t command_len = strlen(command);
    char *path;
    *error = ENOENT;
    if (strchr(command, '/') != NULL) return sb_strndup(command, command_len);
    if (search == NULL) search = "/usr/local/bin:/usr/bin:/bin";
    path = sb_alloc(strlen(search) + command_len + 3);
    if (path == NULL) {
        *error = ENOMEM;
        return NULL;
    }
    for (const char *dir = search;; dir++) {
        size_t len = strcspn(dir, ":");
        size_t used = 0;
        /* An empty entry means the current directory. */
        if (len == 0) path[used++] = '.';
        memcpy(path + used, dir, len);
        used += len;
        path[used++] = '/';
        memcpy(path + used, command, command_len + 1);
        if (is_program(path, error)) return path;
        dir += len;
        if (*dir == '\0') break;
    }
    sb_free(path);
    return NULL;
}
