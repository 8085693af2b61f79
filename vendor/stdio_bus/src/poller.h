/*
 * poller.h - what the loop needs from the operating system: six functions and
 * a descriptor. One file per poller.
 */
#ifndef SB_POLLER_H
#define SB_POLLER_H

#include "base.h"

#define SB_READ 1u
#define SB_WRITE 2u
#define SB_HANGUP 4u /* error or hang-up; reported without being asked for */

typedef struct sb_io sb_io;
typedef void (*sb_io_fn)(sb_io *io, unsigned events);

/* A watched descriptor, embedded in whatever it belongs to. */
struct sb_io {
    int fd;           /* -1 when not watched */
    uint32_t slot;    /* the poller's */
    uint8_t interest; /* SB_READ | SB_WRITE */
    bool always;      /* a file that no poller takes: always ready */
    sb_io_fn on_ready;
};

typedef struct {
    sb_io *io;
    unsigned events;
} sb_ready;

typedef struct sb_poller sb_poller;

typedef struct {
    sb_poller *(*create)(void);
    void (*destroy)(sb_poller *poller);
    /* add and modify return 0 or an errno value; add returns EPERM for files that can't be polled. */
    int (*add)(sb_poller *poller, sb_io *io);
    int (*modify)(sb_poller *poller, sb_io *io);
    void (*remove)(sb_poller *poller, sb_io *io);
    /* Returns how many entries of `ready` it filled; 0 at the timeout or a signal. -1 waits without limit. */
    int (*wait)(sb_poller *poller, sb_ready *ready, int max, int timeout_ms);
    /* A descriptor that is readable when wait would return something, or -1. */
    int (*fd)(const sb_poller *poller);
} sb_poller_ops;

extern const sb_poller_ops sb_poller_poll;
#ifdef __linux__
extern const sb_poller_ops sb_poller_epoll;
#endif

#endif
