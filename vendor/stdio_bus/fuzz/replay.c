/*
 * replay.c - calls one fuzz target with every file of the folders and files
 * it is given: the committed corpus as a plain test, and a finding again.
 */
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fuzz.h"

#define PATH_SIZE 4096

static size_t replayed;

static void replay_file(const char *path)
{
    static char bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    uint8_t *exact;
    size_t len;
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    /* In memory of its own length, so that a sanitizer sees its end. */
    exact = malloc(len > 0 ? len : 1);
    CHECK(exact != NULL);
    memcpy(exact, bytes, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    replayed++;
}

static void replay(const char *path)
{
    char inner[PATH_SIZE];
    struct dirent *entry;
    DIR *folder = opendir(path);
    if (folder == NULL) {
        replay_file(path);
        return;
    }
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        CHECK(snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < (int)sizeof inner);
        replay_file(inner);
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) replay(argv[i]);
    printf("%zu inputs replayed\n", replayed);
    return replayed == 0; /* a corpus that isn't found is no success */
}
