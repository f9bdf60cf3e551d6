/// A ring of readings in RAM that a warm reset does not clear.
///
/// Invariants. Memory is `struct ring_head` twice, then `struct ring_entry` times capacity, all in the caller's
/// storage.
///   - An entry counts only if its CRC is right and the position written in it is the one it is looked up by; so an
///     entry half written, left over or damaged is never taken for another.
///   - The two heads are written in turn, each with a rising generation and a CRC; the newer sound one is true. A reset
///     in mid-write of one leaves the other.
///   - push writes the entry first, then a head. settle and shedding write a head only. So a reset at any point loses
///     at most the entry being pushed, or brings back what was being settled: it is then sent once more.
///   - Garbage after power-up has no sound head: the ring starts empty.
/// Positions count up by one an entry and wrap at 2^32; position p lives in slot p % capacity, and capacity is a power
/// of two, so that the wrap does not show.
///
/// Policy when full: the oldest is dropped and counted as shed.
/// One task at a time, or a lock around each call; an entry peeked at is a copy, so that nothing is held between calls.

#ifndef EDGELOOP_RING_H
#define EDGELOOP_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RING_PAYLOAD_BYTES_MAX 64U

struct ring_reading {
    uint32_t boot;
    uint32_t sequence;
    uint8_t topic;  ///< The application's.
    uint8_t payload_bytes;
    uint8_t payload[RING_PAYLOAD_BYTES_MAX];
};

/// In storage. Padding-free by construction; checked at compile time.
struct ring_entry {
    uint32_t position;
    uint32_t boot;
    uint32_t sequence;
    uint8_t topic;
    uint8_t payload_bytes;
    uint16_t reserved;
    uint8_t payload[RING_PAYLOAD_BYTES_MAX];
    uint32_t crc;  ///< Over everything before.
};

struct ring_head {
    uint32_t magic;
    uint32_t capacity;
    uint32_t generation;
    uint32_t oldest;  ///< Position of the oldest entry held.
    uint32_t end;     ///< One past the newest.
    uint32_t shed;    ///< Dropped for want of room since power-up.
    uint32_t crc;     ///< Over everything before.
};

#define RING_STORAGE_BYTES(capacity) (2U * sizeof(struct ring_head) + (capacity) * sizeof(struct ring_entry))

/// 40 bytes. The truth is in storage; this caches it.
struct ring {
    struct ring_head *heads;
    struct ring_entry *entries;
    struct ring_head head;  ///< The true one. Read oldest, end and shed here.
    uint32_t damaged;       ///< Entries ring_open found damaged.
};

enum ring_open_result {
    RING_EMPTY,      ///< Nothing usable was there: power-up, or another layout.
    RING_RECOVERED,  ///< A warm reset: what was held is held again.
    RING_INVALID,    ///< storage too small or not aligned to 4, or capacity no power of two. The ring is unusable.
};

/// Take up what storage holds, or make it an empty ring. storage: not cleared by the start-up code, aligned to 4, at
/// least RING_STORAGE_BYTES(capacity). capacity: a power of two, at least 2.
/// Cost: one CRC over every entry held. Damaged entries stay as holes and are passed over by whoever reads.
enum ring_open_result ring_open(struct ring *self, void *storage, size_t storage_bytes, uint32_t capacity);

/// Append. Returns true; false, changing nothing, when the payload is too long. When the ring is full the oldest makes
/// room and is counted in head.shed. Cost: two CRCs, an entry and a head written, when full one more head.
bool ring_push(struct ring *self, const struct ring_reading *reading);

/// Entries held, holes included.
uint32_t ring_held(const struct ring *self);

/// Entries that can be pushed before one is shed.
uint32_t ring_free(const struct ring *self);

/// Copy out the entry at a position from oldest to end - 1. Returns false when it is not held or damaged.
bool ring_peek(const struct ring *self, uint32_t position, struct ring_reading *out);

/// Drop everything before this position; positions not held are cut to what is. Returns how many were dropped.
uint32_t ring_settle(struct ring *self, uint32_t before);

/// Newest sequence held of a boot, 0 when none: where to carry on counting if the counter did not survive.
uint32_t ring_newest_sequence(const struct ring *self, uint32_t boot);

#ifdef __cplusplus
}
#endif

#endif
