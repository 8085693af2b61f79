#include "stdio_bus_ext.h"
#include "test.h"

static void the_version_is_that_of_the_header(void)
{
    CHECK_STR(stdio_bus_version(), STDIO_BUS_VERSION);
}

static void every_status_has_its_name_and_a_message(void)
{
    static const struct {
        int status;
        const char *name;
    } all[] = {
        {0, "STDIO_BUS_OK"},
        {-1, "STDIO_BUS_ERR"},
        {-2, "STDIO_BUS_EAGAIN"},
        {-3, "STDIO_BUS_EOF"},
        {-4, "STDIO_BUS_EFULL"},
        {-5, "STDIO_BUS_ENOTFOUND"},
        {-6, "STDIO_BUS_EINVAL"},
        {-10, "STDIO_BUS_ERR_CONFIG"},
        {-11, "STDIO_BUS_ERR_WORKER"},
        {-12, "STDIO_BUS_ERR_ROUTING"},
        {-13, "STDIO_BUS_ERR_BUFFER"},
        {-14, "STDIO_BUS_ERR_INVALID"},
        {-15, "STDIO_BUS_ERR_STATE"},
    };
    for (size_t i = 0; i < SB_COUNT(all); i++) {
        CHECK_STR(stdio_bus_status_name(all[i].status), all[i].name);
        CHECK(strcmp(stdio_bus_status_message(all[i].status), "unknown status") != 0);
    }
    CHECK_STR(stdio_bus_status_message(STDIO_BUS_EFULL), "a queue is full, nothing was accepted");
}

static void a_number_that_is_no_status_is_unknown(void)
{
    static const int none[] = {1, -7, -9, -16, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < SB_COUNT(none); i++) {
        CHECK_STR(stdio_bus_status_name(none[i]), "STDIO_BUS_UNKNOWN");
        CHECK_STR(stdio_bus_status_message(none[i]), "unknown status");
    }
}

static const sb_test tests[] = {
    TEST(the_version_is_that_of_the_header),
    TEST(every_status_has_its_name_and_a_message),
    TEST(a_number_that_is_no_status_is_unknown),
};

TEST_MAIN(tests)
