/* host.cc - a host in C++: both headers compile there, and the archive links. */
#include <cstdio>
#include <cstring>

#include "stdio_bus_embed.h"
#include "stdio_bus_ext.h"

static void on_frame(stdio_bus_t *, const stdio_bus_frame_t *frame, void *user_data)
{
    std::printf("%.*s\n", static_cast<int>(frame->len), frame->data);
    ++*static_cast<int *>(user_data);
}

int main()
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hello\"}";
    int answers = 0;
    stdio_bus_options_t options = stdio_bus_options_t();
    stdio_bus_ext_options_t ext = stdio_bus_ext_options_t();
    options.config_json = "{\"pools\":[{\"id\":\"p\",\"command\":\"sed\",\"args\":[\"-u\",\"s/method/result/\"]}]}";
    options.listener.mode = STDIO_BUS_LISTEN_NONE;
    options.user_data = &answers;
    options.log_level = 2;
    ext.size = sizeof ext;
    ext.on_frame = on_frame;
    stdio_bus_t *bus = stdio_bus_create_ext(&options, &ext);
    if (bus == NULL || stdio_bus_start(bus) != STDIO_BUS_OK) return 1;
    if (stdio_bus_ingest(bus, request, std::strlen(request)) != STDIO_BUS_OK) return 1;
    while (answers < 1) stdio_bus_step(bus, -1);
    stdio_bus_stop(bus, 5);
    while (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) stdio_bus_step(bus, -1);
    stdio_bus_destroy(bus);
    return 0;
}
