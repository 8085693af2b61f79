#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#endif

#include "fd.h"

static void on_wake(sb_io *io, unsigned events)
{
    sb_loop *loop = SB_CONTAINER(io, sb_loop, wake);
    char drain[64];
    (void)events;
    while (read(io->fd, drain, sizeof drain) == (ssize_t)sizeof drain) {
    }
    /*
     * Cleared after reading: cleared before, a wake-up that comes in between
     * would be read away and leave `woken` set, and no other would ever be
     * written. One that comes in between now is not written, but finds this
     * turn running, which returns without waiting. An exchange, so that what
     * its sender did before is seen by whoever looks after the turn.
     */
    (void)atomic_exchange(&loop->woken, false);
}

static int open_wake(sb_loop *loop, int *read_fd)
{
#ifdef __linux__
    *read_fd = loop->wake_fd = sb_fd_clear(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    return *read_fd < 0 ? errno : 0;
#else
    int pair[2];
    if (pipe(pair) != 0) return errno;
    pair[0] = sb_fd_clear(pair[0]);
    pair[1] = sb_fd_clear(pair[1]);
    if (pair[0] < 0 || pair[1] < 0) {
        if (pair[0] >= 0) close(pair[0]);
        if (pair[1] >= 0) close(pair[1]);
        loop->wake_fd = -1;
        return EMFILE;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(pair[i], F_SETFD, FD_CLOEXEC);
        fcntl(pair[i], F_SETFL, O_NONBLOCK);
    }
    *read_fd = pair[0];
    loop->wake_fd = pair[1];
    return 0;
#endif
}

static void tell_time(sb_loop *loop)
{
    uint64_t micros = sb_clock_micros(&loop->clock);
    loop->now = micros / 1000u;
    loop->ticks = sb_ticks(micros);
    loop->host_waits = false;
}

int sb_loop_init(sb_loop *loop, sb_clock clock, bool use_poll)
{
    int error, fd = -1;
    memset(loop, 0, sizeof *loop);
    loop->wake.fd = loop->alarm.fd = loop->wake_fd = -1;
    loop->alarm_due = UINT64_MAX;
    loop->clock = clock;
    tell_time(loop);
    loop->ops = &sb_poller_poll;
#ifdef __linux__
    if (!use_poll) loop->ops = &sb_poller_epoll;
#else
    (void)use_poll;
#endif
    loop->poller = loop->ops->create();
    if (loop->poller == NULL) return ENOMEM;
    error = open_wake(loop, &fd);
    if (error == 0) {
        error = sb_loop_watch(loop, &loop->wake, fd, SB_READ, on_wake);
        if (error != 0) {
            close(fd);
            if (loop->wake_fd != fd) close(loop->wake_fd);
        }
    }
    if (error != 0) {
        loop->ops->destroy(loop->poller);
        loop->poller = NULL;
    }
    return error;
}

static void close_io(sb_loop *loop, sb_io *io)
{
    int fd = io->fd;
    if (fd < 0) return;
    sb_loop_unwatch(loop, io);
    close(fd);
}

void sb_loop_disown(sb_loop *loop)
{
    loop->foreign = true;
    /* So that nothing is written. */
    (void)atomic_exchange(&loop->woken, true);
}

void sb_loop_free(sb_loop *loop)
{
    if (loop->poller == NULL) return;
    if (loop->wake_fd != loop->wake.fd) close(loop->wake_fd);
    close_io(loop, &loop->wake);
    close_io(loop, &loop->alarm);
    loop->ops->destroy(loop->poller);
    loop->poller = NULL;
    sb_timers_free(&loop->timers);
    sb_free(loop->always);
}

static int watch_always(sb_loop *loop, sb_io *io)
{
    if (loop->always_count == loop->always_cap) {
        size_t cap = loop->always_cap + 4;
        sb_io **always = sb_realloc(loop->always, cap * sizeof *always);
        if (always == NULL) return ENOMEM;
        loop->always = always;
        loop->always_cap = cap;
    }
    io->always = true;
    loop->always[loop->always_count++] = io;
    sb_loop_wake(loop);
    return 0;
}

int sb_loop_watch(sb_loop *loop, sb_io *io, int fd, unsigned interest, sb_io_fn on_ready)
{
    int error;
    io->fd = fd;
    io->interest = (uint8_t)interest;
    io->always = false;
    io->on_ready = on_ready;
    error = loop->ops->add(loop->poller, io);
    if (error == EPERM) error = watch_always(loop, io);
    if (error != 0) io->fd = -1;
    return error;
}

void sb_loop_interest(sb_loop *loop, sb_io *io, unsigned interest)
{
    if (io->fd < 0 || io->interest == interest) return;
    io->interest = (uint8_t)interest;
    if (io->always) {
        sb_loop_wake(loop);
    } else {
        loop->ops->modify(loop->poller, io);
    }
}

void sb_loop_unwatch(sb_loop *loop, sb_io *io)
{
    if (io->fd < 0) return;
    if (io->always) {
        for (size_t i = 0; i < loop->always_count; i++) {
            if (loop->always[i] == io) loop->always[i--] = loop->always[--loop->always_count];
        }
    } else if (!loop->foreign) {
        loop->ops->remove(loop->poller, io);
    }
    io->fd = -1;
    for (int i = 0; i < loop->ready_count; i++) {
        if (loop->ready[i].io == io) loop->ready[i].io = NULL;
    }
}

/* Files that no poller takes (a redirected stdin) are ready whenever something is wanted of them. */
static int add_always(sb_loop *loop, int count)
{
    for (size_t i = 0; i < loop->always_count && count < SB_LOOP_BATCH; i++) {
        sb_io *io = loop->always[i];
        if (io->interest == 0) continue;
        loop->ready[count].io = io;
        loop->ready[count].events = io->interest;
        count++;
    }
    return count;
}

static bool always_wanted(const sb_loop *loop)
{
    for (size_t i = 0; i < loop->always_count; i++) {
        if (loop->always[i]->interest != 0) return true;
    }
    return false;
}

static int wait_time(const sb_loop *loop, int timeout_ms)
{
    uint64_t due = sb_timers_due(&loop->timers);
    uint64_t now, left;
    if (timeout_ms == 0 || always_wanted(loop)) return 0;
    if (due == UINT64_MAX) return timeout_ms;
    now = sb_clock_now(&loop->clock);
    left = due > now ? due - now : 0;
    if (left > INT32_MAX) left = INT32_MAX;
    return timeout_ms < 0 || left < (uint64_t)timeout_ms ? (int)left : timeout_ms;
}

void sb_loop_wait(sb_loop *loop, int timeout_ms)
{
    int count = loop->ops->wait(loop->poller, loop->ready, SB_LOOP_BATCH, wait_time(loop, timeout_ms));
    loop->ready_count = add_always(loop, count);
    tell_time(loop);
}

int sb_loop_hand_out(sb_loop *loop)
{
    int handled = 0;
    for (int i = 0; i < loop->ready_count; i++) {
        sb_io *io = loop->ready[i].io;
        if (io == NULL) continue;
        loop->ready[i].io = NULL;
        if (io != &loop->wake) handled++;
        io->on_ready(io, loop->ready[i].events);
    }
    loop->ready_count = 0;
    if (sb_timers_due(&loop->timers) <= loop->now) handled += sb_timers_run(&loop->timers, loop->now);
    return handled;
}

void sb_loop_wake(sb_loop *loop)
{
    static const uint64_t one = 1;
    int saved = errno;
    if (!atomic_exchange(&loop->woken, true)) {
        while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
        }
    }
    errno = saved;
}

#ifdef __linux__

static void on_alarm(sb_io *io, unsigned events)
{
    sb_loop *loop = SB_CONTAINER(io, sb_loop, alarm);
    uint64_t expired;
    (void)events;
    if (read(io->fd, &expired, sizeof expired) == (ssize_t)sizeof expired) loop->alarm_due = UINT64_MAX;
}

int sb_loop_expose(sb_loop *loop)
{
    int fd = loop->ops->fd(loop->poller);
    int alarm;
    if (fd < 0 || loop->alarm.fd >= 0) return fd;
    alarm = sb_fd_clear(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (alarm < 0) return -1;
    if (sb_loop_watch(loop, &loop->alarm, alarm, SB_READ, on_alarm) != 0) {
        close(alarm);
        return -1;
    }
    sb_loop_settle(loop);
    if (always_wanted(loop)) sb_loop_wake(loop);
    return fd;
}

void sb_loop_settle(sb_loop *loop)
{
    struct itimerspec spec = {{0, 0}, {0, 0}};
    uint64_t due;
    if (loop->alarm.fd < 0) return;
    if (always_wanted(loop)) sb_loop_wake(loop);
    due = sb_timers_due(&loop->timers);
    if (due == loop->alarm_due) return;
    loop->alarm_due = due;
    if (due != UINT64_MAX) {
        /* The host may have been away since the last turn. */
        uint64_t now = sb_clock_now(&loop->clock), left = due > now ? due - now : 0;
        spec.it_value.tv_sec = (time_t)(left / 1000u);
        spec.it_value.tv_nsec = (long)(left % 1000u) * 1000000L;
        if (left == 0) spec.it_value.tv_nsec = 1;
    }
    timerfd_settime(loop->alarm.fd, 0, &spec, NULL);
}

#else

int sb_loop_expose(sb_loop *loop)
{
    return loop->ops->fd(loop->poller);
}

void sb_loop_settle(sb_loop *loop)
{
    (void)loop;
}

#endif
