/*
 * fuzz.h - what the fuzz targets share. Each fuzz_*.c defines one function,
 * which libFuzzer calls with inputs of its own making, and replay.c with the
 * files of the corpus. A CHECK that fails aborts.
 */
#ifndef SB_FUZZ_H
#define SB_FUZZ_H

#include "../test/bytes.h"

/* The longest input a target looks at; all of it fits before the unreadable page of `place`. */
#define FUZZ_INPUT_MAX 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same choice for the same input: a seed for next_random, never 0. */
static inline uint64_t fuzz_seed(const uint8_t *data, size_t size)
{
    uint64_t seed = 1469598103934665603u;
    for (size_t i = 0; i < size; i++) seed = (seed ^ data[i]) * 1099511628211u;
    return seed | 1;
}

#endif
