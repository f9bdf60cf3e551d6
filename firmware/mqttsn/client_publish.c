#include <string.h>

#include "mqttsn/client_internal.h"

// Silence on a publish means a slow gateway as long as it answers PINGREQ; after this many rounds of retries the
// session is begun anew all the same.
#define ROUNDS 4U

static uint8_t *data_of(const struct mqttsn_client *self, const struct mqttsn_slot *slot) {
    return self->config.slot_data + (size_t)(slot - self->config.slots) * self->config.slot_data_bytes;
}

static bool awaits_answer(const struct mqttsn_slot *slot) {
    return slot->state == MQTTSN_SLOT_PUBLISHED || slot->state == MQTTSN_SLOT_RELEASE ||
           slot->state == MQTTSN_SLOT_RELEASED;
}

size_t mqttsn_slots_in_flight(const struct mqttsn_client *self) {
    size_t count = 0;
    for (size_t i = 0; i < self->config.slot_count; i++) {
        count += awaits_answer(&self->config.slots[i]) ? 1U : 0U;
    }
    return count;
}

size_t mqttsn_client_slots_used(const struct mqttsn_client *self) {
    size_t count = 0;
    for (size_t i = 0; i < self->config.slot_count; i++) {
        count += self->config.slots[i].state != MQTTSN_SLOT_FREE ? 1U : 0U;
    }
    return count;
}

void mqttsn_slots_reconnected(struct mqttsn_client *self) {
    for (size_t i = 0; i < self->config.slot_count; i++) {
        struct mqttsn_slot *slot = &self->config.slots[i];
        slot->tries = 0;
        if (slot->state == MQTTSN_SLOT_PUBLISHED) {
            slot->state = MQTTSN_SLOT_WAITING;
        } else if (slot->state == MQTTSN_SLOT_RELEASED) {
            slot->state = MQTTSN_SLOT_RELEASE;
        }
    }
}

// --- Filling slots ---

static struct mqttsn_slot *free_slot(const struct mqttsn_client *self) {
    for (size_t i = 0; i < self->config.slot_count; i++) {
        if (self->config.slots[i].state == MQTTSN_SLOT_FREE) {
            return &self->config.slots[i];
        }
    }
    return NULL;
}

static bool fits(const struct mqttsn_client *self, size_t data_bytes, size_t prefix_bytes) {
    return data_bytes <= self->config.tx_buffer_bytes - prefix_bytes - MQTTSN_PUBLISH_HEADER_BYTES_MAX;
}

static enum mqttsn_publish_result fill(struct mqttsn_client *self, const struct mqttsn_slot *like, const void *data,
                                       size_t data_bytes) {
    struct mqttsn_slot *slot = free_slot(self);
    if (data_bytes > self->config.slot_data_bytes) {
        return MQTTSN_PUBLISH_TOO_LONG;
    }
    if (slot == NULL) {
        return MQTTSN_PUBLISH_FULL;
    }
    *slot = *like;
    slot->state = MQTTSN_SLOT_WAITING;
    slot->data_bytes = (uint16_t)data_bytes;
    slot->order = self->slot_order++;
    slot->msg_id = 0;
    if (slot->qos > 0) {
        slot->msg_id = mqttsn_next_msg_id(self);
    }
    if (data_bytes > 0) {
        memcpy(data_of(self, slot), data, data_bytes);
    }
    return MQTTSN_PUBLISH_OK;
}

enum mqttsn_publish_result mqttsn_client_publish(struct mqttsn_client *self, size_t topic, int8_t qos, bool retain,
                                                 const void *data, size_t data_bytes) {
    if (topic >= self->config.topic_count || qos < -1 || qos > 2) {
        return MQTTSN_PUBLISH_REFUSED;
    }
    const struct mqttsn_topic *entry = &self->config.topics[topic];
    if (entry->progress == MQTTSN_REFUSED || (qos < 0 && entry->type == MQTTSN_TOPIC_NORMAL)) {
        return MQTTSN_PUBLISH_REFUSED;
    }
    if (!fits(self, data_bytes, 0)) {
        return MQTTSN_PUBLISH_TOO_LONG;
    }
    if (qos < 0) {
        const struct mqttsn_message message = {.type = MQTTSN_PUBLISH,
                                               .qos = -1,
                                               .retain = retain,
                                               .topic_type = entry->type,
                                               .topic_id = entry->id,
                                               .data = (const uint8_t *)data,
                                               .data_bytes = data_bytes};
        return mqttsn_send_plain(self, &message) ? MQTTSN_PUBLISH_OK : MQTTSN_PUBLISH_FULL;
    }
    const struct mqttsn_slot like = {.topic = (uint8_t)topic, .topic_type = entry->type, .qos = qos, .retain = retain};
    return fill(self, &like, data, data_bytes);
}

enum mqttsn_publish_result mqttsn_client_answer(struct mqttsn_client *self, const struct mqttsn_request *request,
                                                const void *data, size_t data_bytes) {
    const struct mqttsn_slot like = {.topic = MQTTSN_NO_TOPIC,
                                     .topic_type = request->topic_type,
                                     .topic_id = request->topic_id,
                                     .qos = 1,
                                     .has_request = true,
                                     .request_id = request->request_id};
    if (!fits(self, data_bytes, sizeof request->request_id)) {
        return MQTTSN_PUBLISH_TOO_LONG;
    }
    return fill(self, &like, data, data_bytes);
}

// --- Sending slots ---

static bool send_publish(struct mqttsn_client *self, const struct mqttsn_slot *slot, uint16_t topic_id) {
    const struct mqttsn_message message = {.type = MQTTSN_PUBLISH,
                                           .qos = slot->qos,
                                           .dup = slot->dup,
                                           .retain = slot->retain,
                                           .topic_type = slot->topic_type,
                                           .topic_id = topic_id,
                                           .msg_id = slot->msg_id,
                                           .data = data_of(self, slot),
                                           .data_bytes = slot->data_bytes};
    const uint8_t prefix[2] = {(uint8_t)(slot->request_id >> 8), (uint8_t)slot->request_id};
    if (slot->has_request) {
        return mqttsn_send(self, MQTTSN_CHANNEL_REQUEST, prefix, sizeof prefix, &message);
    }
    return mqttsn_send_plain(self, &message);
}

static bool send_release(struct mqttsn_client *self, const struct mqttsn_slot *slot) {
    const struct mqttsn_message message = {.type = MQTTSN_PUBREL, .msg_id = slot->msg_id};
    return mqttsn_send_plain(self, &message);
}

static void refuse(struct mqttsn_client *self, struct mqttsn_slot *slot) {
    slot->state = MQTTSN_SLOT_FREE;
    self->counters.publishes_refused++;
}

// Returns false when the line had no room.
static bool advance(struct mqttsn_client *self, struct mqttsn_slot *slot, uint32_t now_ms) {
    if (slot->state == MQTTSN_SLOT_RELEASE) {
        if (!send_release(self, slot)) {
            return false;
        }
        slot->state = MQTTSN_SLOT_RELEASED;
        slot->sent_ms = now_ms;
        return true;
    }
    const struct mqttsn_topic *topic = slot->topic == MQTTSN_NO_TOPIC ? NULL : &self->config.topics[slot->topic];
    if (topic != NULL && topic->progress == MQTTSN_REFUSED) {
        refuse(self, slot);
        return true;
    }
    if (topic != NULL && topic->progress == MQTTSN_PENDING) {
        return true;
    }
    const size_t in_flight = mqttsn_slots_in_flight(self) + mqttsn_readings_in_flight(self);
    if (slot->qos > 0 && in_flight >= mqttsn_window(self)) {
        return true;
    }
    if (!send_publish(self, slot, topic == NULL ? slot->topic_id : topic->id)) {
        return false;
    }
    if (slot->qos == 0) {
        slot->state = MQTTSN_SLOT_FREE;
    } else {
        slot->state = MQTTSN_SLOT_PUBLISHED;
        slot->dup = true;
        slot->sent_ms = now_ms;
    }
    return true;
}

// The next slot in order after the one given that has something to send.
static struct mqttsn_slot *next_to_send(const struct mqttsn_client *self, const struct mqttsn_slot *after) {
    struct mqttsn_slot *next = NULL;
    for (size_t i = 0; i < self->config.slot_count; i++) {
        struct mqttsn_slot *slot = &self->config.slots[i];
        const bool sends = slot->state == MQTTSN_SLOT_WAITING || slot->state == MQTTSN_SLOT_RELEASE;
        // Orders wrap: compare distances.
        const bool later = after == NULL || (int32_t)(slot->order - after->order) > 0;
        if (sends && later && (next == NULL || (int32_t)(slot->order - next->order) < 0)) {
            next = slot;
        }
    }
    return next;
}

// A slot overdue goes back to where it is sent from. Returns the milliseconds until the next one is.
static uint32_t check_overdue(struct mqttsn_client *self, uint32_t now_ms) {
    uint32_t next_ms = MQTTSN_NEVER;
    for (size_t i = 0; i < self->config.slot_count; i++) {
        struct mqttsn_slot *slot = &self->config.slots[i];
        if (slot->state != MQTTSN_SLOT_PUBLISHED && slot->state != MQTTSN_SLOT_RELEASED) {
            continue;
        }
        const uint32_t left_ms = mqttsn_left_ms(now_ms, slot->sent_ms, self->config.retry_ms);
        if (left_ms > 0) {
            next_ms = mqttsn_sooner(next_ms, left_ms);
            continue;
        }
        slot->state = slot->state == MQTTSN_SLOT_PUBLISHED ? MQTTSN_SLOT_WAITING : MQTTSN_SLOT_RELEASE;
        slot->tries++;
        self->counters.retries++;
        mqttsn_probe(self);
        if (slot->tries > self->config.retries * ROUNDS) {
            mqttsn_lose_session(self);
            return MQTTSN_NEVER;
        }
    }
    return next_ms;
}

uint32_t mqttsn_poll_slots(struct mqttsn_client *self, uint32_t now_ms) {
    if (self->state != MQTTSN_STATE_CONNECTED) {
        return MQTTSN_NEVER;
    }
    uint32_t next_ms = check_overdue(self, now_ms);
    if (self->state != MQTTSN_STATE_CONNECTED) {
        return MQTTSN_NEVER;
    }
    if (mqttsn_is_congested(self, now_ms)) {
        return mqttsn_sooner(next_ms, mqttsn_left_ms(now_ms, self->congestion_since_ms, self->congestion_ms));
    }
    const struct mqttsn_slot *last = NULL;
    for (struct mqttsn_slot *slot = next_to_send(self, NULL); slot != NULL; slot = next_to_send(self, last)) {
        if (!advance(self, slot, now_ms)) {
            return MQTTSN_NO_ROOM_MS;
        }
        last = slot;
        if (awaits_answer(slot)) {
            next_ms = mqttsn_sooner(next_ms, self->config.retry_ms);
        }
    }
    return next_ms;
}

// --- Acknowledgements ---

static struct mqttsn_slot *find(const struct mqttsn_client *self, uint16_t msg_id) {
    for (size_t i = 0; i < self->config.slot_count; i++) {
        struct mqttsn_slot *slot = &self->config.slots[i];
        if (slot->state != MQTTSN_SLOT_FREE && slot->qos > 0 && slot->msg_id == msg_id) {
            return slot;
        }
    }
    return NULL;
}

static void complete(struct mqttsn_client *self, struct mqttsn_slot *slot) {
    slot->state = MQTTSN_SLOT_FREE;
    self->counters.publishes_acknowledged++;
    self->congestion_backoff_ms = self->config.backoff_ms;
    self->reconnect_backoff_ms = self->config.backoff_ms;
}

static bool receive_puback(struct mqttsn_client *self, struct mqttsn_slot *slot, uint8_t return_code) {
    // A late one may find its slot waiting to be sent again.
    if (slot->state != MQTTSN_SLOT_PUBLISHED && slot->state != MQTTSN_SLOT_WAITING) {
        return false;
    }
    switch (return_code) {
        case MQTTSN_ACCEPTED:
            if (slot->qos == 2) {
                return false;
            }
            complete(self, slot);
            break;
        case MQTTSN_CONGESTION:
            slot->state = MQTTSN_SLOT_WAITING;
            mqttsn_note_congestion(self);
            break;
        case MQTTSN_INVALID_TOPIC_ID:
            if (mqttsn_forget_topic(self, slot->topic)) {
                slot->state = MQTTSN_SLOT_WAITING;
            } else {
                refuse(self, slot);
            }
            break;
        default:
            refuse(self, slot);
            break;
    }
    return true;
}

bool mqttsn_slots_receive(struct mqttsn_client *self, const struct mqttsn_message *message) {
    struct mqttsn_slot *slot = find(self, message->msg_id);
    if (message->type == MQTTSN_PUBACK) {
        return slot != NULL && receive_puback(self, slot, message->return_code);
    }
    if (slot == NULL || slot->qos != 2) {
        if (message->type == MQTTSN_PUBREC) {
            // Done with long ago: let the gateway finish as well.
            mqttsn_reply(self, MQTTSN_PUBREL, 0, message->msg_id, 0);
        }
        return false;
    }
    if (message->type == MQTTSN_PUBREC) {
        if (slot->state == MQTTSN_SLOT_RELEASE || slot->state == MQTTSN_SLOT_RELEASED) {
            return false;
        }
        slot->state = MQTTSN_SLOT_RELEASE;
        slot->tries = 0;
        return true;
    }
    if (slot->state != MQTTSN_SLOT_RELEASED && slot->state != MQTTSN_SLOT_RELEASE) {
        return false;
    }
    complete(self, slot);
    return true;
}
