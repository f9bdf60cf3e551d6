/// An assertion that holds in every build type and says where it failed.
#ifndef EDGELOOP_CHECK_H
#define EDGELOOP_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

#endif
