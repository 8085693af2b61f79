#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"

#define BACKLOG 1024
#define ACCEPTS_PER_TURN 64

/* How long accepting pauses when there are no descriptors or no memory left. */
#define ACCEPT_PAUSE_MS 100u

static void on_ready(sb_io *io, unsigned events);

static void on_pause_over(sb_timer *timer)
{
    sb_listener *listener = SB_CONTAINER(timer, sb_listener, timer);
    sb_loop_interest(&listener->ctx->loop, &listener->io, SB_READ);
}

static int open_socket(int family)
{
#ifdef SOCK_CLOEXEC
    return sb_fd_clear(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
#else
    int fd = sb_fd_clear(socket(family, SOCK_STREAM, 0));
    if (fd < 0) return -1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
#endif
}

/* Takes over a bound socket. NULL with errno set. */
static sb_listener *listener_new(sb_ctx *ctx, int fd, bool tcp, const char *address)
{
    sb_listener *listener = sb_calloc(1, sizeof *listener);
    int error = ENOMEM;
    if (listener == NULL) {
        errno = error;
        return NULL;
    }
    listener->ctx = ctx;
    listener->tcp = tcp;
    listener->io.fd = -1;
    listener->address = sb_strndup(address, strlen(address));
    if (listener->address != NULL && sb_timer_register(&ctx->loop.timers, &listener->timer, on_pause_over)) {
        error = listen(fd, BACKLOG) != 0 ? errno : sb_loop_watch(&ctx->loop, &listener->io, fd, SB_READ, on_ready);
        if (error == 0) return listener;
        sb_timer_unregister(&ctx->loop.timers, &listener->timer);
    }
    sb_free(listener->address);
    sb_free(listener);
    errno = error;
    return NULL;
}

/* ---- TCP ------------------------------------------------------------------------ */

static void format_address(const struct sockaddr *address, socklen_t len, char *out, size_t cap)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(address, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(out, cap, "unknown");
    } else {
        snprintf(out, cap, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    }
}

static sb_listener *bind_tcp(sb_ctx *ctx, const struct addrinfo *info)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char address[NI_MAXHOST + NI_MAXSERV];
    sb_listener *listener = NULL;
    int on = 1, error, fd = open_socket(info->ai_family);
    if (fd < 0) return NULL;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (info->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && getsockname(fd, (struct sockaddr *)&bound, &len) == 0) {
        format_address((struct sockaddr *)&bound, len, address, sizeof address);
        listener = listener_new(ctx, fd, true, address);
    }
    if (listener == NULL) {
        error = errno;
        close(fd);
        errno = error;
    }
    return listener;
}

sb_listener *sb_listener_open_tcp(sb_ctx *ctx, const char *host, uint16_t port, char error[SB_LISTENER_ERROR_MAX])
{
    struct addrinfo hints = {0}, *found = NULL;
    char service[8];
    sb_listener *listener = NULL;
    int failed, last = 0;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    snprintf(service, sizeof service, "%u", (unsigned)port);
    failed = getaddrinfo(host, service, &hints, &found);
    if (failed != 0) {
        snprintf(error, SB_LISTENER_ERROR_MAX, "cannot listen on tcp %s:%u: %s", host, (unsigned)port,
                 gai_strerror(failed));
        return NULL;
    }
    for (struct addrinfo *info = found; info != NULL && listener == NULL; info = info->ai_next) {
        listener = bind_tcp(ctx, info);
        if (listener == NULL) last = errno;
    }
    freeaddrinfo(found);
    if (listener == NULL) {
        snprintf(error, SB_LISTENER_ERROR_MAX, "cannot listen on tcp %s:%u: %s", host, (unsigned)port, strerror(last));
    }
    return listener;
}

/* ---- Unix ------------------------------------------------------------------------- */

static int fail_unix(char error[SB_LISTENER_ERROR_MAX], const char *path, const char *reason)
{
    snprintf(error, SB_LISTENER_ERROR_MAX, "cannot listen on unix %s: %s", path, reason);
    return -1;
}

/* Makes way for a new socket at `path`: nothing there, or a socket that nobody serves. 0, or -1 with a message. */
static int clear_path(const struct sockaddr_un *name, char error[SB_LISTENER_ERROR_MAX])
{
    struct stat info;
    int fd, failed;
    if (lstat(name->sun_path, &info) != 0) {
        return errno == ENOENT ? 0 : fail_unix(error, name->sun_path, strerror(errno));
    }
    if (!S_ISSOCK(info.st_mode)) return fail_unix(error, name->sun_path, "the path exists and is not a socket; choose another, or remove it");
    fd = open_socket(AF_UNIX);
    if (fd < 0) return fail_unix(error, name->sun_path, strerror(errno));
    failed = connect(fd, (const struct sockaddr *)name, sizeof *name) == 0 ? 0 : errno;
    close(fd);
    if (failed == ENOENT) return 0;
    if (failed != ECONNREFUSED) {
        return fail_unix(error, name->sun_path,
                         failed == 0 || failed == EAGAIN ? "address in use by a running process" : strerror(failed));
    }
    if (unlink(name->sun_path) != 0 && errno != ENOENT) return fail_unix(error, name->sun_path, strerror(errno));
    return 0;
}

/* The permissions are on the socket before its file exists, so there is no moment at which others could connect. */
static int bind_unix(const struct sockaddr_un *name, sb_unix_access access, char error[SB_LISTENER_ERROR_MAX])
{
    int failed = 0, fd = open_socket(AF_UNIX);
    bool bound;
    if (fd < 0) return fail_unix(error, name->sun_path, strerror(errno));
    /* With a group, others of it may not connect before the file belongs to it. */
    bound = fchmod(fd, access.set_group ? 0600 : access.mode) == 0 &&
            bind(fd, (const struct sockaddr *)name, sizeof *name) == 0;
    if (!bound) failed = errno;
    if (failed == 0 && access.set_group && lchown(name->sun_path, (uid_t)-1, access.group) != 0) failed = errno;
    /* The umask has taken away from what fchmod gave, where the socket's own mode counts at all. */
    if (failed == 0 && chmod(name->sun_path, access.mode) != 0) failed = errno;
    if (failed == 0) return fd;
    if (bound) unlink(name->sun_path);
    close(fd);
    return fail_unix(error, name->sun_path, strerror(failed));
}

/* A lock beside the path, so that two buses don't clear and bind the same path at once. -1 with a message. */
static int take_lock(const char *lock_path, const char *path, char error[SB_LISTENER_ERROR_MAX])
{
    struct stat held, there;
    int fd = sb_fd_clear(open(lock_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd < 0) {
        return fail_unix(error, path, errno == ENOENT ? "its folder does not exist; make that first" : strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &held) == 0 && lstat(lock_path, &there) == 0 &&
        held.st_ino == there.st_ino && held.st_dev == there.st_dev) {
        return fd;
    }
    close(fd);
    return fail_unix(error, path, "another process is binding it just now");
}

sb_listener *sb_listener_open_unix(sb_ctx *ctx, const char *path, sb_unix_access access,
                                   char error[SB_LISTENER_ERROR_MAX])
{
    struct sockaddr_un name = {0};
    char lock_path[sizeof name.sun_path + sizeof ".lock"];
    struct stat info;
    sb_listener *listener = NULL;
    int lock, fd = -1;
    name.sun_family = AF_UNIX;
    if (strlen(path) == 0 || strlen(path) >= sizeof name.sun_path) {
        snprintf(error, SB_LISTENER_ERROR_MAX, "cannot listen on unix %s: the path must have 1 to %zu bytes", path,
                 sizeof name.sun_path - 1);
        return NULL;
    }
    memcpy(name.sun_path, path, strlen(path) + 1);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    lock = take_lock(lock_path, path, error);
    if (lock < 0) return NULL;
    if (clear_path(&name, error) == 0) fd = bind_unix(&name, access, error);
    if (fd >= 0) {
        listener = listener_new(ctx, fd, false, path);
        if (listener == NULL) {
            fail_unix(error, path, strerror(errno));
            close(fd);
            unlink(path);
        } else if (lstat(path, &info) == 0) {
            listener->owns_file = true;
            listener->device = info.st_dev;
            listener->inode = info.st_ino;
        }
    }
    unlink(lock_path);
    close(lock);
    return listener;
}

/* ---- a socket of the host's ------------------------------------------------------------ */

static bool is_bound(const struct sockaddr_storage *address, socklen_t len)
{
    switch (address->ss_family) {
    case AF_INET: return ((const struct sockaddr_in *)(const void *)address)->sin_port != 0;
    case AF_INET6: return ((const struct sockaddr_in6 *)(const void *)address)->sin6_port != 0;
    case AF_UNIX: return len > offsetof(struct sockaddr_un, sun_path);
    default: return false;
    }
}

/* Why clients can't come over this descriptor, or NULL; its address. */
static const char *why_unfit(int fd, struct sockaddr_storage *address, socklen_t *len)
{
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer, type_len = sizeof(int);
    int type = 0;
    if (getsockname(fd, (struct sockaddr *)address, len) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) != 0) {
        return strerror(errno);
    }
    if (type != SOCK_STREAM) return "not a stream socket";
    /* Listening would bind it to any port, for everybody. */
    if (!is_bound(address, *len)) return "not bound to an address";
    return getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 ? "a connection, not a listening socket" : NULL;
}

sb_listener *sb_listener_adopt(sb_ctx *ctx, int fd, char error[SB_LISTENER_ERROR_MAX])
{
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    char address[NI_MAXHOST + NI_MAXSERV] = "";
    const char *why = why_unfit(fd, &bound, &len);
    bool tcp = bound.ss_family != AF_UNIX;
    sb_listener *listener = NULL;
    if (why == NULL) {
        if (tcp) {
            format_address((const struct sockaddr *)&bound, len, address, sizeof address);
        } else {
            snprintf(address, sizeof address, "%s", ((const struct sockaddr_un *)(const void *)&bound)->sun_path);
        }
        listener = listener_new(ctx, fd, tcp, address);
        if (listener == NULL) why = strerror(errno);
    }
    if (listener != NULL) {
        listener->borrowed = true;
    } else {
        snprintf(error, SB_LISTENER_ERROR_MAX, "cannot listen on descriptor %d: %s", fd, why);
    }
    return listener;
}

void sb_listener_keep(sb_listener *listener)
{
    int fd = listener->io.fd;
    if (!listener->borrowed) return;
    listener->borrowed = false;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

bool sb_listener_knows(const sb_listener *listener, sb_span token)
{
    unsigned char differs = 0;
    if (token.len != listener->token_len) return false;
    for (size_t i = 0; i < token.len; i++) differs |= (unsigned char)(token.ptr[i] ^ listener->token[i]);
    return differs == 0;
}

/* What is secret doesn't stay in freed memory; volatile, so that the compiler can't think it useless. */
static void wipe(char *secret, size_t len)
{
    volatile char *p = secret;
    while (len-- > 0) *p++ = 0;
}

void sb_listener_close(sb_listener *listener)
{
    struct stat info;
    int fd;
    if (listener == NULL) return;
    fd = listener->io.fd;
    if (listener->owns_file && !listener->ctx->loop.foreign && lstat(listener->address, &info) == 0 && info.st_dev == listener->device &&
        info.st_ino == listener->inode) {
        unlink(listener->address);
    }
    sb_loop_unwatch(&listener->ctx->loop, &listener->io);
    if (!listener->borrowed) close(fd);
    sb_timer_unregister(&listener->ctx->loop.timers, &listener->timer);
    if (listener->token != NULL) wipe(listener->token, listener->token_len);
    sb_free(listener->token);
    sb_free(listener->uids);
    sb_free(listener->address);
    sb_free(listener);
}

/* ---- accept ------------------------------------------------------------------------- */

static int accept_client(int fd, struct sockaddr_storage *peer, socklen_t *len)
{
#ifdef __linux__
    return sb_fd_clear(accept4(fd, (struct sockaddr *)peer, len, SOCK_CLOEXEC | SOCK_NONBLOCK));
#else
    int client = sb_fd_clear(accept(fd, (struct sockaddr *)peer, len));
    if (client < 0) return -1;
    fcntl(client, F_SETFD, FD_CLOEXEC);
    fcntl(client, F_SETFL, O_NONBLOCK);
    return client;
#endif
}

static bool peer_uid(int fd, uid_t *uid)
{
#ifdef __linux__
    struct ucred credentials;
    socklen_t len = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) != 0) return false;
    *uid = credentials.uid;
    return true;
#else
    gid_t gid;
    return getpeereid(fd, uid, &gid) == 0;
#endif
}

/* Only the bus's own user, root and those named may connect, whatever the file's permissions became. */
static bool may_connect(const sb_listener *listener, int fd)
{
    uid_t uid;
    if (!peer_uid(fd, &uid)) return false;
    if (uid == geteuid() || uid == 0) return true;
    for (size_t i = 0; i < listener->uid_count; i++) {
        if (listener->uids[i] == uid) return true;
    }
    return false;
}

static void welcome(sb_listener *listener, int fd, const struct sockaddr_storage *peer, socklen_t len)
{
    char address[NI_MAXHOST + NI_MAXSERV] = "unix";
    int on = 1;
    if (listener->tcp) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        format_address((const struct sockaddr *)peer, len, address, sizeof address);
    } else if (!may_connect(listener, fd)) {
        sb_log(listener->ctx, SB_LOG_WARN, "refused a client of another user on unix %s", listener->address);
        close(fd);
        return;
    }
    listener->ctx->hooks.client_accepted(listener->ctx, listener, fd, address);
}

static bool is_exhaustion(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_ready(sb_io *io, unsigned events)
{
    sb_listener *listener = SB_CONTAINER(io, sb_listener, io);
    sb_ctx *ctx = listener->ctx;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        int fd = accept_client(io->fd, &peer, &len);
        if (fd >= 0) {
            welcome(listener, fd, &peer, len);
        } else if (is_exhaustion(errno)) {
            sb_log(ctx, SB_LOG_WARN, "accepting on %s pauses: %s", listener->address, strerror(errno));
            sb_loop_interest(&ctx->loop, io, 0);
            sb_timer_set(&ctx->loop.timers, &listener->timer, ctx->loop.now + ACCEPT_PAUSE_MS);
            return;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        }
        /* Any other error belongs to the one connection that failed. */
    }
}
