#include "reap.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "fd.h"

int sb_reap_open(pid_t pid)
{
#ifdef SYS_pidfd_open
    /* Close-on-exec by itself. */
    return sb_fd_clear((int)syscall(SYS_pidfd_open, pid, 0u));
#else
    (void)pid;
    return -1;
#endif
}

bool sb_reap_ended(pid_t pid)
{
    siginfo_t info;
    info.si_pid = 0;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        /* ECHILD: the host ignores SIGCHLD or waited for it; nothing is left to wait for. */
        if (errno != EINTR) return true;
    }
    return info.si_pid == pid;
}

sb_exit sb_reap(pid_t pid)
{
    sb_exit status = {-1, 0};
    siginfo_t info;
    info.si_pid = 0;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) != 0) {
        if (errno != EINTR) return status;
    }
    if (info.si_code == CLD_EXITED) {
        status.code = info.si_status;
    } else {
        status.signal = info.si_status;
    }
    return status;
}
