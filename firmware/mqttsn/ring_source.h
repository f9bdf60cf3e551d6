/// Joins the ring of readings to the client: the only place that knows both.

#ifndef EDGELOOP_MQTTSN_RING_SOURCE_H
#define EDGELOOP_MQTTSN_RING_SOURCE_H

#include "mqttsn/client.h"
#include "ring/ring.h"

#ifdef __cplusplus
extern "C" {
#endif

/// lock and unlock, both or none: called around every look at the ring, for a ring that another task pushes to.
struct ring_source {
    struct ring *ring;
    void (*lock)(void *context);
    void (*unlock)(void *context);
    void *context;
    struct ring_reading peeked;  ///< What the client looks at.
};

/// self must outlive the client and stay where it is.
struct mqttsn_reading_source ring_source_open(struct ring_source *self);

#ifdef __cplusplus
}
#endif

#endif
