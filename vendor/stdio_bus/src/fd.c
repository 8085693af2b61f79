#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int sb_fd_from(int fd, int least)
{
    int high, error;
    if (fd < 0 || fd >= least) return fd;
    high = fcntl(fd, F_DUPFD_CLOEXEC, least);
    error = errno;
    close(fd);
    errno = error;
    return high;
}

int sb_fd_clear(int fd)
{
    return sb_fd_from(fd, STDERR_FILENO + 1);
}
