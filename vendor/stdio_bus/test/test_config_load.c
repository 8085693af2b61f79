#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#define CHECK_NO_LEAK() CHECK(__lsan_do_recoverable_leak_check() == 0)
#else
#define CHECK_NO_LEAK() ((void)0)
#endif

#include "test_config.h"

/* ---- files --------------------------------------------------------------- */

static const char *write_file(const char *text, size_t len)
{
    static char path[] = "/tmp/sb_config_XXXXXX";
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, text, len) == (ssize_t)len);
    close(fd);
    return path;
}

static void a_file_is_loaded(void)
{
    sb_config config;
    const char *path = write_file(sample, strlen(sample));
    CHECK(sb_config_load(&config, path, error) == STDIO_BUS_OK);
    CHECK(config.pool_count == 2);
    sb_config_free(&config);
    unlink(path);
}

static void a_pipe_is_loaded_from_dev_fd(void)
{
    int fds[2];
    char path[32];
    sb_config config;
    CHECK(pipe(fds) == 0);
    CHECK(write(fds[1], sample, strlen(sample)) == (ssize_t)strlen(sample));
    close(fds[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", fds[0]);
    CHECK(sb_config_load(&config, path, error) == STDIO_BUS_OK);
    CHECK(config.pool_count == 2);
    sb_config_free(&config);
    close(fds[0]);
}

static void an_error_in_a_file_has_its_line(void)
{
    sb_config config;
    const char *path = write_file("\n\n{", 3);
    CHECK(sb_config_load(&config, path, error) == STDIO_BUS_ERR_CONFIG);
    CHECK_STR(error, "config: line 3, column 2: expected a key in quotes or '}', found the end of the text");
    unlink(path);
}

static void a_file_that_cannot_be_read_is_named_with_the_reason(void)
{
    sb_config config;
    CHECK(sb_config_load(&config, "/nonexistent/bus.json", error) == STDIO_BUS_ERR_CONFIG);
    CHECK_STR(error, "config: cannot read \"/nonexistent/bus.json\": No such file or directory");
    CHECK(config.pools == NULL && config.pool_count == 0);
    CHECK(sb_config_load(&config, "/tmp", error) == STDIO_BUS_ERR_CONFIG);
    CHECK_STR(error, "config: cannot read \"/tmp\": Is a directory");
}

static void a_file_over_64_mib_is_refused(void)
{
    sb_config config;
    char message[128];
    const char *path = write_file("", 0);
    CHECK(truncate(path, SB_CONFIG_MAX + 1) == 0);
    CHECK(sb_config_load(&config, path, error) == STDIO_BUS_ERR_CONFIG);
    snprintf(message, sizeof(message), "config: cannot read \"%s\": longer than 64 MiB", path);
    unlink(path);
    CHECK_STR(error, message);
}

static void a_long_file_name_is_cut_in_the_message(void)
{
    sb_config config;
    char path[2000];
    memset(path, '/', sizeof(path));
    strcpy(path + sizeof(path) - 2, "x");
    CHECK(sb_config_load(&config, path, error) == STDIO_BUS_ERR_CONFIG);
    CHECK(strstr(error, "/...\": No such file or directory") != NULL);
}

static void loading_leaves_no_descriptor_open(void)
{
    sb_config config;
    const char *path = write_file(sample, strlen(sample));
    int before = dup(0);
    close(before);
    CHECK(sb_config_load(&config, path, error) == STDIO_BUS_OK);
    sb_config_free(&config);
    CHECK(sb_config_load(&config, "/tmp", error) == STDIO_BUS_ERR_CONFIG);
    unlink(path);
    int after = dup(0);
    close(after);
    CHECK(before == after);
}

/* ---- robustness ---------------------------------------------------------- */

static void a_text_cut_at_any_byte_is_an_error_with_its_place(void)
{
    size_t whole = strlen(sample) - 1; /* the last byte is a newline */
    for (size_t len = 0; len < whole; len++) {
        sb_config config;
        sb_span text = {sb_test_guarded(sample, len), len};
        unsigned line, column;
        CHECK(sb_config_parse(&config, text, error) == STDIO_BUS_ERR_CONFIG);
        CHECK(sscanf(error, "config: line %u, column %u: ", &line, &column) == 2);
        CHECK(config.pools == NULL);
    }
}

static void a_text_with_any_byte_changed_never_breaks_the_reader(void)
{
    static const char bytes[] = "\"\\{}[],:0-.e \n\x01\x80\xff\xf0";
    size_t len = strlen(sample);
    char *text = sb_test_guarded(sample, len);
    for (size_t i = 0; i < len; i++) {
        for (size_t b = 0; b < sizeof(bytes); b++) {
            sb_config config;
            text[i] = bytes[b];
            int status = sb_config_parse(&config, (sb_span){text, len}, error);
            CHECK((status == STDIO_BUS_OK) == (error[0] == '\0'));
            sb_config_free(&config);
        }
        text[i] = sample[i];
    }
    CHECK_NO_LEAK();
}

static const char warned[] =
    "{\"a\":{\"\\n\":1},\"pools\":[" POOL ",{\"id\":\"q\",\"x\":1,\"y\":2,\"command\":\"c\"}]}";

static void every_failing_allocation_is_reported_and_leaks_nothing(void)
{
    static const char *const texts[] = {sample, warned};
    for (size_t i = 0; i < SB_COUNT(texts); i++) {
        for (int sticky = 0; sticky < 2; sticky++) {
            int status = STDIO_BUS_ERR_CONFIG;
            for (size_t n = 1; status != STDIO_BUS_OK; n++) {
                sb_config config;
                sb_test_fail_alloc(n, sticky);
                status = sb_config_parse(&config, sb_span_of(texts[i]), error);
                sb_test_fail_alloc(0, false);
                CHECK(n > 1 || status != STDIO_BUS_OK);
                if (status != STDIO_BUS_OK) CHECK_STR(error, "config: out of memory");
                if (status != STDIO_BUS_OK) CHECK(config.pools == NULL && config.warnings == NULL);
                sb_config_free(&config);
            }
        }
    }
    CHECK_NO_LEAK();
}

static void every_failing_allocation_of_a_load_is_reported_and_leaks_nothing(void)
{
    int status = STDIO_BUS_ERR_CONFIG;
    const char *path = write_file(sample, strlen(sample));
    for (size_t n = 1; status != STDIO_BUS_OK; n++) {
        sb_config config;
        sb_test_fail_alloc(n, false);
        status = sb_config_load(&config, path, error);
        sb_test_fail_alloc(0, false);
        if (status != STDIO_BUS_OK) CHECK_STR(error, "config: out of memory");
        sb_config_free(&config);
    }
    unlink(path);
    CHECK_NO_LEAK();
}

static void a_config_can_be_freed_twice(void)
{
    sb_config config = accept(sample);
    sb_config_free(&config);
    CHECK(config.pools == NULL && config.default_pool == SIZE_MAX);
    sb_config_free(&config);
}

static const sb_test tests[] = {
    TEST(a_file_is_loaded),
    TEST(a_pipe_is_loaded_from_dev_fd),
    TEST(an_error_in_a_file_has_its_line),
    TEST(a_file_that_cannot_be_read_is_named_with_the_reason),
    TEST(a_file_over_64_mib_is_refused),
    TEST(a_long_file_name_is_cut_in_the_message),
    TEST(loading_leaves_no_descriptor_open),
    TEST(a_text_cut_at_any_byte_is_an_error_with_its_place),
    TEST(a_text_with_any_byte_changed_never_breaks_the_reader),
    TEST(every_failing_allocation_is_reported_and_leaks_nothing),
    TEST(every_failing_allocation_of_a_load_is_reported_and_leaks_nothing),
    TEST(a_config_can_be_freed_twice),
};

TEST_MAIN(tests)
