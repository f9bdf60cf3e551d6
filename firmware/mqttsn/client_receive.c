#include <string.h>

#include "mqttsn/client_internal.h"
#include "wire/bytes.h"

static bool can_be_told(const struct mqttsn_client *self) {
    return self->state == MQTTSN_STATE_CONNECTED || self->state == MQTTSN_STATE_AWAKE;
}

// --- Topics the gateway registers ---

static struct mqttsn_inbound *find_inbound(const struct mqttsn_client *self, uint16_t id) {
    for (size_t i = 0; i < self->config.inbound_count; i++) {
        if (self->config.inbound[i].id == id && id != 0) {
            return &self->config.inbound[i];
        }
    }
    return NULL;
}

static struct mqttsn_inbound *room_for_inbound(const struct mqttsn_client *self) {
    struct mqttsn_inbound *oldest = NULL;
    for (size_t i = 0; i < self->config.inbound_count; i++) {
        struct mqttsn_inbound *entry = &self->config.inbound[i];
        if (entry->id == 0) {
            return entry;
        }
        if (oldest == NULL || (int32_t)(entry->used - oldest->used) < 0) {
            oldest = entry;
        }
    }
    return oldest;
}

static bool receive_register(struct mqttsn_client *self, const struct mqttsn_message *message) {
    if (!can_be_told(self)) {
        return false;
    }
    struct mqttsn_inbound *entry = find_inbound(self, message->topic_id);
    if (entry == NULL) {
        entry = room_for_inbound(self);
    }
    const bool named = message->topic_id != 0 && message->data_bytes <= MQTTSN_INBOUND_NAME_BYTES_MAX &&
                       memchr(message->data, 0, message->data_bytes) == NULL;
    if (entry == NULL || !named) {
        mqttsn_reply(self, MQTTSN_REGACK, message->topic_id, message->msg_id, MQTTSN_NOT_SUPPORTED);
        return true;
    }
    entry->id = message->topic_id;
    entry->used = self->inbound_uses++;
    entry->name_bytes = (uint8_t)message->data_bytes;
    memcpy(entry->name, message->data, message->data_bytes);
    mqttsn_reply(self, MQTTSN_REGACK, message->topic_id, message->msg_id, MQTTSN_ACCEPTED);
    return true;
}

// --- Deliveries ---

static void set_name(struct mqttsn_delivery *delivery, const char *name) {
    delivery->topic = name;
    delivery->topic_bytes = name == NULL ? 0 : strlen(name);
}

// Fills in the topic's name. Returns false for an id nobody told us of. characters: room for a short topic.
static bool name_topic(struct mqttsn_client *self, struct mqttsn_delivery *delivery, char *characters) {
    const uint16_t id = delivery->topic_id;
    if (delivery->topic_type == MQTTSN_TOPIC_SHORT) {
        put_u16((uint8_t *)characters, id);
        delivery->topic = characters;
        delivery->topic_bytes = 2;
        return true;
    }
    struct mqttsn_inbound *inbound = delivery->topic_type == MQTTSN_TOPIC_NORMAL ? find_inbound(self, id) : NULL;
    if (inbound != NULL) {
        inbound->used = self->inbound_uses++;
        delivery->topic = inbound->name;
        delivery->topic_bytes = inbound->name_bytes;
        return true;
    }
    for (size_t i = 0; i < self->config.subscription_count && id != 0; i++) {
        const struct mqttsn_subscription *entry = &self->config.subscriptions[i];
        if (entry->type == delivery->topic_type && entry->id == id && entry->progress == MQTTSN_DONE) {
            set_name(delivery, entry->filter);
            return true;
        }
    }
    for (size_t i = 0; i < self->config.topic_count && id != 0; i++) {
        const struct mqttsn_topic *entry = &self->config.topics[i];
        if (entry->type == delivery->topic_type && entry->id == id && entry->progress == MQTTSN_DONE) {
            set_name(delivery, entry->name);
            return true;
        }
    }
    return false;
}

static bool request_was_seen(const struct mqttsn_client *self, uint16_t request_id) {
    for (size_t i = 0; i < self->seen_request_count; i++) {
        if (self->seen_requests[i] == request_id) {
            return true;
        }
    }
    return false;
}

static void note_request(struct mqttsn_client *self, uint16_t request_id) {
    if (self->seen_request_count == MQTTSN_SEEN_COUNT) {
        self->seen_request_count--;
        memmove(&self->seen_requests[0], &self->seen_requests[1],
                self->seen_request_count * sizeof self->seen_requests[0]);
    }
    self->seen_requests[self->seen_request_count++] = request_id;
}

static uint16_t *held_place(struct mqttsn_client *self, uint16_t msg_id) {
    for (size_t i = 0; i < MQTTSN_SEEN_COUNT; i++) {
        if (self->held_qos2[i] == msg_id) {
            return &self->held_qos2[i];
        }
    }
    return NULL;
}

static uint8_t tell(struct mqttsn_client *self, struct mqttsn_delivery *delivery) {
    char characters[2];
    uint8_t return_code = MQTTSN_INVALID_TOPIC_ID;
    if (name_topic(self, delivery, characters)) {
        return_code = (uint8_t)self->config.on_delivery(self->config.context, delivery);
    }
    if (return_code == MQTTSN_ACCEPTED) {
        self->counters.delivered++;
    } else {
        self->counters.refused_deliveries++;
    }
    return return_code;
}

// Exactly once (6.12): told at PUBLISH, forgotten at PUBREL.
static void deliver_once(struct mqttsn_client *self, struct mqttsn_delivery *delivery, uint16_t msg_id) {
    if (msg_id != 0 && held_place(self, msg_id) != NULL) {
        self->counters.delivered_again++;
        mqttsn_reply(self, MQTTSN_PUBREC, 0, msg_id, 0);
        return;
    }
    uint16_t *place = held_place(self, 0);
    const uint8_t return_code = place == NULL ? (uint8_t)MQTTSN_CONGESTION : tell(self, delivery);
    if (return_code != MQTTSN_ACCEPTED) {
        mqttsn_reply(self, MQTTSN_PUBACK, delivery->topic_id, msg_id, return_code);
        return;
    }
    *place = msg_id;
    mqttsn_reply(self, MQTTSN_PUBREC, 0, msg_id, 0);
}

static bool receive_publish(struct mqttsn_client *self, const struct mqttsn_message *message,
                            const uint16_t *request_id) {
    if (!can_be_told(self)) {
        return false;
    }
    struct mqttsn_delivery delivery = {.topic_type = message->topic_type,
                                       .topic_id = message->topic_id,
                                       .data = message->data,
                                       .data_bytes = message->data_bytes,
                                       .qos = message->qos,
                                       .retain = message->retain,
                                       .dup = message->dup};
    if (request_id != NULL) {
        delivery.has_request = true;
        delivery.request = (struct mqttsn_request){
            .request_id = *request_id, .topic_id = message->topic_id, .topic_type = message->topic_type};
        if (message->dup && request_was_seen(self, *request_id)) {
            self->counters.delivered_again++;
            mqttsn_reply(self, message->qos == 2 ? MQTTSN_PUBREC : MQTTSN_PUBACK, message->topic_id, message->msg_id,
                         MQTTSN_ACCEPTED);
            return true;
        }
    }
    if (message->qos == 2) {
        deliver_once(self, &delivery, message->msg_id);
        return true;
    }
    const uint8_t return_code = tell(self, &delivery);
    if (return_code == MQTTSN_ACCEPTED && request_id != NULL) {
        note_request(self, *request_id);
    }
    if (message->qos == 1) {
        mqttsn_reply(self, MQTTSN_PUBACK, message->topic_id, message->msg_id, return_code);
    }
    return true;
}

static bool receive_pubrel(struct mqttsn_client *self, uint16_t msg_id) {
    uint16_t *place = msg_id == 0 ? NULL : held_place(self, msg_id);
    if (place != NULL) {
        *place = 0;
    }
    // Answered in any case: the first PUBCOMP may have been lost.
    mqttsn_reply(self, MQTTSN_PUBCOMP, 0, msg_id, 0);
    return place != NULL;
}

// --- Everything ---

static void note_received(struct mqttsn_client *self) {
    self->last_rx_ms = mqttsn_now(self);
    self->ping.sent = false;
    self->ping.tries = 0;
}

static void count_unless(bool expected, uint32_t *counter) {
    *counter += expected ? 0U : 1U;
}

void mqttsn_client_receive(struct mqttsn_client *self, const void *message, size_t message_bytes) {
    struct mqttsn_message in;
    if (mqttsn_decode(message, message_bytes, &in) != MQTTSN_OK) {
        self->counters.rejected++;
        return;
    }
    if (self->state == MQTTSN_STATE_IDLE) {
        self->counters.unexpected++;
        return;
    }
    note_received(self);
    switch (in.type) {
        case MQTTSN_ADVERTISE:
        case MQTTSN_GWINFO:
            // The line has one gateway, at its other end.
            break;
        case MQTTSN_CONNACK:
        case MQTTSN_WILLTOPICREQ:
        case MQTTSN_WILLMSGREQ:
        case MQTTSN_PINGRESP:
        case MQTTSN_DISCONNECT:
            count_unless(mqttsn_session_receive(self, &in), &self->counters.unexpected);
            break;
        case MQTTSN_REGACK:
        case MQTTSN_SUBACK:
        case MQTTSN_UNSUBACK:
            count_unless(mqttsn_transaction_receive(self, &in), &self->counters.unexpected);
            break;
        case MQTTSN_REGISTER:
            count_unless(receive_register(self, &in), &self->counters.unexpected);
            break;
        case MQTTSN_PUBLISH:
            count_unless(receive_publish(self, &in, NULL), &self->counters.unexpected);
            break;
        case MQTTSN_PUBREL:
            count_unless(receive_pubrel(self, in.msg_id), &self->counters.unexpected);
            break;
        case MQTTSN_PUBACK:
            count_unless(mqttsn_readings_receive(self, &in) || mqttsn_slots_receive(self, &in),
                         &self->counters.unexpected);
            break;
        case MQTTSN_PUBREC:
        case MQTTSN_PUBCOMP:
            count_unless(mqttsn_slots_receive(self, &in), &self->counters.unexpected);
            break;
        case MQTTSN_PINGREQ:
            // A gateway asks a client like this (6.11).
            mqttsn_reply(self, MQTTSN_PINGRESP, 0, 0, 0);
            break;
        default:
            self->counters.rejected++;
            break;
    }
}

void mqttsn_client_receive_request(struct mqttsn_client *self, uint16_t request_id, const void *message,
                                   size_t message_bytes) {
    struct mqttsn_message in;
    if (mqttsn_decode(message, message_bytes, &in) != MQTTSN_OK || in.type != MQTTSN_PUBLISH) {
        self->counters.rejected++;
        return;
    }
    if (self->state == MQTTSN_STATE_IDLE) {
        self->counters.unexpected++;
        return;
    }
    note_received(self);
    count_unless(receive_publish(self, &in, &request_id), &self->counters.unexpected);
}
