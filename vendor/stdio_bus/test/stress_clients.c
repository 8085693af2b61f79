/*
 * stress_clients.c - five thousand clients at a time that connect, ask and
 * leave at random through a Unix socket. All use the same ids; each request
 * has a token of its own, and each answer is compared, byte for byte, with the
 * one that this client is owed under this id. A process of its own is the
 * clients, so that what the bus has open can be counted. In every other
 * round workers are killed, too: then an answer may be an error.
 */
#include "stress.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { MAX_CLIENTS = 5000, MAX_REQUESTS = 32, BATCH = 256, PAD = 3000, FRAME_MAX = PAD + 200 };
enum { ROUNDS = 4, WORKERS = 4, KILLS = 2 * WORKERS, KILL_EVERY_MS = 150 };

/* What the clients' process counts; shared with the bus's process. */
typedef struct {
    long connects, retries, asked, answered, errors, abandoned;
    long left_early, half_closed, answers_after_half_close, broken_frames, most_at_once;
    long waited_ms, longest_ms, finished;
    long kills, killing;
} counts_t;

typedef struct {
    int fd;          /* -1: the place is free */
    unsigned serial; /* never the same for two clients */
    int asked, answered;
    int leave_after; /* this many answers; above MAX_REQUESTS: stays for all of them */
    int bursts;      /* to come */
    int half_close;  /* says that it asks nothing more, and waits for the rest */
    int cut;         /* leaves in the middle of a frame */
    int want_write;
    int shut;
    unsigned got; /* a bit for each answered request */
    long asked_at;
    char *out;
    size_t out_len, out_at;
    char *in;
    size_t in_len, in_room;
} client_t;

/* The bus's tables double with the most that was ever pending, which is not the same in every round. */
enum { SLACK_KIB = 4096 };

static client_t clients[MAX_CLIENTS];
static counts_t *counts;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static unsigned last_serial, seed;
static int epoll_fd, open_now;

static unsigned below(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

/* ---- one client ------------------------------------------------------------------- */

/* A third of the ids are strings; some frames are long. Both follow from who asks what. */
static size_t tail_of(const client_t *client, int n, char *out)
{
    int pad = (client->serial + (unsigned)n) % 61 == 0 ? PAD : 1;
    return (size_t)sprintf(out, "{\"t\":\"%u-%d\",\"p\":\"%0*d\"}}\n", client->serial, n, pad, 0);
}

static size_t head_of(int n, char *out)
{
    const char *quote = n % 3 == 0 ? "\"" : "";
    return (size_t)sprintf(out, "{\"jsonrpc\":\"2.0\",\"id\":%s%d%s,", quote, n, quote);
}

static size_t request_of(const client_t *client, int n, char *out)
{
    size_t len = head_of(n, out);
    len += (size_t)sprintf(out + len, "\"method\":\"ask\",\"params\":");
    return len + tail_of(client, n, out + len);
}

static size_t answer_of(const client_t *client, int n, char *out)
{
    size_t len = head_of(n, out);
    len += (size_t)sprintf(out + len, "\"result\":");
    return len + tail_of(client, n, out + len);
}

static void leave(client_t *client)
{
    if (client->answered < client->asked) {
        counts->left_early++;
        counts->abandoned += client->asked - client->answered;
    }
    close(client->fd);
    client->fd = -1;
    free(client->out);
    free(client->in);
    client->out = client->in = NULL;
    open_now--;
}

static void ask_more(client_t *client)
{
    int count = 1 + (int)below(6);
    if (client->asked + count > MAX_REQUESTS) count = MAX_REQUESTS - client->asked;
    if (client->out_at == client->out_len) client->out_at = client->out_len = 0;
    client->out = realloc(client->out, client->out_len + (size_t)(count + 1) * FRAME_MAX);
    STRESS_CHECK(client->out != NULL);
    for (int i = 0; i < count; i++) {
        client->out_len += request_of(client, client->asked++, client->out + client->out_len);
        counts->asked++;
    }
    client->bursts--;
    client->asked_at = stress_now_ms();
    if (client->bursts == 0 && client->cut) {
        /* A beginning that must reach nobody. */
        client->out_len += (size_t)sprintf(client->out + client->out_len, "{\"jsonrpc\":\"2.0\",\"id\":9,\"met");
        counts->broken_frames++;
    }
}

static void want_write(client_t *client, int want)
{
    struct epoll_event event = {.events = EPOLLIN | (want ? EPOLLOUT : 0), .data.ptr = client};
    if (client->want_write == want) return;
    client->want_write = want;
    STRESS_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, client->fd, &event) == 0);
}

/* Frames are cut anywhere, now and then. False if it has left. */
static int send_some(client_t *client)
{
    size_t left = client->out_len - client->out_at;
    ssize_t n;
    if (left > 1 && below(8) == 0) left = 1 + below((unsigned)left - 1);
    n = left == 0 ? 0 : send(client->fd, client->out + client->out_at, left, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) stress_fail("a client cannot send: %s", strerror(errno));
    if (n > 0) client->out_at += (size_t)n;
    want_write(client, client->out_at < client->out_len);
    if (client->out_at < client->out_len || client->bursts > 0) return 1;
    if (client->leave_after == 0) {
        leave(client);
        return 0;
    }
    if (client->half_close && !client->shut) {
        client->shut = 1;
        counts->half_closed++;
        STRESS_CHECK(shutdown(client->fd, SHUT_WR) == 0);
    }
    return 1;
}

/* False: no room in the backlog just now. */
static int arrive(client_t *client)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    STRESS_CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        if (errno != EAGAIN) stress_fail("cannot connect: %s", strerror(errno));
        close(fd);
        counts->retries++;
        return 0;
    }
    memset(client, 0, sizeof *client);
    client->fd = fd;
    client->serial = ++last_serial;
    client->leave_after = below(3) == 0 ? (int)below(8) : MAX_REQUESTS + 1;
    client->bursts = 1 + (int)below(4);
    client->half_close = client->leave_after > MAX_REQUESTS && below(4) == 0;
    client->cut = !client->half_close && below(4) == 0;
    STRESS_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
    counts->connects++;
    if (++open_now > counts->most_at_once) counts->most_at_once = open_now;
    if (below(50) == 0) {
        leave(client); /* without a word */
        return 1;
    }
    ask_more(client);
    send_some(client);
    return 1;
}

/* ---- answers ------------------------------------------------------------------------ */

static void take_answer(client_t *client, const char *line, size_t len)
{
    static const char before[] = "{\"jsonrpc\":\"2.0\",\"id\":";
    char expected[FRAME_MAX];
    int n = 0;
    size_t at = sizeof before - 1;
    if (len < sizeof before || memcmp(line, before, at) != 0) stress_fail("not an answer: %.*s", (int)len, line);
    n = atoi(line + at + (line[at] == '"'));
    if (n < 0 || n >= client->asked) stress_fail("client %u did not ask %.*s", client->serial, (int)len, line);
    if (client->got & (1u << n)) stress_fail("answered twice: %.*s", (int)len, line);
    client->got |= 1u << n;
    client->answered++;
    if (memmem(line, len, "\"error\":", 8) != NULL) {
        if (!counts->killing || memmem(line, len, "-32011", 6) == NULL) stress_fail("%.*s", (int)len, line);
        counts->errors++;
        return;
    }
    if (len != answer_of(client, n, expected) || memcmp(line, expected, len) != 0) {
        stress_fail("misdelivered to client %u, which is owed %s: %.*s", client->serial, expected, (int)len, line);
    }
    counts->answered++;
    if (client->shut) counts->answers_after_half_close++;
}

static void took_all(client_t *client)
{
    long waited = stress_now_ms() - client->asked_at;
    counts->waited_ms += waited;
    counts->finished++;
    if (waited > counts->longest_ms) counts->longest_ms = waited;
    if (client->bursts > 0 && client->asked < MAX_REQUESTS) {
        ask_more(client);
        send_some(client);
    } else if (!client->shut) {
        leave(client);
    }
}

static void take_answers(client_t *client)
{
    size_t used = 0;
    ssize_t n;
    if (client->in_room - client->in_len < FRAME_MAX) {
        client->in_room = client->in_len + 4 * FRAME_MAX;
        client->in = realloc(client->in, client->in_room);
        STRESS_CHECK(client->in != NULL);
    }
    n = recv(client->fd, client->in + client->in_len, client->in_room - client->in_len, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        /* The bus closes whom it owes nothing, once they have said that they ask nothing more. */
        if (n < 0 || !client->shut || client->answered < client->asked) {
            stress_fail("client %u was closed with %d of %d answers: %s", client->serial, client->answered,
                        client->asked, n < 0 ? strerror(errno) : "end");
        }
        leave(client);
        return;
    }
    client->in_len += (size_t)n;
    while (client->answered < client->leave_after) {
        const char *line = client->in + used, *end = memchr(line, '\n', client->in_len - used);
        if (end == NULL) break;
        take_answer(client, line, (size_t)(end - line) + 1);
        used += (size_t)(end - line) + 1;
    }
    memmove(client->in, client->in + used, client->in_len - used);
    client->in_len -= used;
    if (client->answered >= client->leave_after) {
        leave(client);
    } else if (client->answered == client->asked) {
        took_all(client);
    }
}

/* ---- the clients' process ------------------------------------------------------------- */

static void be_clients(int places, long total)
{
    struct epoll_event events[BATCH];
    long arrived = 0;
    int next = 0;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    STRESS_CHECK(epoll_fd >= 0);
    for (int i = 0; i < places; i++) clients[i].fd = -1;
    while (arrived < total || open_now > 0) {
        int count;
        for (int tried = 0; tried < places && open_now < places && arrived < total; tried++) {
            client_t *client = &clients[next];
            next = (next + 1) % places;
            if (client->fd >= 0) continue;
            if (!arrive(client)) break;
            arrived++;
        }
        count = epoll_wait(epoll_fd, events, BATCH, open_now < places && arrived < total ? 1 : -1);
        for (int i = 0; i < count; i++) {
            client_t *client = events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) && !send_some(client)) continue;
            if (events[i].events & ~(unsigned)EPOLLOUT) take_answers(client);
        }
    }
    close(epoll_fd);
}

static pid_t start_clients(int places, long total, int round)
{
    pid_t pid = fork();
    STRESS_CHECK(pid >= 0);
    if (pid != 0) return pid;
    alarm(STRESS_BOUND_SEC);
    /* The bus's own descriptors stay the bus's. */
    for (int fd = 3; fd < 1024; fd++) close(fd);
    seed = (unsigned)round * 7919u + 1;
    be_clients(places, total);
    _exit(0);
}

/* ---- the bus's process ------------------------------------------------------------------ */

static void on_frame(stdio_bus_t *bus, const stdio_bus_frame_t *frame, void *user_data)
{
    (void)bus;
    (void)user_data;
    stress_fail("a client's frame came to the host: %s", frame->data);
}

static void kill_one(stdio_bus_t *bus)
{
    stdio_bus_worker_info_t info = {0};
    info.size = sizeof info;
    STRESS_CHECK(stdio_bus_worker_info(bus, (int)(counts->kills++ % WORKERS), &info) == STDIO_BUS_OK);
    if (info.pid > 0) kill(info.pid, SIGKILL);
}

/* Runs the bus until the clients' process has ended; returns its status. */
static int serve(stdio_bus_t *bus, pid_t pid)
{
    int status = 0;
    long next_kill = stress_now_ms();
    /* Not more of them: each worker is started again later every time. */
    int kills = counts->killing ? KILLS : 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        STRESS_CHECK(stdio_bus_step(bus, 20) >= 0);
        if (kills == 0 || stress_now_ms() < next_kill) continue;
        kills--;
        kill_one(bus);
        next_kill = stress_now_ms() + KILL_EVERY_MS;
    }
    return status;
}

static uint64_t tombstones(stdio_bus_t *bus)
{
    stdio_bus_ext_stats_t stats = {0};
    stats.size = sizeof stats;
    STRESS_CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK);
    return stats.tombstones;
}

int main(int argc, char **argv)
{
    int small = stress_begin(argc, argv), places = small ? 500 : MAX_CLIENTS;
    long total = small ? 3000 : 35000;
    char config[512], folder[] = "/tmp/stress.XXXXXX";
    stress_footprint before = stress_look(), idle, first = {0}, now = {0};
    stdio_bus_stats_t stats;
    stdio_bus_ext_stats_t more = {0};
    long from = stress_now_ms(), took;
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    STRESS_CHECK(counts != MAP_FAILED && mkdtemp(folder) != NULL);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/s", folder);
    snprintf(config, sizeof config,
             "{\"pools\":[{\"id\":\"w\",\"command\":\"%s\",\"args\":[\"--worker\"],\"instances\":%d}],"
             "\"limits\":{\"max_restarts\":1000}}",
             argv[0], WORKERS);
    stdio_bus_t *bus = stress_create(config, on_frame, NULL, address.sun_path);
    STRESS_CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    stdio_bus_step(bus, 0);
    idle = stress_look();

    /* The first two rounds take what memory such a load takes; the others must do with that. */
    for (int round = 0; round < ROUNDS; round++) {
        int status;
        counts->killing = round % 2 == 0;
        status = serve(bus, start_clients(places, total, round));
        if (status != 0) {
            unlink(address.sun_path);
            rmdir(folder);
            stress_fail("the clients ended with status %x", (unsigned)status);
        }
        STRESS_STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0 && tombstones(bus) == 0);
        /* The last kill may be so fresh that the bus has not seen it. */
        STRESS_STEP_UNTIL(bus, stress_look().zombies == 0 && stdio_bus_worker_count(bus) == WORKERS);
        STRESS_CHECK(stdio_bus_pending_count(bus) == 0 && stdio_bus_session_count(bus) == 0);
        now = stress_look();
        stress_same(&idle, &now, "after the clients");
        if (round < 2) first = now;
        stress_flat(&first, &now, SLACK_KIB);
    }
    took = stress_now_ms() - from;
    stdio_bus_get_stats(bus, &stats);
    more.size = sizeof more;
    stdio_bus_ext_stats(bus, &more);
    stress_stop(bus);
    rmdir(folder);
    idle = stress_look();
    stress_same(&before, &idle, "after destroy");

    /* Nothing lost: an accepted request has been answered, or its client had left, or was refused with an error. */
    STRESS_CHECK(counts->asked == counts->answered + counts->errors + counts->abandoned);
    STRESS_CHECK(counts->connects == total * ROUNDS);
    STRESS_CHECK(stats.client_connects == (uint64_t)counts->connects);
    STRESS_CHECK(stats.client_disconnects == stats.client_connects);
    STRESS_CHECK(more.unattributed_frames == 0);
    /* Only who leaves early leaves answers behind. */
    STRESS_CHECK(more.dropped_frames <= (uint64_t)counts->abandoned);
    /* Who is killed may leave half a line. */
    STRESS_CHECK(more.worker_garbage <= (uint64_t)counts->kills);
    printf("clients: %ld connected, %ld at once, %ld left early, %ld half-closed (%ld answers after that), %ld broken "
           "frames; %ld requests in %ld ms: %ld answers, %ld given up (%llu answered late, to nobody, %llu not sent any more), "
           "%ld errors by %ld kills of workers, 0 lost, "
           "0 twice, 0 misdelivered; a burst took %ld ms on average, %ld at most; backlog full %ld times; "
           "fds, threads, children as before, RSS %ld -> %ld -> %ld KiB\n",
           counts->connects, counts->most_at_once, counts->left_early, counts->half_closed,
           counts->answers_after_half_close, counts->broken_frames, counts->asked, took, counts->answered,
           counts->abandoned, (unsigned long long)more.late_answers, (unsigned long long)more.dropped_frames, counts->errors, counts->kills,
           counts->waited_ms / (counts->finished + 1),
           counts->longest_ms, counts->retries, before.rss_kib, first.rss_kib, now.rss_kib);
    return 0;
}
