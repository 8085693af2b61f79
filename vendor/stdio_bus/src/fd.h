/*
 * fd.h - where descriptors are. Those of the bus stay clear of 0 to 2: in a
 * host that has closed them, what somebody prints must not end up in a worker.
 */
#ifndef SB_FD_H
#define SB_FD_H

/* The descriptor, or a close-on-exec copy that is at least `least` in its place; -1 with errno set, and it is closed. */
int sb_fd_from(int fd, int least);

/* The same, clear of the standard ones. Takes -1, too. */
int sb_fd_clear(int fd);

#endif
