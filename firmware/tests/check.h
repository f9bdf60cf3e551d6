/// Assertions that tell where and stop, and a runner: enough for CTest, which reports a file each.

#ifndef EDGELOOP_TESTS_CHECK_H
#define EDGELOOP_TESTS_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// What the current case works on, told when it fails.
static const char *check_case = "";

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, check_case, #condition); \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)

#define CHECK_EQUAL(actual, expected)                                                                          \
    do {                                                                                                       \
        const unsigned long long check_actual = (unsigned long long)(actual);                                  \
        const unsigned long long check_expected = (unsigned long long)(expected);                              \
        if (check_actual != check_expected) {                                                                  \
            fprintf(stderr, "%s:%d: %s: %s is %llu, expected %llu\n", __FILE__, __LINE__, check_case, #actual, \
                    check_actual, check_expected);                                                             \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

static inline bool same_bytes(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
    return a_bytes == b_bytes && (a_bytes == 0 || memcmp(a, b, a_bytes) == 0);
}

/// Runs one test and says so; a failed check ends the process.
#define RUN(test)                      \
    do {                               \
        check_case = #test;            \
        test();                        \
        printf("passed: %s\n", #test); \
    } while (0)

/// The same numbers in every run; a test that wants others takes another seed.
static inline unsigned next_random(unsigned *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
