#ifdef __linux__

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "fd.h"
#include "poller.h"

#define BATCH 256

struct sb_poller {
    int fd;
    struct epoll_event events[BATCH];
};

static sb_poller *epoll_create_poller(void)
{
    sb_poller *poller = sb_alloc(sizeof *poller);
    if (poller == NULL) return NULL;
    poller->fd = sb_fd_clear(epoll_create1(EPOLL_CLOEXEC));
    if (poller->fd < 0) {
        sb_free(poller);
        return NULL;
    }
    return poller;
}

static void epoll_destroy(sb_poller *poller)
{
    close(poller->fd);
    sb_free(poller);
}

static int control(sb_poller *poller, int op, sb_io *io)
{
    struct epoll_event event = {0};
    if (io->interest & SB_READ) event.events |= EPOLLIN;
    if (io->interest & SB_WRITE) event.events |= EPOLLOUT;
    event.data.ptr = io;
    return epoll_ctl(poller->fd, op, io->fd, &event) == 0 ? 0 : errno;
}

static int epoll_add(sb_poller *poller, sb_io *io)
{
    return control(poller, EPOLL_CTL_ADD, io);
}

static int epoll_modify(sb_poller *poller, sb_io *io)
{
    return control(poller, EPOLL_CTL_MOD, io);
}

static void epoll_remove(sb_poller *poller, sb_io *io)
{
    control(poller, EPOLL_CTL_DEL, io);
}

static int epoll_wait_poller(sb_poller *poller, sb_ready *ready, int max, int timeout_ms)
{
    int n = epoll_wait(poller->fd, poller->events, max < BATCH ? max : BATCH, timeout_ms);
    for (int i = 0; i < n; i++) {
        unsigned got = poller->events[i].events;
        ready[i].io = poller->events[i].data.ptr;
        ready[i].events = (got & EPOLLIN ? SB_READ : 0) | (got & EPOLLOUT ? SB_WRITE : 0) |
                          (got & (EPOLLHUP | EPOLLERR) ? SB_HANGUP : 0);
    }
    return n < 0 ? 0 : n;
}

static int epoll_fd(const sb_poller *poller)
{
    return poller->fd;
}

const sb_poller_ops sb_poller_epoll = {
    epoll_create_poller, epoll_destroy, epoll_add, epoll_modify, epoll_remove, epoll_wait_poller, epoll_fd,
};

#else
typedef int sb_poller_epoll_is_linux_only;
#endif
