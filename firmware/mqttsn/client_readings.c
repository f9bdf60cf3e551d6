#include <string.h>

#include "mqttsn/client_internal.h"
#include "wire/bytes.h"

// As for other publishes: a gateway that answers PINGREQ is given this many rounds of retries.
#define ROUNDS 4U
#define READING_HEADER_BYTES 9U
#define BACK_MAX 255U

static struct mqttsn_flight *at(const struct mqttsn_client *self, size_t index) {
    return &self->config.flight[(self->flight_first + index) % self->config.flight_count];
}

// Positions wrap: a is before b when the way from a to b is the shorter one.
static bool is_before(uint32_t a, uint32_t b) {
    return (int32_t)(a - b) < 0;
}

size_t mqttsn_readings_in_flight(const struct mqttsn_client *self) {
    size_t count = 0;
    for (size_t i = 0; i < self->flight_next; i++) {
        count += at(self, i)->settled ? 0U : 1U;
    }
    return count;
}

bool mqttsn_readings_use_msg_id(const struct mqttsn_client *self, uint16_t msg_id) {
    for (size_t i = 0; i < self->flight_held; i++) {
        if (at(self, i)->msg_id == msg_id) {
            return true;
        }
    }
    return false;
}

void mqttsn_readings_reconnected(struct mqttsn_client *self) {
    self->flight_next = 0;
    self->gap_open = false;
    for (size_t i = 0; i < self->flight_held; i++) {
        at(self, i)->tries = 0;
    }
}

// Settled entries at the front leave; the ring may forget them.
static void trim(struct mqttsn_client *self) {
    const struct mqttsn_reading_source *source = &self->readings;
    bool trimmed = false;
    uint32_t before = 0;
    while (self->flight_held > 0 && at(self, 0)->settled) {
        before = at(self, 0)->position + 1;
        trimmed = true;
        self->flight_first = (self->flight_first + 1) % self->config.flight_count;
        self->flight_held--;
        self->flight_next -= self->flight_next > 0 ? 1U : 0U;
    }
    if (trimmed) {
        self->gap_open = false;
        source->settle(source->context, before);
    }
}

static void note_gap(struct mqttsn_client *self) {
    if (!self->gap_open && mqttsn_readings_in_flight(self) < self->flight_next) {
        self->gap_open = true;
        self->gap_since_ms = mqttsn_now(self);
    }
}

// What the ring shed while it was in flight is not waited for.
static void drop_shed(struct mqttsn_client *self) {
    const struct mqttsn_reading_source *source = &self->readings;
    const uint32_t oldest = source->oldest(source->context);
    for (size_t i = 0; i < self->flight_held && is_before(at(self, i)->position, oldest); i++) {
        if (!at(self, i)->settled) {
            at(self, i)->settled = true;
            self->counters.readings_gone++;
        }
    }
    trim(self);
    note_gap(self);
}

// --- Sending ---

enum step {
    STEP_SENT,
    STEP_PASSED,  // settled without being sent
    STEP_WAITS,   // its topic is not registered yet
    STEP_NO_ROOM,
};

static enum step pass(struct mqttsn_flight *entry, uint32_t *counter) {
    entry->settled = true;
    (*counter)++;
    return STEP_PASSED;
}

static enum step send_entry(struct mqttsn_client *self, struct mqttsn_flight *entry, uint32_t now_ms, bool again) {
    const struct mqttsn_reading_source *source = &self->readings;
    struct mqttsn_reading reading;
    if (!source->peek(source->context, entry->position, &reading)) {
        return pass(entry, &self->counters.readings_gone);
    }
    if (reading.topic >= self->config.topic_count || self->config.topics[reading.topic].progress == MQTTSN_REFUSED ||
        reading.data_bytes + READING_HEADER_BYTES + MQTTSN_PUBLISH_HEADER_BYTES_MAX > self->config.tx_buffer_bytes) {
        return pass(entry, &self->counters.readings_refused);
    }
    const struct mqttsn_topic *topic = &self->config.topics[reading.topic];
    if (topic->progress == MQTTSN_PENDING) {
        return STEP_WAITS;
    }
    const struct mqttsn_message message = {.type = MQTTSN_PUBLISH,
                                           .qos = 1,
                                           .dup = again,
                                           .topic_type = topic->type,
                                           .topic_id = topic->id,
                                           .msg_id = entry->msg_id,
                                           .data = reading.data,
                                           .data_bytes = reading.data_bytes};
    bool sent = false;
    if (self->window == 0) {
        sent = mqttsn_send_plain(self, &message);
    } else {
        const uint32_t back = reading.sequence - at(self, 0)->sequence;
        uint8_t prefix[READING_HEADER_BYTES];
        put_u32(prefix, reading.boot);
        put_u32(prefix + 4, reading.sequence);
        prefix[8] = (uint8_t)(back > BACK_MAX ? BACK_MAX : back);
        sent = mqttsn_send(self, MQTTSN_CHANNEL_READING, prefix, sizeof prefix, &message);
    }
    if (!sent) {
        return STEP_NO_ROOM;
    }
    entry->sent_ms = now_ms;
    if (again) {
        self->counters.readings_sent_again++;
    } else {
        self->counters.readings_sent++;
    }
    return STEP_SENT;
}

// Take the next reading of the ring into flight. Returns false when there is none, or it must wait for the earlier
// boot's to be settled.
static bool take_next(struct mqttsn_client *self) {
    const struct mqttsn_reading_source *source = &self->readings;
    const uint32_t oldest = source->oldest(source->context);
    uint32_t position = oldest;
    if (self->flight_held > 0) {
        position = at(self, self->flight_held - 1)->position + 1;
        position = is_before(position, oldest) ? oldest : position;
    }
    struct mqttsn_reading reading = {.boot = 0};
    if (self->flight_held == self->config.flight_count || position == source->end(source->context)) {
        return false;
    }
    const bool whole = source->peek(source->context, position, &reading);
    if (whole && self->flight_held > 0 && at(self, 0)->boot != reading.boot) {
        return false;
    }
    struct mqttsn_flight *entry = at(self, self->flight_held);
    *entry = (struct mqttsn_flight){.position = position, .boot = reading.boot, .sequence = reading.sequence};
    if (whole) {
        entry->msg_id = mqttsn_next_msg_id(self);
    } else {
        (void)pass(entry, &self->counters.readings_gone);
    }
    self->flight_held++;
    return true;
}

static bool window_is_open(const struct mqttsn_client *self) {
    const size_t window = mqttsn_window(self);
    const size_t slots = mqttsn_slots_in_flight(self);
    const size_t readings = mqttsn_readings_in_flight(self);
    // One place is left to answers where there is more than one.
    const size_t own = window > 1 ? window - 1 : 1;
    return readings < own && readings + slots < window;
}

// Send what the window takes, first what is to be sent again. Returns false when the line had no room.
static bool send_window(struct mqttsn_client *self, uint32_t now_ms) {
    while (window_is_open(self)) {
        if (self->flight_next == self->flight_held && !take_next(self)) {
            return true;
        }
        struct mqttsn_flight *entry = at(self, self->flight_next);
        if (!entry->settled) {
            const enum step step = send_entry(self, entry, now_ms, entry->sent);
            if (step == STEP_NO_ROOM) {
                return false;
            }
            if (step == STEP_WAITS) {
                return true;
            }
            if (step == STEP_SENT) {
                entry->sent = true;
                entry->tries = (uint8_t)(entry->tries + (entry->tries < UINT8_MAX ? 1 : 0));
            }
        }
        self->flight_next++;
        trim(self);
    }
    return true;
}

// --- What makes it go back ---

static void go_back(struct mqttsn_client *self, size_t index) {
    if (index < self->flight_next) {
        self->flight_next = index;
    }
    self->gap_open = false;
}

void mqttsn_client_rewind(struct mqttsn_client *self, uint32_t boot, uint32_t sequence) {
    self->counters.rewinds++;
    for (size_t i = 0; i < self->flight_held; i++) {
        const struct mqttsn_flight *entry = at(self, i);
        if (entry->boot == boot && !is_before(entry->sequence, sequence)) {
            go_back(self, i);
            return;
        }
    }
    if (self->flight_held > 0 && at(self, 0)->boot != boot) {
        go_back(self, 0);
    }
}

static void check_overdue(struct mqttsn_client *self, uint32_t now_ms) {
    if (self->flight_next == 0 || mqttsn_left_ms(now_ms, at(self, 0)->sent_ms, self->config.retry_ms) > 0) {
        return;
    }
    if (at(self, 0)->tries > self->config.retries * ROUNDS) {
        mqttsn_lose_session(self);
        return;
    }
    mqttsn_probe(self);
    go_back(self, 0);
}

uint32_t mqttsn_poll_readings(struct mqttsn_client *self, uint32_t now_ms) {
    if (self->state != MQTTSN_STATE_CONNECTED || self->config.readings == NULL) {
        return MQTTSN_NEVER;
    }
    drop_shed(self);
    if (mqttsn_is_congested(self, now_ms)) {
        return mqttsn_left_ms(now_ms, self->congestion_since_ms, self->congestion_ms);
    }
    check_overdue(self, now_ms);
    if (self->state != MQTTSN_STATE_CONNECTED) {
        return MQTTSN_NEVER;
    }
    if (self->gap_open && mqttsn_left_ms(now_ms, self->gap_since_ms, self->config.gap_ms) == 0) {
        // The retry's clock keeps running, so that a gateway that never answers this one is noticed.
        const uint32_t sent_ms = at(self, 0)->sent_ms;
        if (send_entry(self, at(self, 0), now_ms, true) == STEP_NO_ROOM) {
            return MQTTSN_NO_ROOM_MS;
        }
        at(self, 0)->sent_ms = sent_ms;
        self->gap_since_ms = now_ms;
        trim(self);
        note_gap(self);
    }
    if (!send_window(self, now_ms)) {
        return MQTTSN_NO_ROOM_MS;
    }
    uint32_t next_ms = MQTTSN_NEVER;
    if (self->flight_next > 0) {
        next_ms = mqttsn_left_ms(now_ms, at(self, 0)->sent_ms, self->config.retry_ms);
    }
    if (self->gap_open) {
        next_ms = mqttsn_sooner(next_ms, mqttsn_left_ms(now_ms, self->gap_since_ms, self->config.gap_ms));
    }
    return next_ms;
}

// --- Acknowledgements ---

static bool topic_of(struct mqttsn_client *self, const struct mqttsn_flight *entry, uint8_t *topic) {
    const struct mqttsn_reading_source *source = &self->readings;
    struct mqttsn_reading reading;
    if (!source->peek(source->context, entry->position, &reading)) {
        return false;
    }
    *topic = reading.topic;
    return true;
}

bool mqttsn_readings_receive(struct mqttsn_client *self, const struct mqttsn_message *message) {
    size_t index = 0;
    while (index < self->flight_held &&
           (at(self, index)->settled || at(self, index)->msg_id != message->msg_id || !at(self, index)->sent)) {
        index++;
    }
    if (index == self->flight_held) {
        return false;
    }
    struct mqttsn_flight *entry = at(self, index);
    uint8_t topic = 0;
    switch (message->return_code) {
        case MQTTSN_ACCEPTED:
            entry->settled = true;
            self->counters.readings_acknowledged++;
            self->congestion_backoff_ms = self->config.backoff_ms;
            self->reconnect_backoff_ms = self->config.backoff_ms;
            break;
        case MQTTSN_CONGESTION:
            mqttsn_note_congestion(self);
            go_back(self, index);
            break;
        case MQTTSN_INVALID_TOPIC_ID:
            if (topic_of(self, entry, &topic) && mqttsn_forget_topic(self, topic)) {
                go_back(self, index);
            } else {
                (void)pass(entry, &self->counters.readings_refused);
            }
            break;
        default:
            (void)pass(entry, &self->counters.readings_refused);
            break;
    }
    trim(self);
    note_gap(self);
    return true;
}
