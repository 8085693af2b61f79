/*
 * embed.c - a host in C: starts a bus with two workers, which are this program
 * run again with --worker, sends one request to each and prints the answers.
 *
 *   make -C vendor/stdio_bus
 *   cc -Iinclude examples/embed.c vendor/stdio_bus/build/libstdio_bus.a -o embed && ./embed
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "stdio_bus_embed.h"

/* Runs inside stdio_bus_step: an answer to what this host ingested. */
static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    int *answers = user_data;
    (void)bus;
    printf("answer: %.*s\n", (int)len, msg);
    (*answers)++;
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    fprintf(stderr, "error %d: %s\n", code, message);
}

/* A worker: one JSON object per line comes in, one goes out. A real one has a JSON library. */
static int worker(void)
{
    char line[4096];
    while (fgets(line, sizeof line, stdin) != NULL) {
        const char *id = strstr(line, "\"id\":");
        if (id == NULL) continue; /* a notification */
        id += strlen("\"id\":");
        printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{\"pid\":%d}}\n", (int)strcspn(id, ",}"), id, (int)getpid());
        fflush(stdout);
    }
    return 0;
}

static int run_bus(const char *self)
{
    char config[1024];
    snprintf(config, sizeof config,
             "{\"pools\":[{\"id\":\"echo\",\"command\":\"%s\",\"args\":[\"--worker\"],\"instances\":2}]}", self);
    int answers = 0;
    stdio_bus_options_t options = {0};
    options.config_json = config;
    options.on_message = on_message;
    options.on_error = on_error;
    options.user_data = &answers;
    options.log_level = 2; /* warnings and errors, to stderr since there is no on_log */

    stdio_bus_t *bus = stdio_bus_create(&options);
    if (bus == NULL) return 1;
    if (stdio_bus_start(bus) != STDIO_BUS_OK) {
        stdio_bus_destroy(bus);
        return 1;
    }

    int accepted = 0;
    const char *requests[] = {
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hello\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hello\"}",
    };
    for (int i = 0; i < 2; i++) accepted += stdio_bus_ingest(bus, requests[i], strlen(requests[i])) == STDIO_BUS_OK;
    /* whatever is accepted gets exactly one answer, so this ends */
    while (answers < accepted) stdio_bus_step(bus, -1);

    stdio_bus_stop(bus, 5);
    while (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) stdio_bus_step(bus, -1);
    stdio_bus_destroy(bus);
    return accepted == 2 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--worker") == 0) return worker();
    return run_bus(argv[0]);
}
