/* test_mcp.h - clients and a server that shake hands; for the tests of pools that speak MCP. */
#ifndef SB_TEST_MCP_H
#define SB_TEST_MCP_H

#include "fixture.h"

#define PARAMS "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"roots\":{}},\"clientInfo\":{\"name\":\"c\"}}"
#define INITIALIZE(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"initialize\",\"params\":" PARAMS "}"
#define RESULT "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}}}"
#define ANSWER(id, result) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"result\":" result "}\n"
#define INITIALIZED "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"
#define MCP POOLS(DEAD_WITH("p", "\"protocol\":\"mcp\""))
#define META "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\""

/* Says a line and its end. */
static inline void tells(int client, const char *line)
{
    client_says(client, line);
    client_says(client, "\n");
}

static inline void lands(stdio_bus_t *bus, int client, const char *line, worker_t worker, const char *want)
{
    tells(client, line);
    CHECK_STR(reads(bus, worker), want);
}

/* A client whose initialize has gone through to the worker that start() made. */
static inline int introduce(stdio_bus_t *bus)
{
    int client = connect_pair(bus);
    lands(bus, client, INITIALIZE("0"), played, INITIALIZE("1"));
    worker_says(ANSWER("1", RESULT));
    client_hears(bus, client, ANSWER("0", RESULT));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    return client;
}

#endif
