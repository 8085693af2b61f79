/*
 * scan.c - how long the pure part of a frame's way takes: finding its end in
 * what was read, and its routed members. Each kind of frame is measured over a
 * buffer full of them, as a busy bus reads it; the best of several rounds
 * counts, since everything else that runs only makes one longer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "envelope.h"
#include "frame.h"

enum { BUFFER = 256 * 1024, ROUNDS = 15, ROUND_BYTES = 64 * 1024 * 1024 };

/* An element with escapes, numbers, literals and depth. */
static const char unit[] = ",{\"k\":12345,\"s\":\"a\\\"b\\n\",\"o\":{\"x\":[1,2.5,null],\"t\":true}}";

typedef struct {
    const char *name;
    size_t size;
    bool nested;
} kind;

static const kind kinds[] = {{"flat, 200 B", 200, false}, {"flat, 2 KiB", 2048, false},
                             {"nested, 2 KiB", 2048, true}, {"flat, 64 KiB", 65536, false},
                             {"nested, 64 KiB", 65536, true}};

/* Writes a request of exactly so many bytes, its newline included. */
static void make_frame(char *to, kind of)
{
    const char *head = "{\"jsonrpc\":\"2.0\",\"id\":1000001,\"method\":\"echo\",\"sessionId\":\"sess-0000000\",\"params\":{";
    static const char list[] = "\"n\":[0", tail[] = "],", text[] = "\"d\":\"", end[] = "\"}}\n";
    size_t at = strlen(head), last = of.size - strlen(end);
    memcpy(to, head, at);
    if (of.nested) {
        memcpy(to + at, list, strlen(list));
        at += strlen(list);
        while (at + strlen(unit) + strlen(tail) + strlen(text) < last) {
            memcpy(to + at, unit, strlen(unit));
            at += strlen(unit);
        }
        memcpy(to + at, tail, strlen(tail));
        at += strlen(tail);
    }
    memcpy(to + at, text, strlen(text));
    at += strlen(text);
    memset(to + at, 'x', last - at);
    memcpy(to + last, end, strlen(end));
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Goes through all frames of the buffer; returns how many are requests, or all if it only splits. */
static size_t walk(const char *buffer, size_t len, bool scan)
{
    sb_framer framer;
    sb_envelope envelope;
    sb_span frame;
    size_t pos = 0, found = 0;
    sb_framer_init(&framer, BUFFER);
    while (sb_framer_next(&framer, buffer, len, &pos, &frame) == SB_FRAME_READY) {
        if (!scan || (sb_envelope_scan(frame, &envelope) == SB_ENVELOPE_OK && envelope.kind == SB_KIND_REQUEST)) {
            found++;
        }
    }
    return found;
}

/* Nanoseconds per frame. */
static double best_of_rounds(const char *buffer, size_t frames, size_t size, bool scan)
{
    size_t len = frames * size, times = ROUND_BYTES / len;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double began = now_ns();
        for (size_t i = 0; i < times; i++) {
            if (walk(buffer, len, scan) != frames) {
                fprintf(stderr, "a frame was not read as a request\n");
                exit(1);
            }
        }
        double took = (now_ns() - began) / (double)(times * frames);
        best = round == 0 || took < best ? took : best;
    }
    return best;
}

int main(void)
{
    char *buffer = malloc(BUFFER);
    if (buffer == NULL) {
        return 1;
    }
    printf("%-16s %12s %20s %8s\n", "frame", "split, ns", "split and scan, ns", "GB/s");
    for (size_t i = 0; i < SB_COUNT(kinds); i++) {
        kind of = kinds[i];
        size_t frames = BUFFER / of.size;
        for (size_t n = 0; n < frames; n++) {
            make_frame(buffer + n * of.size, of);
        }
        double split = best_of_rounds(buffer, frames, of.size, false);
        double both = best_of_rounds(buffer, frames, of.size, true);
        printf("%-16s %12.1f %20.1f %8.2f\n", of.name, split, both, (double)of.size / both);
    }
    free(buffer);
    return 0;
}
