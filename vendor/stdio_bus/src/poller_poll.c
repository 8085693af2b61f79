#include <errno.h>
#include <poll.h>

#include "poller.h"

struct sb_poller {
    struct pollfd *fds;
    sb_io **ios;
    size_t count;
    size_t cap;
    size_t next; /* where the next hand-out starts, so that a full batch starves nobody */
};

static sb_poller *poll_create(void)
{
    return sb_calloc(1, sizeof(sb_poller));
}

static void poll_destroy(sb_poller *poller)
{
    sb_free(poller->fds);
    sb_free(poller->ios);
    sb_free(poller);
}

static bool grow(sb_poller *poller)
{
    size_t cap = poller->cap ? poller->cap * 2 : 32;
    struct pollfd *fds = sb_realloc(poller->fds, cap * sizeof *fds);
    sb_io **ios;
    if (fds == NULL) return false;
    poller->fds = fds;
    ios = sb_realloc(poller->ios, cap * sizeof *ios);
    if (ios == NULL) return false;
    poller->ios = ios;
    poller->cap = cap;
    return true;
}

static int poll_modify(sb_poller *poller, sb_io *io)
{
    short events = 0;
    if (io->interest & SB_READ) events = (short)(events | POLLIN);
    if (io->interest & SB_WRITE) events = (short)(events | POLLOUT);
    poller->fds[io->slot].events = events;
    return 0;
}

static int poll_add(sb_poller *poller, sb_io *io)
{
    if (poller->count == poller->cap && !grow(poller)) return ENOMEM;
    io->slot = (uint32_t)poller->count++;
    poller->ios[io->slot] = io;
    poller->fds[io->slot].fd = io->fd;
    poller->fds[io->slot].revents = 0;
    return poll_modify(poller, io);
}

static void poll_remove(sb_poller *poller, sb_io *io)
{
    size_t last = --poller->count;
    poller->fds[io->slot] = poller->fds[last];
    poller->ios[io->slot] = poller->ios[last];
    poller->ios[io->slot]->slot = io->slot;
}

static int poll_wait(sb_poller *poller, sb_ready *ready, int max, int timeout_ms)
{
    int filled = 0;
    int n = poll(poller->fds, (nfds_t)poller->count, timeout_ms);
    for (size_t i = 0; n > 0 && i < poller->count && filled < max; i++) {
        size_t at = (poller->next + i) % poller->count;
        short got = poller->fds[at].revents;
        if (got == 0) continue;
        ready[filled].io = poller->ios[at];
        ready[filled].events = (got & POLLIN ? SB_READ : 0) | (got & POLLOUT ? SB_WRITE : 0) |
                               (got & (POLLHUP | POLLERR | POLLNVAL) ? SB_HANGUP : 0);
        filled++;
    }
    if (poller->count > 0) poller->next = (poller->next + 1) % poller->count;
    return filled;
}

static int poll_fd(const sb_poller *poller)
{
    (void)poller;
    return -1;
}

const sb_poller_ops sb_poller_poll = {
    poll_create, poll_destroy, poll_add, poll_modify, poll_remove, poll_wait, poll_fd,
};
