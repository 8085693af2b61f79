/* test_arguments.c - what is no proper argument is refused, with a reason, and what was handed over stays as it was. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

#define REQUEST "{\"id\":1,\"method\":\"m\"}"

/* ---- sizes ------------------------------------------------------------------------------ */

static void submit_options_without_their_size_are_refused(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    stdio_bus_submit_options_t options = {0};
    options.pool = "p";
    options.pool_len = 1;
    CHECK(stdio_bus_submit(bus, REQUEST, strlen(REQUEST), &options) == STDIO_BUS_ERR_INVALID);
    options.size = sizeof options - 1;
    CHECK(stdio_bus_submit(bus, REQUEST, strlen(REQUEST), &options) == STDIO_BUS_ERR_INVALID);
    options.size = sizeof options;
    CHECK(stdio_bus_submit(bus, REQUEST, strlen(REQUEST), &options) == STDIO_BUS_OK);
    finish(bus);
}

static void create_options_without_their_size_are_refused(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    fill_options(&options, &ext, CONFIG);
    ext.size = 0;
    CHECK(stdio_bus_create_ext(&options, &ext) == NULL);
    CHECK(seen.errors == 1 && seen.code == STDIO_BUS_ERR_INVALID);
    CHECK_STR(seen.error, "stdio_bus_ext_options_t: size is not set");
}

/* ---- lengths ---------------------------------------------------------------------------- */

static void a_message_at_the_limit_may_have_its_lines_end(void)
{
    static char message[1024 + 3];
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_input_buffer\":1024"), 0);
    snprintf(message, sizeof message, "{\"method\":\"m\",\"params\":[\"%0996d\"]}\r\n", 0);
    CHECK(strlen(message) == 1026);
    CHECK(stdio_bus_ingest(bus, message, 1026) == STDIO_BUS_OK);
    CHECK(stdio_bus_ingest(bus, message, 1024) == STDIO_BUS_OK);
    finish(bus);
}

static void a_length_that_cannot_be_is_not_believed(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_ingest(bus, REQUEST, (size_t)-1) == STDIO_BUS_ERR_BUFFER);
    CHECK(ext_stats(bus).oversize_frames == 1);
    finish(bus);
}

/* ---- listeners -------------------------------------------------------------------------- */

static stdio_bus_listen_options_t over(int fd)
{
    stdio_bus_listen_options_t options = {0};
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_FD;
    options.fd = fd;
    return options;
}

/* Refuses the descriptor for this reason, and leaves it as it was. */
static void refuses(stdio_bus_t *bus, int fd, const char *why)
{
    stdio_bus_listen_options_t options = over(fd);
    int errors = seen.errors, flags = fcntl(fd, F_GETFL), fd_flags = fcntl(fd, F_GETFD), listening = 0;
    socklen_t len = sizeof listening;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    CHECK(seen.errors == errors + 1 && seen.code == STDIO_BUS_EINVAL);
    if (strstr(seen.error, why) == NULL) CHECK_STR(seen.error, why);
    CHECK(stdio_bus_listener_count(bus) == 0);
    CHECK(fcntl(fd, F_GETFL) == flags && fcntl(fd, F_GETFD) == fd_flags);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0 || !listening);
}

static void a_socket_that_is_not_bound_is_refused(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    refuses(bus, socket(AF_INET, SOCK_STREAM, 0), "not bound to an address");
    refuses(bus, socket(AF_INET6, SOCK_STREAM, 0), "not bound to an address");
    refuses(bus, socket(AF_UNIX, SOCK_STREAM, 0), "not bound to an address");
    finish(bus);
}

static void what_is_no_stream_socket_is_refused(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    struct sockaddr_in name = {0};
    int datagrams = socket(AF_INET, SOCK_DGRAM, 0), ends[2];
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(datagrams, (struct sockaddr *)&name, sizeof name) == 0 && pipe(ends) == 0);
    refuses(bus, datagrams, "not a stream socket");
    refuses(bus, ends[0], "Socket operation on non-socket");
    finish(bus);
}

static void a_connection_is_no_listener(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    struct sockaddr_in name = {0};
    socklen_t len = sizeof name;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(server, (struct sockaddr *)&name, sizeof name) == 0 && listen(server, 1) == 0);
    CHECK(getsockname(server, (struct sockaddr *)&name, &len) == 0);
    CHECK(connect(client, (struct sockaddr *)&name, sizeof name) == 0);
    refuses(bus, client, "a connection");
    finish(bus);
}

static void half_a_token_is_refused(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    stdio_bus_listen_options_t options = {0};
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    options.token_len = 6;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options.token = "secret";
    options.token_len = 0;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options.token_len = 6;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(submit_options_without_their_size_are_refused),
    TEST(create_options_without_their_size_are_refused),
    TEST(a_message_at_the_limit_may_have_its_lines_end),
    TEST(a_length_that_cannot_be_is_not_believed),
    TEST(a_socket_that_is_not_bound_is_refused),
    TEST(what_is_no_stream_socket_is_refused),
    TEST(a_connection_is_no_listener),
    TEST(half_a_token_is_refused),
};

TEST_MAIN(tests)
