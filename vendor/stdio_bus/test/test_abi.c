/* test_abi.c - what a C host may rely on: every function of the two headers, its values and its statuses. */
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fixture.h"

#define FAILING "{\"id\":\"p\",\"command\":\"sh\",\"args\":[\"-c\",\"echo no luck >&2; exit 3\"]}"
#define IGNORING SHELL("p", "trap '' TERM; while :; do sleep 9; done")

static stdio_bus_t *start_processes(const char *config)
{
    stdio_bus_t *bus = create(config, 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

static const char *temporary_path(const char *suffix)
{
    static char path[128];
    snprintf(path, sizeof path, "/tmp/stdio_bus-test-abi-%d%s", (int)getpid(), suffix);
    return path;
}

/* ---- values --------------------------------------------------------------------------------- */

static void names_values_and_layout_are_those_of_embedding_api_2(void)
{
    CHECK(STDIO_BUS_EMBED_API_VERSION == 2);
    CHECK(sizeof(stdio_bus_options_t) == 112 && offsetof(stdio_bus_options_t, listener) == 16);
    CHECK(offsetof(stdio_bus_options_t, on_message) == 48 && offsetof(stdio_bus_options_t, on_error) == 56);
    CHECK(offsetof(stdio_bus_options_t, on_log) == 64 && offsetof(stdio_bus_options_t, on_worker) == 72);
    CHECK(offsetof(stdio_bus_options_t, on_client_connect) == 80);
    CHECK(offsetof(stdio_bus_options_t, on_client_disconnect) == 88);
    CHECK(offsetof(stdio_bus_options_t, user_data) == 96 && offsetof(stdio_bus_options_t, log_level) == 104);
    CHECK(sizeof(stdio_bus_stats_t) == 64 && offsetof(stdio_bus_stats_t, worker_restarts) == 32);
    CHECK(STDIO_BUS_OK == 0 && STDIO_BUS_ERR == -1 && STDIO_BUS_EAGAIN == -2 && STDIO_BUS_EOF == -3);
    CHECK(STDIO_BUS_EFULL == -4 && STDIO_BUS_ENOTFOUND == -5 && STDIO_BUS_EINVAL == -6);
    CHECK(STDIO_BUS_ERR_CONFIG == -10 && STDIO_BUS_ERR_WORKER == -11 && STDIO_BUS_ERR_ROUTING == -12);
    CHECK(STDIO_BUS_ERR_BUFFER == -13 && STDIO_BUS_ERR_INVALID == -14 && STDIO_BUS_ERR_STATE == -15);
    CHECK(STDIO_BUS_STATE_CREATED == 0 && STDIO_BUS_STATE_STARTING == 1 && STDIO_BUS_STATE_RUNNING == 2);
    CHECK(STDIO_BUS_STATE_STOPPING == 3 && STDIO_BUS_STATE_STOPPED == 4);
    CHECK(STDIO_BUS_LISTEN_NONE == 0 && STDIO_BUS_LISTEN_TCP == 1 && STDIO_BUS_LISTEN_UNIX == 2);
}

static void a_null_bus_has_a_status_everywhere(void)
{
    stdio_bus_worker_info_t worker = {0};
    stdio_bus_pool_info_t pool = {0};
    stdio_bus_ext_stats_t stats = {0};
    stdio_bus_listen_options_t listener = {0};
    char text[8];
    CHECK(stdio_bus_get_state(NULL) == STDIO_BUS_STATE_STOPPED && stdio_bus_create_ext(NULL, NULL) == NULL);
    CHECK(stdio_bus_ingest(NULL, "{}", 2) == -14 && stdio_bus_submit(NULL, "{}", 2, NULL) == -14);
    CHECK(stdio_bus_worker_count(NULL) == -14 && stdio_bus_session_count(NULL) == -14);
    CHECK(stdio_bus_pending_count(NULL) == -14 && stdio_bus_client_count(NULL) == -14);
    CHECK(stdio_bus_register_embedded_worker(NULL, 0, 1, "p") == -14);
    CHECK(stdio_bus_unregister_embedded_worker(NULL, 0) == -14);
    CHECK(stdio_bus_stop_within(NULL, 1) == -14 && stdio_bus_drain(NULL, 1, 1) == -14);
    CHECK(stdio_bus_reload(NULL, NULL, CONFIG) == -14 && stdio_bus_cancel(NULL, "1", 1) == -14);
    CHECK(stdio_bus_listen(NULL, &listener) == -14 && stdio_bus_listener_count(NULL) == -14);
    CHECK(stdio_bus_listener_address(NULL, 0, text, sizeof text) == -14);
    CHECK(stdio_bus_adopt_client(NULL, 0, 1) == -14 && stdio_bus_worker_slots(NULL) == -14);
    CHECK(stdio_bus_worker_info(NULL, 0, &worker) == -14 && stdio_bus_pool_info(NULL, 0, &pool) == -14);
    CHECK(stdio_bus_worker_stderr(NULL, 0, text, sizeof text) == -14 && stdio_bus_pool_count(NULL) == -14);
    CHECK(stdio_bus_ext_stats(NULL, &stats) == -14);
}

static void an_absent_argument_or_a_structure_without_its_size_is_refused(void)
{
    stdio_bus_worker_info_t worker = {0};
    stdio_bus_pool_info_t pool = {0};
    stdio_bus_ext_stats_t stats = {0};
    stdio_bus_client_options_t client = {0};
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_worker_info(bus, 0, NULL) == -14 && stdio_bus_worker_info(bus, 0, &worker) == -14);
    CHECK(stdio_bus_pool_info(bus, 0, NULL) == -14 && stdio_bus_pool_info(bus, 0, &pool) == -14);
    CHECK(stdio_bus_ext_stats(bus, NULL) == -14 && stdio_bus_ext_stats(bus, &stats) == -14);
    CHECK(stdio_bus_adopt_client_with(bus, 0, 1, &client) == -14 && stdio_bus_adopt_client(bus, -1, 1) == -14);
    CHECK(stdio_bus_submit(bus, NULL, 1, NULL) == -14 && stdio_bus_cancel(bus, NULL, 1) == -14);
    CHECK(stdio_bus_listen(bus, NULL) == -14 && stdio_bus_reload(bus, NULL, NULL) == -14);
    CHECK(stdio_bus_worker_stderr(bus, 0, NULL, 1) == -14 && stdio_bus_listener_address(bus, 0, NULL, 1) == -14);
    CHECK(stdio_bus_stop(bus, -1) == -14);
    finish(bus);
}

static void an_unknown_number_is_not_found(void)
{
    stdio_bus_worker_info_t worker = {0};
    stdio_bus_pool_info_t pool = {0};
    char text[8];
    stdio_bus_t *bus = start(CONFIG, 0);
    worker.size = sizeof worker;
    pool.size = sizeof pool;
    CHECK(stdio_bus_worker_slots(bus) == 2 && stdio_bus_pool_count(bus) == 1);
    for (int id = -1; id <= 2; id += 3) {
        CHECK(stdio_bus_worker_info(bus, id, &worker) == STDIO_BUS_ENOTFOUND);
        CHECK(stdio_bus_pool_info(bus, id, &pool) == STDIO_BUS_ENOTFOUND);
        CHECK(stdio_bus_worker_stderr(bus, id, text, sizeof text) == STDIO_BUS_ENOTFOUND);
        CHECK(stdio_bus_listener_address(bus, id, text, sizeof text) == STDIO_BUS_ENOTFOUND);
        CHECK(stdio_bus_unregister_embedded_worker(bus, id) == STDIO_BUS_ENOTFOUND);
    }
    finish(bus);
}

/* ---- create, start, stop ----------------------------------------------------------------------- */

static void create_needs_a_callback_for_messages_and_a_listener_that_makes_sense(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    fill_options(&options, &ext, CONFIG);
    options.on_message = NULL;
    CHECK(stdio_bus_create_ext(&options, &ext) == NULL && seen.errors == 1);
    CHECK_STR(seen.error, "on_message is required");
    fill_options(&options, &ext, CONFIG);
    options.listener.mode = STDIO_BUS_LISTEN_UNIX;
    CHECK(stdio_bus_create_ext(&options, &ext) == NULL && seen.errors == 2);
    CHECK_STR(seen.error, "listener.unix_path is required");
    options.listener.mode = (stdio_bus_listen_mode_t)3;
    CHECK(stdio_bus_create_ext(&options, &ext) == NULL && seen.errors == 3);
}

static void config_path_beats_config_json(void)
{
    const char *path = temporary_path(".json");
    FILE *file = fopen(path, "w");
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    CHECK(file != NULL && fputs(POOLS(DEAD("from_file")), file) > 0 && fclose(file) == 0);
    fill_options(&options, &ext, POOLS(DEAD("from_text")));
    options.config_path = path;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && unlink(path) == 0);
    CHECK_STR(pool_info(bus, 0).id, "from_file");
    stdio_bus_destroy(bus);
    CHECK(stdio_bus_create_ext(&options, &ext) == NULL && seen.code == STDIO_BUS_ERR_CONFIG);
}

static void an_unknown_key_warns_and_log_level_keeps_lower_lines_back(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, "{\"pools\":[" DEAD_WITH("p", "\"colour\":1") "]}");
    options.log_level = 2;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && seen.logs[2] == 1 && strstr(seen.log[2], "pools[0].colour") != NULL);
    start_created(bus);
    finish(bus);
    CHECK(seen.logs[0] == 0 && seen.logs[1] == 0);
    bus = start(CONFIG, 0);
    finish(bus);
    CHECK(seen.logs[1] > 0);
}

static stdio_bus_state_t state_inside;

static void note_state(stdio_bus_t *bus, int worker, const char *event, void *user_data)
{
    (void)worker;
    CHECK(user_data == &state_inside);
    if (strcmp(event, "started") == 0) state_inside = stdio_bus_get_state(bus);
}

static void a_bus_goes_through_its_five_states(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, POOLS(ECHO("p")));
    options.on_worker = note_state;
    options.user_data = &state_inside;
    options.on_error = NULL;
    options.on_client_connect = NULL;
    bus = stdio_bus_create(&options);
    CHECK(bus != NULL && stdio_bus_get_state(bus) == STDIO_BUS_STATE_CREATED);
    CHECK(stdio_bus_step(bus, 0) == 0 && ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_drain(bus, 1, 1) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_reload(bus, NULL, CONFIG) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_register_embedded_worker(bus, 0, 1, "p") == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK && state_inside == STDIO_BUS_STATE_STARTING);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_RUNNING && stdio_bus_start(bus) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_stop(bus, 2) == STDIO_BUS_OK && stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPING);
    CHECK(stdio_bus_drain(bus, 1, 1) == STDIO_BUS_ERR_STATE);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(stdio_bus_stop(bus, 2) == STDIO_BUS_OK && stdio_bus_start(bus) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_step(bus, 0) == 0 && ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_ERR_STATE);
    stdio_bus_destroy(bus);
}

static void a_bus_that_was_never_started_stops_at_once(void)
{
    stdio_bus_t *bus = create(CONFIG, 0);
    CHECK(stdio_bus_stop(bus, 5) == STDIO_BUS_OK && stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static void a_second_stop_keeps_the_first_ones_timeout_and_zero_kills_at_once(void)
{
    stdio_bus_t *bus = start_processes(POOLS(IGNORING));
    long began = now_ms();
    CHECK(stdio_bus_stop(bus, 60) == STDIO_BUS_OK);
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK && stdio_bus_step(bus, 0) >= 0);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPING);
    CHECK(stdio_bus_stop(bus, 0) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(now_ms() - began < 5000);
    CHECK(last_event(STDIO_BUS_EVENT_WORKER_STOPPED)->event.exit_signal == SIGKILL);
    stdio_bus_destroy(bus);
}

static void stop_within_takes_milliseconds(void)
{
    stdio_bus_t *bus = start_processes(POOLS(IGNORING));
    long began = now_ms();
    CHECK(stdio_bus_stop_within(bus, 300) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(now_ms() - began < 1000);
    stdio_bus_destroy(bus);
}

static void a_listener_that_cannot_be_bound_fails_the_start_before_any_worker(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, CONFIG);
    options.listener.mode = STDIO_BUS_LISTEN_UNIX;
    options.listener.unix_path = "/no/such/folder/socket";
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_EINVAL);
    CHECK(strstr(seen.error, "/no/such/folder/socket: its folder does not exist") != NULL);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED && seen.workers[0] == '\0');
    stdio_bus_destroy(bus);
}

static void drain_waits_for_what_is_pending(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
    for (int i = 0; i < 5; i++) CHECK(stdio_bus_step(bus, 0) >= 0);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_RUNNING);
    worker_says("{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":0}");
    stdio_bus_destroy(bus);
}

static void a_drain_timeout_of_zero_in_the_configuration_means_zero(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"drain_timeout_sec\":0"), 0);
    long began = now_ms();
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_drain(bus, STDIO_BUS_DRAIN_CONFIGURED, 1000) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(now_ms() - began < 2000);
    CHECK(seen.count == 1 && strstr(seen.frame[0].text, "-32013") != NULL);
    stdio_bus_destroy(bus);
}

static void a_pool_may_leave_the_hosts_environment_out(void)
{
    stdio_bus_t *bus;
    CHECK(setenv("STDIO_BUS_TEST_SECRET", "secret", 1) == 0);
    bus = start_processes("{\"pools\":[{\"id\":\"p\",\"command\":\"/bin/sh\",\"inherit_env\":false,\"env\":{\"OWN\":\"mine\"},"
                          "\"args\":[\"-c\",\"echo {\\\\\\\"method\\\\\\\":\\\\\\\"$OWN-$STDIO_BUS_TEST_SECRET\\\\\\\"}; cat\"]}]}");
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"method\":\"mine-\"}");
    finish(bus);
}

/* ---- callbacks -------------------------------------------------------------------------------------- */

static void on_worker_tells_restarts_and_failure_in_order(void)
{
    stdio_bus_t *bus = start_processes(LIMITED(FAILING, "\"max_restarts\":1"));
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    CHECK_STR(seen.workers, "started stopped restarting started stopped failed ");
    CHECK(worker_info(bus, 0).state == STDIO_BUS_WORKER_FAILED && worker_info(bus, 0).restarts == 1);
    finish(bus);
}

static void on_worker_tells_a_stop(void)
{
    stdio_bus_t *bus = start_processes(POOLS(ECHO("p")));
    finish(bus);
    CHECK_STR(seen.workers, "started stopping stopped ");
}

static void a_stop_in_a_bus_of_embedded_workers_is_told_too(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    seen.workers[0] = '\0';
    finish(bus);
    CHECK_STR(seen.workers, "stopping stopped ");
}

static void unix_and_tcp_clients_are_announced_with_their_peer(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_listen_options_t more = {0};
    stdio_bus_t *bus;
    stdio_bus_stats_t stats;
    int client, first;
    fill_options(&options, &ext, CONFIG);
    options.listener.mode = STDIO_BUS_LISTEN_TCP;
    bus = stdio_bus_create_ext(&options, &ext);
    start_created(bus);
    client = connect_listener(bus, 0);
    CHECK(strncmp(seen.peer, "127.0.0.1:", 10) == 0 && seen.connects == 1);
    first = last_event(STDIO_BUS_EVENT_CLIENT_CONNECTED)->event.client;
    close(client);
    STEP_UNTIL(bus, seen.disconnects == 1);
    CHECK_STR(seen.reason, "closed");
    CHECK(last_event(STDIO_BUS_EVENT_CLIENT_DISCONNECTED)->event.client == first);
    more.size = sizeof more;
    more.mode = STDIO_BUS_LISTEN_UNIX;
    more.unix_path = temporary_path(".sock");
    CHECK(stdio_bus_listen(bus, &more) == 1 && stdio_bus_listener_count(bus) == 2);
    connect_listener(bus, 1);
    CHECK_STR(seen.peer, "unix");
    CHECK(last_event(STDIO_BUS_EVENT_CLIENT_CONNECTED)->event.client > first);
    stdio_bus_get_stats(bus, &stats);
    CHECK(stats.client_connects == 2 && stats.client_disconnects == 1 && stdio_bus_client_count(bus) == 1);
    finish(bus);
    CHECK(access(temporary_path(".sock"), F_OK) != 0);
}

static void frames_carry_kind_id_session_and_worker(void)
{
    stdio_bus_t *bus = create_with_frames(CONFIG, 0);
    start_created(bus);
    CHECK(ingest(bus, "{\"id\":\"\\u0061\",\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}");
    worker_says("{\"id\":7,\"method\":\"question\",\"sessionId\":\"s\"}\n{\"method\":\"news\"}\n");
    worker_says("{\"id\":1,\"result\":0,\"sessionId\":\"s\"}\n");
    STEP_UNTIL(bus, seen.count == 3);
    CHECK(seen.frame[0].kind == STDIO_BUS_FRAME_REQUEST && seen.frame[1].kind == STDIO_BUS_FRAME_NOTIFICATION);
    CHECK(seen.frame[2].kind == STDIO_BUS_FRAME_RESPONSE);
    CHECK_STR(seen.frame[0].id, "7");
    CHECK_STR(seen.frame[0].session, "\"s\"");
    CHECK_STR(seen.frame[0].request, "\"\\u0061\"");
    CHECK_STR(seen.frame[1].id, "");
    CHECK_STR(seen.frame[1].session, "");
    CHECK_STR(seen.frame[1].request, "");
    CHECK_STR(seen.frame[2].request, "");
    CHECK_STR(seen.frame[2].id, "\"\\u0061\"");
    CHECK_STR(seen.frame[2].session, "\"s\"");
    for (int i = 0; i < 3; i++) {
        CHECK(seen.frame[i].worker == played.id && seen.frame[i].generation == 1);
        CHECK(seen.frame[i].flags == 0 && seen.frame[i].client == 0 && seen.frame[i].len == strlen(seen.frame[i].text));
    }
    finish(bus);
}

static void frames_of_the_bus_itself_say_so(void)
{
    stdio_bus_t *bus = create_with_frames(CONFIG, 0);
    start_created(bus);
    CHECK(ingest(bus, "{\"id\":\"q\",\"method\":\"m\"}") == STDIO_BUS_OK);
    goes(played);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(seen.frame[0].kind == STDIO_BUS_FRAME_RESPONSE && seen.frame[0].flags == STDIO_BUS_FRAME_FROM_BUS);
    CHECK(seen.frame[0].worker == played.id && seen.frame[0].generation == 1);
    CHECK_STR(seen.frame[0].id, "\"q\"");
    finish(bus);
}

static void events_carry_what_is_known_of_a_worker(void)
{
    stdio_bus_t *bus = start_processes(LIMITED(FAILING, "\"max_restarts\":1"));
    const stdio_bus_event_t *event;
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_FAILED) == 1);
    event = &last_event(STDIO_BUS_EVENT_WORKER_STARTED)->event;
    CHECK(event->pid > 0 && event->generation == 2 && event->worker == 0 && event->client == -1);
    CHECK_STR(last_event(STDIO_BUS_EVENT_WORKER_STARTED)->pool, "p");
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_READY) == 2);
    event = &last_event(STDIO_BUS_EVENT_WORKER_STOPPED)->event;
    CHECK(event->exit_code == 3 && event->exit_signal == 0 && event->generation == 2 && event->uptime_ms < BOUND_MS);
    event = &last_event(STDIO_BUS_EVENT_WORKER_RESTARTING)->event;
    CHECK(event->delay_ms > 0 && event->delay_ms <= 100);
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_STDERR) == 2);
    CHECK_STR(last_event(STDIO_BUS_EVENT_WORKER_STDERR)->text, "no luck");
    CHECK_STR(last_event(STDIO_BUS_EVENT_WORKER_FAILED)->text, "too many restarts");
    finish(bus);
}

/* ---- embedded workers ----------------------------------------------------------------------------------- */

static void an_embedded_worker_has_two_descriptors_and_a_pool(void)
{
    int pair[2];
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(pipe(pair) == 0);
    CHECK(stdio_bus_register_embedded_worker(bus, pair[1], pair[1], "p") == STDIO_BUS_ERR_INVALID);
    CHECK(stdio_bus_register_embedded_worker(bus, -1, pair[0], "p") == STDIO_BUS_ERR_INVALID);
    CHECK(stdio_bus_register_embedded_worker(bus, pair[1], pair[0], NULL) == STDIO_BUS_ERR_INVALID);
    CHECK(stdio_bus_register_embedded_worker(bus, pair[1], pair[0], "zz") == STDIO_BUS_ENOTFOUND);
    CHECK(fcntl(pair[0], F_GETFD) >= 0 && fcntl(pair[1], F_GETFD) >= 0);
    CHECK(worker_info(bus, played.id).pid == -1 && worker_info(bus, played.id).state == STDIO_BUS_WORKER_READY);
    CHECK(stdio_bus_worker_count(bus) == 1);
    finish(bus);
}

static void an_unregistered_worker_ends_its_requests_and_closes_its_descriptors(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_OK);
    CHECK(stdio_bus_worker_count(bus) == 0 && stdio_bus_pending_count(bus) == 0);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(strstr(seen.frame[0].text, "-32011") != NULL);
    CHECK(worker_reads(bus) == NULL);
    finish(bus);
}

static void unregistering_twice_is_allowed_and_a_process_is_no_embedded_worker(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_OK);
    CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_OK);
    CHECK(stdio_bus_unregister_embedded_worker(bus, 0) == STDIO_BUS_ENOTFOUND);
    finish(bus);
}

static void the_slot_of_an_embedded_worker_is_used_again(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int slots = stdio_bus_worker_slots(bus);
    for (uint32_t i = 2; i < 50; i++) {
        worker_t next;
        CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_OK);
        close(played.in);
        close(played.out);
        next = embed(bus, "p");
        CHECK(next.id == played.id && worker_info(bus, next.id).generation == i);
        played = next;
    }
    CHECK(stdio_bus_worker_slots(bus) == slots);
    finish(bus);
}

/* ---- messages --------------------------------------------------------------------------------------------- */

static void ingest_copies_what_it_is_given(void)
{
    char message[] = "{\"id\":1,\"method\":\"m\"}";
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, message) == STDIO_BUS_OK);
    memset(message, 'x', sizeof message - 1);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    finish(bus);
}

static void a_message_above_the_limit_is_a_buffer_error(void)
{
    static char large[2000];
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_input_buffer\":1024"), 0);
    snprintf(large, sizeof large, "{\"id\":2,\"method\":\"m\",\"params\":\"%01200d\"}", 0);
    CHECK(ingest(bus, large) == STDIO_BUS_ERR_BUFFER && ext_stats(bus).oversize_frames == 1);
    finish(bus);
}

static void submit_routes_beside_the_message_and_leaves_it_alone(void)
{
    stdio_bus_submit_options_t options = {0};
    const char *message = "{\"id\":1,\"method\":\"m\",\"pool\":\"p\",\"sessionId\":\"in\"}";
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    worker_t q = embed(bus, "q");
    options.size = sizeof options;
    options.pool = "q rest";
    options.pool_len = 1;
    options.session = "beside";
    options.session_len = 6;
    CHECK(stdio_bus_submit(bus, message, strlen(message), &options) == STDIO_BUS_OK);
    CHECK_STR(reads(bus, q), message);
    CHECK(stdio_bus_end_session(bus, "q", "in", 2) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_end_session(bus, "q", "beside", 6) == STDIO_BUS_OK);
    options.pool = "zz";
    options.pool_len = 2;
    CHECK(stdio_bus_submit(bus, message, strlen(message), &options) == STDIO_BUS_ERR_ROUTING);
    CHECK(stdio_bus_submit(bus, message, strlen(message), NULL) == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), message);
    finish(bus);
}

static void the_counts_add_up(void)
{
    static const char request[] = "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}", answer[] = "{\"id\":1,\"result\":0}";
    stdio_bus_t *bus = start(CONFIG, 0);
    stdio_bus_stats_t stats;
    stdio_bus_pool_info_t pool;
    CHECK(ingest(bus, request) == STDIO_BUS_OK);
    CHECK(ext_stats(bus).outbox_bytes == sizeof request && pool_info(bus, 0).outbox_bytes == sizeof request);
    worker_reads(bus);
    pool = pool_info(bus, 0);
    CHECK(pool.workers == 2 && pool.ready == 1 && pool.pending == 1 && pool.queued == 0 && pool.sessions == 1);
    CHECK(pool.requests == 1 && pool.outbox_bytes == 0 && pool.restarts == 0);
    CHECK_STR(pool.id, "p");
    CHECK(worker_info(bus, played.id).pending == 1 && worker_info(bus, 0).state == STDIO_BUS_WORKER_STOPPED);
    CHECK(worker_info(bus, 0).pid == 0);
    worker_says(answer);
    worker_says("\n");
    STEP_UNTIL(bus, seen.count == 1);
    stdio_bus_get_stats(bus, &stats);
    CHECK(stats.messages_in == 1 && stats.bytes_in == sizeof request - 1);
    CHECK(stats.messages_out == 1 && stats.bytes_out == sizeof answer - 1);
    CHECK(stdio_bus_pending_count(bus) == 0 && stdio_bus_session_count(bus) == 1);
    finish(bus);
}

static void a_worker_that_had_refused_says_when_there_is_room(void)
{
    static char large[200000];
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_output_queue\":50000"), 0);
    snprintf(large, sizeof large, "{\"id\":1,\"method\":\"m\",\"params\":\"%0190000d\"}", 0);
    CHECK(ingest(bus, large) == STDIO_BUS_OK && stdio_bus_step(bus, 0) >= 0);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_EFULL);
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_WRITABLE) == 0);
    CHECK_STR(worker_reads(bus), large);
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_WRITABLE) == 1);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_OK);
    finish(bus);
}

static void the_stderr_of_a_worker_outlives_it(void)
{
    char text[64];
    stdio_bus_t *bus = start_processes("{\"pools\":[{\"id\":\"p\",\"restart\":\"never\",\"command\":\"sh\",\"args\":[\"-c\","
                                       "\"echo first line >&2; echo second >&2\"]}]}");
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(stdio_bus_worker_stderr(bus, 0, text, sizeof text) == 18);
    CHECK_STR(text, "first line\nsecond\n");
    CHECK(stdio_bus_worker_stderr(bus, 0, text, 10) == 7);
    CHECK_STR(text, "second\n");
    finish(bus);
}

static void *wake(void *bus)
{
    CHECK(stdio_bus_wakeup(bus) == STDIO_BUS_OK);
    return NULL;
}

static void another_thread_may_wake_a_step(void)
{
    pthread_t thread;
    stdio_bus_t *bus = start(CONFIG, 0);
    long began = now_ms();
    CHECK(pthread_create(&thread, NULL, wake, bus) == 0);
    CHECK(stdio_bus_step(bus, BOUND_MS) >= 0);
    CHECK(now_ms() - began < BOUND_MS / 2);
    CHECK(pthread_join(thread, NULL) == 0);
    finish(bus);
}

/* ---- listeners ------------------------------------------------------------------------------------------------ */

static void listen_options_that_make_no_sense_are_refused(void)
{
    stdio_bus_listen_options_t options = {0}, good = {0};
    stdio_bus_t *bus = start(CONFIG, 0);
    char address[64];
    good.size = sizeof good;
    good.mode = STDIO_BUS_LISTEN_TCP;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options = good;
    options.mode = 4;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options.mode = STDIO_BUS_LISTEN_UNIX;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options = good;
    options.tcp_port = 65536;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options = good;
    options.framing = 3;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options = good;
    options.token = "";
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options = good;
    options.uid_count = 1;
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ERR_INVALID);
    options = good;
    options.pool = "zz";
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_listener_count(bus) == 0);
    CHECK(stdio_bus_listen(bus, &good) == 0);
    CHECK(stdio_bus_listener_address(bus, 0, address, 5) == STDIO_BUS_EFULL);
    CHECK(stdio_bus_listener_address(bus, 0, address, sizeof address) == (int)strlen(address));
    good.tcp_port = (uint32_t)atoi(strchr(address, ':') + 1);
    CHECK(stdio_bus_listen(bus, &good) == STDIO_BUS_EINVAL && strstr(seen.error, "Address already in use") != NULL);
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK && stdio_bus_listen(bus, &good) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_adopt_client(bus, 0, 1) == STDIO_BUS_ERR_STATE);
    finish(bus);
}

static void a_bound_socket_is_adopted_with_pool_and_framing_and_its_file_left_alone(void)
{
    static const char frame[] = "\0\0\0\x15{\"id\":1,\"method\":\"m\"}";
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    stdio_bus_listen_options_t options = {0};
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    worker_t q = embed(bus, "q");
    char answer[24];
    uint32_t uids[] = {1, 2};
    int client;
    snprintf(name.sun_path, sizeof name.sun_path, "%.100s", temporary_path(".fd.sock"));
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_FD;
    options.fd = socket(AF_UNIX, SOCK_STREAM, 0);
    options.pool = "q";
    options.framing = STDIO_BUS_FRAMING_LENGTH;
    options.uids = uids;
    options.uid_count = 2;
    CHECK(bind(options.fd, (struct sockaddr *)&name, sizeof name) == 0 && listen(options.fd, 8) == 0);
    CHECK(stdio_bus_listen(bus, &options) == 0);
    client = connect_listener(bus, 0);
    client_sends(client, frame, sizeof frame - 1);
    CHECK_STR(reads(bus, q), "{\"id\":1,\"method\":\"m\"}");
    says(q, "{\"id\":1,\"result\":0}\n");
    client_gets(bus, client, answer, 4 + 19);
    CHECK(memcmp(answer, "\0\0\0\x13{\"id\":1,\"result\":0}", 4 + 19) == 0);
    finish(bus);
    CHECK(unlink(name.sun_path) == 0);
}

static void an_adopted_client_has_its_own_pool_and_framing(void)
{
    stdio_bus_client_options_t options = {0};
    int pair[2];
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    worker_t q = embed(bus, "q");
    options.size = sizeof options;
    options.pool = "zz";
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(stdio_bus_adopt_client_with(bus, pair[1], pair[1], &options) == STDIO_BUS_ENOTFOUND);
    options.framing = 3;
    CHECK(stdio_bus_adopt_client_with(bus, pair[1], pair[1], &options) == STDIO_BUS_ERR_INVALID);
    options.framing = STDIO_BUS_FRAMING_NDJSON;
    options.pool = "q";
    client_says(connect_pair_with(bus, &options), "{\"id\":1,\"method\":\"m\"}\n");
    CHECK_STR(reads(bus, q), "{\"id\":1,\"method\":\"m\"}");
    finish(bus);
}

/* ---- calls inside callbacks ------------------------------------------------------------------------------------ */

static void call_the_extensions(stdio_bus_t *bus)
{
    stdio_bus_listen_options_t options = {0};
    int in[2], out[2];
    seen.inside = NULL;
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    CHECK(stdio_bus_reload(bus, NULL, CONFIG) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_listen(bus, &options) == 0);
    CHECK(stdio_bus_register_embedded_worker(bus, in[1], out[0], "p") >= 0);
    CHECK(ingest(bus, "{\"id\":5,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_cancel(bus, "5", 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_end_session(bus, NULL, "s", 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_wakeup(bus) == STDIO_BUS_OK && stdio_bus_pool_count(bus) == 1);
    connect_pair(bus);
    CHECK(stdio_bus_client_count(bus) == 1);
    CHECK(stdio_bus_drain(bus, 100, 100) == STDIO_BUS_OK);
    seen.nested = 1;
}

static void the_extensions_work_inside_a_callback_and_reload_says_no(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    seen.inside = call_the_extensions;
    worker_says("{\"method\":\"m\"}\n{\"method\":\"more\"}\n");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(seen.nested == 1 && seen.count == 2);
    stdio_bus_destroy(bus);
}

/* ---- reload ------------------------------------------------------------------------------------------------------ */

#define CHANGED DEAD_WITH("p", "\"env\":{\"A\":\"1\"}")

static void reload_leaves_an_unchanged_pool_alone(void)
{
    stdio_bus_t *bus = start_processes(POOLS(ECHO("p")));
    int pid = worker_info(bus, 0).pid;
    CHECK(stdio_bus_reload(bus, NULL, "{\"limits\":{\"max_pending\":1},\"pools\":[" DEAD("q") "," ECHO("p") "]}") == STDIO_BUS_OK);
    CHECK(stdio_bus_pool_count(bus) == 2);
    CHECK_STR(pool_info(bus, 1).id, "p");
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_STARTED) == 2);
    CHECK(worker_info(bus, 0).pid == pid && worker_info(bus, 0).generation == 1);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"pool\":\"p\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\",\"pool\":\"p\"}") == STDIO_BUS_EFULL);
    STEP_UNTIL(bus, seen.count == 1);
    finish(bus);
}

static void after_a_reload_pending_requests_end_on_the_old_worker_and_new_ones_go_to_the_new(void)
{
    worker_t fresh;
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"old\",\"sessionId\":\"busy\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"old\",\"sessionId\":\"busy\"}");
    CHECK(ingest(bus, "{\"method\":\"old\",\"sessionId\":\"idle\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"method\":\"old\",\"sessionId\":\"idle\"}");
    CHECK(stdio_bus_reload(bus, NULL, POOLS(CHANGED)) == STDIO_BUS_OK);
    fresh = embed(bus, "p");
    CHECK(fresh.id != played.id);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"new\"}") == STDIO_BUS_OK);
    CHECK_STR(reads(bus, fresh), "{\"id\":2,\"method\":\"new\"}");
    CHECK(ingest(bus, "{\"id\":3,\"method\":\"new\",\"sessionId\":\"idle\"}") == STDIO_BUS_OK);
    CHECK_STR(reads(bus, fresh), "{\"id\":3,\"method\":\"new\",\"sessionId\":\"idle\"}");
    CHECK(seen.count == 0);
    worker_says("{\"id\":1,\"result\":\"old\"}\n");
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":\"old\"}");
    CHECK(worker_reads(bus) == NULL);
    says(fresh, "{\"id\":2,\"result\":\"new\"}\n");
    STEP_UNTIL(bus, seen.count == 2);
    finish(bus);
}

static void a_replaced_pool_leaves_no_session(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"busy\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"m\",\"sessionId\":\"idle\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_session_count(bus) == 2);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(CHANGED)) == STDIO_BUS_OK);
    CHECK(stdio_bus_session_count(bus) == 1);
    worker_says("{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, seen.count == 1);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static void a_replaced_pool_leaves_no_session_of_a_worker_that_had_gone(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    goes(played);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(stdio_bus_session_count(bus) == 1);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(CHANGED)) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

static void reload_ends_the_workers_of_a_removed_pool(void)
{
    stdio_bus_t *bus = start_processes(POOLS(ECHO("p") "," ECHO("q")));
    CHECK(stdio_bus_reload(bus, NULL, POOLS(ECHO("p"))) == STDIO_BUS_OK);
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    CHECK_STR(last_event(STDIO_BUS_EVENT_WORKER_STOPPED)->pool, "q");
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_RESTARTING) == 0 && stdio_bus_worker_count(bus) == 1);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"pool\":\"q\"}") == STDIO_BUS_ERR_ROUTING);
    finish(bus);
}

static void what_a_replaced_pool_holds_ends_after_the_drain_timeout(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"drain_timeout_sec\":0"), 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_reload(bus, NULL, LIMITED(CHANGED, "\"drain_timeout_sec\":0")) == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(strstr(seen.frame[0].text, "-32011") != NULL);
    finish(bus);
}

static void a_reload_that_is_not_possible_leaves_everything_as_it_was(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(stdio_bus_reload(bus, NULL, "{\"pools\":[]}") == STDIO_BUS_ERR_CONFIG && seen.errors == 1);
    CHECK(strncmp(seen.error, "reload: config: ", 16) == 0);
    CHECK(stdio_bus_reload(bus, "/no/such/file", CONFIG) == STDIO_BUS_ERR_CONFIG && seen.errors == 2);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(DEAD("q") ",{\"id\":\"r\",\"command\":\"no-such-program\"}")) == STDIO_BUS_ERR_WORKER);
    CHECK_STR(seen.error, "reload: cannot execute no-such-program (pool r): No such file or directory");
    CHECK(stdio_bus_pool_count(bus) == 1 && stdio_bus_worker_count(bus) == 1);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    finish(bus);
}

static void reload_moves_what_is_queued_to_the_new_pool(void)
{
    stdio_bus_t *bus = start_processes(POOLS(FAILING));
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(ECHO("p"))) == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK_STR(seen.frame[0].text, "{\"id\":1,\"result\":0}");
    finish(bus);
}

static void a_client_with_a_pool_of_its_own_goes_on_with_its_successor(void)
{
    stdio_bus_client_options_t options = {0};
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    worker_t fresh;
    int client;
    options.size = sizeof options;
    options.pool = "p";
    client = connect_pair_with(bus, &options);
    CHECK(stdio_bus_reload(bus, NULL, POOLS(CHANGED "," DEAD("q"))) == STDIO_BUS_OK);
    fresh = embed(bus, "p");
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    CHECK_STR(reads(bus, fresh), "{\"id\":1,\"method\":\"m\"}");
    finish(bus);
}

static const sb_test tests[] = {
    TEST(names_values_and_layout_are_those_of_embedding_api_2),
    TEST(a_null_bus_has_a_status_everywhere),
    TEST(an_absent_argument_or_a_structure_without_its_size_is_refused),
    TEST(an_unknown_number_is_not_found),
    TEST(create_needs_a_callback_for_messages_and_a_listener_that_makes_sense),
    TEST(config_path_beats_config_json),
    TEST(an_unknown_key_warns_and_log_level_keeps_lower_lines_back),
    TEST(a_bus_goes_through_its_five_states),
    TEST(a_bus_that_was_never_started_stops_at_once),
    TEST(a_second_stop_keeps_the_first_ones_timeout_and_zero_kills_at_once),
    TEST(stop_within_takes_milliseconds),
    TEST(a_listener_that_cannot_be_bound_fails_the_start_before_any_worker),
    TEST(drain_waits_for_what_is_pending),
    TEST(a_drain_timeout_of_zero_in_the_configuration_means_zero),
    TEST(a_pool_may_leave_the_hosts_environment_out),
    TEST(on_worker_tells_restarts_and_failure_in_order),
    TEST(on_worker_tells_a_stop),
    TEST(a_stop_in_a_bus_of_embedded_workers_is_told_too),
    TEST(unix_and_tcp_clients_are_announced_with_their_peer),
    TEST(frames_carry_kind_id_session_and_worker),
    TEST(frames_of_the_bus_itself_say_so),
    TEST(events_carry_what_is_known_of_a_worker),
    TEST(an_embedded_worker_has_two_descriptors_and_a_pool),
    TEST(an_unregistered_worker_ends_its_requests_and_closes_its_descriptors),
    TEST(unregistering_twice_is_allowed_and_a_process_is_no_embedded_worker),
    TEST(the_slot_of_an_embedded_worker_is_used_again),
    TEST(ingest_copies_what_it_is_given),
    TEST(a_message_above_the_limit_is_a_buffer_error),
    TEST(submit_routes_beside_the_message_and_leaves_it_alone),
    TEST(the_counts_add_up),
    TEST(a_worker_that_had_refused_says_when_there_is_room),
    TEST(the_stderr_of_a_worker_outlives_it),
    TEST(another_thread_may_wake_a_step),
    TEST(listen_options_that_make_no_sense_are_refused),
    TEST(a_bound_socket_is_adopted_with_pool_and_framing_and_its_file_left_alone),
    TEST(an_adopted_client_has_its_own_pool_and_framing),
    TEST(the_extensions_work_inside_a_callback_and_reload_says_no),
    TEST(reload_leaves_an_unchanged_pool_alone),
    TEST(after_a_reload_pending_requests_end_on_the_old_worker_and_new_ones_go_to_the_new),
    TEST(a_replaced_pool_leaves_no_session),
    TEST(a_replaced_pool_leaves_no_session_of_a_worker_that_had_gone),
    TEST(reload_ends_the_workers_of_a_removed_pool),
    TEST(what_a_replaced_pool_holds_ends_after_the_drain_timeout),
    TEST(a_reload_that_is_not_possible_leaves_everything_as_it_was),
    TEST(reload_moves_what_is_queued_to_the_new_pool),
    TEST(a_client_with_a_pool_of_its_own_goes_on_with_its_successor),
};

TEST_MAIN(tests)
