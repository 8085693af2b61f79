/* A host in C: two workers, which are sed, one request for each, and the answers printed. See README.md. */
#include <stdio.h>
#include <string.h>

#include "stdio_bus_embed.h"

/* Turns {"jsonrpc":"2.0","id":1,"method":"hello"} into {"jsonrpc":"2.0","id":1,"result":"hello"}. */
static const char config[] = "{\"pools\": [{\"id\": \"hello\", \"instances\": 2, \"command\": \"sed\","
                             " \"args\": [\"-u\", \"s/\\\"method\\\"/\\\"result\\\"/\"]}]}";

/* Runs inside stdio_bus_step: an answer to what this host ingested. */
static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)bus;
    printf("answer: %.*s\n", (int)len, msg);
    ++*(int *)user_data;
}

int main(void)
{
    const char *requests[] = {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hello\"}",
                              "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"again\"}"};
    int accepted = 0, answers = 0;
    stdio_bus_options_t options = {.config_json = config, .on_message = on_message, .user_data = &answers};
    options.log_level = 2; /* warnings and errors, to stderr since there is no on_log */

    stdio_bus_t *bus = stdio_bus_create(&options);
    if (bus == NULL || stdio_bus_start(bus) != STDIO_BUS_OK) {
        stdio_bus_destroy(bus);
        return 1;
    }
    for (int i = 0; i < 2; i++) accepted += stdio_bus_ingest(bus, requests[i], strlen(requests[i])) == STDIO_BUS_OK;
    /* Whatever is accepted gets exactly one answer, so this ends. */
    while (answers < accepted) stdio_bus_step(bus, -1);

    stdio_bus_stop(bus, 5);
    while (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) stdio_bus_step(bus, -1);
    stdio_bus_destroy(bus);
    return accepted == 2 ? 0 : 1;
}
