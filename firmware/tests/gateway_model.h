/// A gateway in a few rules, and the line between it and one client, on virtual time.
///
/// It does what the plan of the link says a gateway does: one session, topics registered on demand, readings accepted
/// strictly in order with REWIND at gaps, publishes to the board repeated until acknowledged. The line can lose or
/// double any one frame, either way.

#ifndef EDGELOOP_TESTS_GATEWAY_MODEL_H
#define EDGELOOP_TESTS_GATEWAY_MODEL_H

#include "check.h"
#include "mqttsn/mqttsn.h"
#include "mqttsn/ring_source.h"
#include "wire/wire.h"

#define FRAME_BYTES_MAX 300
#define QUEUE_MAX 64
#define LINE_DELAY_MS 5U
#define LIST_MAX 64
#define CHANNEL_LINK 0x03U

struct queued {
    uint32_t due_ms;
    bool to_gateway;
    uint8_t channel;
    size_t bytes;
    uint8_t data[FRAME_BYTES_MAX];
};

struct told {
    char topic[40];
    char data[80];
    int8_t qos;
    bool has_request;
};

/// A publish on its way to the board.
struct outgoing {
    bool used;
    bool released;  // QoS 2: PUBREC came
    bool sent;
    bool enveloped;
    uint16_t request_id;
    uint16_t msg_id;
    int8_t qos;
    uint16_t topic_id;
    enum mqttsn_topic_type topic_type;
    uint32_t sent_ms;
    char data[80];
};

struct world {
    uint32_t now_ms;
    struct mqttsn_client client;
    struct mqttsn_topic topics[4];
    struct mqttsn_subscription subscriptions[3];
    struct mqttsn_inbound inbound[2];
    struct mqttsn_slot slots[3];
    uint8_t slot_data[3 * 100];
    struct mqttsn_flight flight[8];
    uint8_t tx_buffer[FRAME_BYTES_MAX];
    _Alignas(4) uint8_t ring_storage[RING_STORAGE_BYTES(32)];
    struct ring ring;
    struct ring_source ring_source;
    struct mqttsn_reading_source source;

    // The line.
    struct queued queue[QUEUE_MAX];
    size_t queued;
    unsigned frames;     // offered so far, both ways
    unsigned lose_at;    // this one is lost; 0: none
    unsigned double_at;  // this one comes twice
    bool no_room;        // tx refuses
    bool cut;            // everything is lost
    unsigned loss_percent;
    unsigned seed;
    unsigned sent_by_type[256];

    // The board's application.
    struct told delivered[LIST_MAX];
    size_t delivered_count;
    enum mqttsn_return_code answer_with;
    bool answer_requests;

    // The gateway.
    bool connected;
    bool will_wanted;
    bool envelopes;
    uint8_t congest;        // so many QoS 1 publishes are answered with congestion
    uint8_t invalid_topic;  // so many with an invalid topic id
    uint8_t refuse;         // so many are answered with not supported
    bool refuse_topics;     // every REGISTER is answered so
    bool deaf;              // takes no publishes or readings, yet answers PINGREQ
    bool silent;            // takes readings without acknowledging them: the cloud is slow
    char will_topic[40];
    char names[8][40];  // topic id - 1
    size_t name_count;
    uint16_t told_ids;  // bit: the client acknowledged our REGISTER of this id
    char filters[4][40];
    size_t filter_count;
    struct told published[LIST_MAX];
    size_t published_count;
    uint16_t held_qos2[8];
    struct {
        uint32_t boot;
        uint32_t sequence;
        char data[20];
    } readings[LIST_MAX];
    size_t reading_count;
    uint32_t last_boot;
    uint32_t last_sequence;
    unsigned rewinds;
    uint32_t rewound_boot;
    uint32_t rewound_sequence;
    uint32_t rewound_ms;
    struct outgoing outgoing[4];
    uint16_t next_msg_id;
    unsigned answers;
    unsigned disconnects;
    uint16_t sleep_s;
};

// --- The line ---

static void enqueue(struct world *w, bool to_gateway, uint8_t channel, const uint8_t *data, size_t bytes) {
    CHECK(w->queued < QUEUE_MAX && bytes <= FRAME_BYTES_MAX);
    struct queued *frame = &w->queue[w->queued++];
    *frame = (struct queued){
        .due_ms = w->now_ms + LINE_DELAY_MS, .to_gateway = to_gateway, .channel = channel, .bytes = bytes};
    memcpy(frame->data, data, bytes);
}

static void offer(struct world *w, bool to_gateway, uint8_t channel, const uint8_t *data, size_t bytes) {
    w->frames++;
    const bool unlucky = w->loss_percent > 0 && next_random(&w->seed) % 100 < w->loss_percent;
    if (w->cut || unlucky || w->frames == w->lose_at) {
        return;
    }
    enqueue(w, to_gateway, channel, data, bytes);
    if (w->frames == w->double_at) {
        enqueue(w, to_gateway, channel, data, bytes);
    }
}

static uint32_t world_now(void *context) {
    return ((const struct world *)context)->now_ms;
}

static bool world_tx(void *context, uint8_t channel, const uint8_t *payload, size_t bytes) {
    struct world *w = (struct world *)context;
    if (w->no_room) {
        return false;
    }
    struct mqttsn_message message;
    const size_t envelope = channel == MQTTSN_CHANNEL_READING ? 9 : channel == MQTTSN_CHANNEL_REQUEST ? 2 : 0;
    CHECK_EQUAL(mqttsn_decode(payload + envelope, bytes - envelope, &message), MQTTSN_OK);
    w->sent_by_type[message.type]++;
    offer(w, true, channel, payload, bytes);
    return true;
}

// --- The gateway ---

static void gateway_send(struct world *w, const struct mqttsn_message *message, const uint16_t *request_id) {
    uint8_t data[FRAME_BYTES_MAX];
    const size_t envelope = request_id == NULL ? 0 : 2;
    if (request_id != NULL) {
        data[0] = (uint8_t)(*request_id >> 8);
        data[1] = (uint8_t)*request_id;
    }
    const size_t bytes = mqttsn_encode(message, data + envelope, sizeof data - envelope);
    CHECK(bytes > 0);
    offer(w, false, request_id == NULL ? MQTTSN_CHANNEL_PLAIN : MQTTSN_CHANNEL_REQUEST, data, bytes + envelope);
}

static void gateway_reply(struct world *w, enum mqttsn_type type, uint16_t topic_id, uint16_t msg_id, uint8_t code) {
    const struct mqttsn_message message = {.type = type, .topic_id = topic_id, .msg_id = msg_id, .return_code = code};
    gateway_send(w, &message, NULL);
}

static uint16_t gateway_topic_id(struct world *w, const char *name, size_t bytes) {
    for (size_t i = 0; i < w->name_count; i++) {
        if (strlen(w->names[i]) == bytes && memcmp(w->names[i], name, bytes) == 0) {
            return (uint16_t)(i + 1);
        }
    }
    CHECK(w->name_count < 8 && bytes < 40);
    memcpy(w->names[w->name_count], name, bytes);
    return (uint16_t)++w->name_count;
}

static void gateway_send_outgoing(struct world *w, struct outgoing *out) {
    const bool again = out->sent;
    out->sent = true;
    out->sent_ms = w->now_ms;
    if (out->released) {
        gateway_reply(w, MQTTSN_PUBREL, 0, out->msg_id, 0);
        return;
    }
    const bool registered =
        out->topic_type != MQTTSN_TOPIC_NORMAL || ((unsigned)w->told_ids >> out->topic_id & 1U) != 0;
    if (!registered) {
        const char *name = w->names[out->topic_id - 1];
        const struct mqttsn_message message = {.type = MQTTSN_REGISTER,
                                               .topic_id = out->topic_id,
                                               .msg_id = out->msg_id,
                                               .data = (const uint8_t *)name,
                                               .data_bytes = strlen(name)};
        out->sent = false;
        gateway_send(w, &message, NULL);
        return;
    }
    const struct mqttsn_message message = {.type = MQTTSN_PUBLISH,
                                           .qos = out->qos,
                                           .dup = again,
                                           .topic_type = out->topic_type,
                                           .topic_id = out->topic_id,
                                           .msg_id = out->msg_id,
                                           .data = (const uint8_t *)out->data,
                                           .data_bytes = strlen(out->data)};
    gateway_send(w, &message, out->enveloped ? &out->request_id : NULL);
    if (out->qos == 0) {
        out->used = false;
    }
}

/// Send the board a publish; name NULL: the short topic "ab".
static void gateway_publish(struct world *w, const char *name, int8_t qos, const char *data, int request_id) {
    for (size_t i = 0; i < 4; i++) {
        struct outgoing *out = &w->outgoing[i];
        if (!out->used) {
            *out = (struct outgoing){.used = true, .qos = qos, .msg_id = ++w->next_msg_id};
            out->topic_type = name == NULL ? MQTTSN_TOPIC_SHORT : MQTTSN_TOPIC_NORMAL;
            out->topic_id = name == NULL ? 0x6162 : gateway_topic_id(w, name, strlen(name));
            out->enveloped = request_id >= 0;
            out->request_id = (uint16_t)request_id;
            snprintf(out->data, sizeof out->data, "%s", data);
            gateway_send_outgoing(w, out);
            return;
        }
    }
    CHECK(false);
}

static struct outgoing *gateway_find(struct world *w, uint16_t msg_id) {
    for (size_t i = 0; i < 4; i++) {
        if (w->outgoing[i].used && w->outgoing[i].msg_id == msg_id) {
            return &w->outgoing[i];
        }
    }
    return NULL;
}

static void gateway_rewind(struct world *w, uint32_t boot, uint32_t sequence) {
    const bool same = w->rewound_boot == boot && w->rewound_sequence == sequence;
    if (same && w->now_ms - w->rewound_ms < 500) {
        return;
    }
    w->rewound_boot = boot;
    w->rewound_sequence = sequence;
    w->rewound_ms = w->now_ms;
    w->rewinds++;
    const struct wire_link link = {.type = WIRE_LINK_REWIND, .as.rewind = {boot, sequence}};
    uint8_t data[16];
    const size_t bytes = wire_link_encode(&link, data, sizeof data);
    offer(w, false, CHANNEL_LINK, data, bytes);
}

static void gateway_take_reading(struct world *w, const struct wire_reading *envelope,
                                 const struct mqttsn_message *message) {
    const uint32_t base = envelope->sequence - envelope->back;
    const bool known = envelope->boot == w->last_boot;
    const uint32_t expected = known && w->last_sequence + 1 > base ? w->last_sequence + 1 : base;
    if (envelope->sequence > expected) {
        gateway_rewind(w, envelope->boot, expected);
        return;
    }
    if (envelope->sequence < expected) {
        if (!w->silent) {
            gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, MQTTSN_ACCEPTED);
        }
        return;
    }
    if (w->refuse > 0) {
        w->refuse--;
        w->last_boot = envelope->boot;
        w->last_sequence = envelope->sequence;
        gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, MQTTSN_NOT_SUPPORTED);
        return;
    }
    if (w->invalid_topic > 0) {
        w->invalid_topic--;
        gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, MQTTSN_INVALID_TOPIC_ID);
        return;
    }
    if (w->congest > 0) {
        w->congest--;
        gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, MQTTSN_CONGESTION);
        return;
    }
    CHECK(w->reading_count < LIST_MAX && message->data_bytes < 20);
    w->readings[w->reading_count].boot = envelope->boot;
    w->readings[w->reading_count].sequence = envelope->sequence;
    memcpy(w->readings[w->reading_count].data, message->data, message->data_bytes);
    w->reading_count++;
    w->last_boot = envelope->boot;
    w->last_sequence = envelope->sequence;
    if (!w->silent) {
        gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, MQTTSN_ACCEPTED);
    }
}

static void gateway_take_publish(struct world *w, const struct mqttsn_message *message) {
    if (message->qos == 2) {
        for (size_t i = 0; i < 8; i++) {
            if (w->held_qos2[i] == message->msg_id) {
                gateway_reply(w, MQTTSN_PUBREC, 0, message->msg_id, 0);
                return;
            }
        }
    }
    uint8_t *const turns[] = {&w->congest, &w->invalid_topic, &w->refuse};
    for (size_t i = 0; i < 3 && message->qos == 1; i++) {
        if (*turns[i] > 0) {
            --*turns[i];
            gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, (uint8_t)(MQTTSN_CONGESTION + i));
            return;
        }
    }
    CHECK(w->published_count < LIST_MAX && message->data_bytes < sizeof w->published[0].data);
    struct told *told = &w->published[w->published_count++];
    memset(told, 0, sizeof *told);
    told->qos = message->qos;
    if (message->topic_type == MQTTSN_TOPIC_NORMAL) {
        CHECK(message->topic_id >= 1 && message->topic_id <= w->name_count);
        memcpy(told->topic, w->names[message->topic_id - 1], sizeof told->topic);
    } else {
        snprintf(told->topic, sizeof told->topic, "#%u", (unsigned)message->topic_id);
    }
    if (message->data_bytes > 0) {
        memcpy(told->data, message->data, message->data_bytes);
    }
    if (message->qos == 1) {
        gateway_reply(w, MQTTSN_PUBACK, message->topic_id, message->msg_id, MQTTSN_ACCEPTED);
    } else if (message->qos == 2) {
        for (size_t i = 0; i < 8; i++) {
            if (w->held_qos2[i] == 0) {
                w->held_qos2[i] = message->msg_id;
                break;
            }
        }
        gateway_reply(w, MQTTSN_PUBREC, 0, message->msg_id, 0);
    }
}

static void gateway_take(struct world *w, const struct mqttsn_message *message) {
    struct outgoing *out = gateway_find(w, message->msg_id);
    if (w->deaf && message->type == MQTTSN_PUBLISH) {
        return;
    }
    const bool anonymous = message->type == MQTTSN_PUBLISH && message->qos < 0;
    if (!w->connected && !anonymous && message->type != MQTTSN_CONNECT && message->type != MQTTSN_WILLTOPIC &&
        message->type != MQTTSN_WILLMSG) {
        w->disconnects++;
        gateway_reply(w, MQTTSN_DISCONNECT, 0, 0, 0);
        return;
    }
    switch (message->type) {
        case MQTTSN_CONNECT:
            w->connected = false;
            w->told_ids = 0;
            w->sleep_s = 0;
            if (message->will) {
                gateway_reply(w, MQTTSN_WILLTOPICREQ, 0, 0, 0);
            } else {
                w->connected = true;
                gateway_reply(w, MQTTSN_CONNACK, 0, 0, w->congest > 0 ? MQTTSN_CONGESTION : MQTTSN_ACCEPTED);
                w->connected = w->congest == 0;
                w->congest = (uint8_t)(w->congest > 0 ? w->congest - 1 : 0);
            }
            break;
        case MQTTSN_WILLTOPIC:
            memset(w->will_topic, 0, sizeof w->will_topic);
            memcpy(w->will_topic, message->data, message->data_bytes);
            gateway_reply(w, MQTTSN_WILLMSGREQ, 0, 0, 0);
            break;
        case MQTTSN_WILLMSG:
            w->connected = true;
            gateway_reply(w, MQTTSN_CONNACK, 0, 0, MQTTSN_ACCEPTED);
            break;
        case MQTTSN_REGISTER: {
            const uint16_t id = gateway_topic_id(w, (const char *)message->data, message->data_bytes);
            gateway_reply(w, MQTTSN_REGACK, id, message->msg_id,
                          w->refuse_topics ? MQTTSN_NOT_SUPPORTED : MQTTSN_ACCEPTED);
            break;
        }
        case MQTTSN_REGACK:
            if (message->return_code == MQTTSN_ACCEPTED) {
                w->told_ids = (uint16_t)(w->told_ids | 1U << message->topic_id);
            }
            if (out != NULL && !out->sent) {
                gateway_send_outgoing(w, out);
            }
            break;
        case MQTTSN_SUBSCRIBE:
        case MQTTSN_UNSUBSCRIBE: {
            const bool by_name = message->topic_type == MQTTSN_TOPIC_NORMAL;
            if (message->type == MQTTSN_SUBSCRIBE && w->filter_count < 4) {
                w->filter_count++;
            }
            const struct mqttsn_message ack = {
                .type = message->type == MQTTSN_SUBSCRIBE ? MQTTSN_SUBACK : MQTTSN_UNSUBACK,
                .qos = message->qos,
                .msg_id = message->msg_id,
                .topic_id = by_name ? 0 : message->topic_id};
            gateway_send(w, &ack, NULL);
            break;
        }
        case MQTTSN_PUBLISH:
            gateway_take_publish(w, message);
            break;
        case MQTTSN_PUBREL:
            for (size_t i = 0; i < 8; i++) {
                w->held_qos2[i] = w->held_qos2[i] == message->msg_id ? 0 : w->held_qos2[i];
            }
            gateway_reply(w, MQTTSN_PUBCOMP, 0, message->msg_id, 0);
            break;
        case MQTTSN_PUBACK:
            if (out != NULL && message->return_code == MQTTSN_INVALID_TOPIC_ID) {
                w->told_ids = (uint16_t)(w->told_ids & ~(1U << out->topic_id));
                gateway_send_outgoing(w, out);
            } else if (out != NULL && message->return_code != MQTTSN_CONGESTION) {
                out->used = false;
            }
            break;
        case MQTTSN_PUBREC:
            if (out != NULL) {
                out->released = true;
                gateway_send_outgoing(w, out);
            }
            break;
        case MQTTSN_PUBCOMP:
            if (out != NULL) {
                out->used = false;
            }
            break;
        case MQTTSN_PINGREQ:
            gateway_reply(w, MQTTSN_PINGRESP, 0, 0, 0);
            break;
        case MQTTSN_DISCONNECT:
            w->connected = message->has_duration;
            w->sleep_s = message->duration_s;
            gateway_reply(w, MQTTSN_DISCONNECT, 0, 0, 0);
            break;
        default:
            CHECK(false);
    }
}

static void gateway_receive(struct world *w, const struct queued *frame) {
    struct mqttsn_message message;
    if (frame->channel == MQTTSN_CHANNEL_READING) {
        struct wire_reading envelope;
        CHECK(wire_reading_decode(frame->data, frame->bytes, &envelope));
        CHECK_EQUAL(mqttsn_decode(envelope.message, envelope.message_bytes, &message), MQTTSN_OK);
        if (w->connected) {
            gateway_take_reading(w, &envelope, &message);
        } else {
            gateway_take(w, &message);
        }
        return;
    }
    const size_t envelope = frame->channel == MQTTSN_CHANNEL_REQUEST ? 2 : 0;
    CHECK_EQUAL(mqttsn_decode(frame->data + envelope, frame->bytes - envelope, &message), MQTTSN_OK);
    if (envelope > 0 && w->connected) {
        w->answers++;
        gateway_reply(w, MQTTSN_PUBACK, message.topic_id, message.msg_id, MQTTSN_ACCEPTED);
        return;
    }
    gateway_take(w, &message);
}

static void gateway_retry(struct world *w) {
    for (size_t i = 0; i < 4; i++) {
        struct outgoing *out = &w->outgoing[i];
        if (out->used && w->connected && w->now_ms - out->sent_ms >= 10000) {
            gateway_send_outgoing(w, out);
        }
    }
}

// --- The board ---

static enum mqttsn_return_code world_deliver(void *context, const struct mqttsn_delivery *delivery) {
    struct world *w = (struct world *)context;
    if (w->answer_with != MQTTSN_ACCEPTED) {
        return w->answer_with;
    }
    CHECK(w->delivered_count < LIST_MAX && delivery->topic_bytes < 40 && delivery->data_bytes < 80);
    struct told *told = &w->delivered[w->delivered_count++];
    memset(told, 0, sizeof *told);
    told->qos = delivery->qos;
    told->has_request = delivery->has_request;
    if (delivery->topic_bytes > 0) {
        memcpy(told->topic, delivery->topic, delivery->topic_bytes);
    }
    if (delivery->data_bytes > 0) {
        memcpy(told->data, delivery->data, delivery->data_bytes);
    }
    if (delivery->has_request && w->answer_requests) {
        CHECK_EQUAL(mqttsn_client_answer(&w->client, &delivery->request, delivery->data, delivery->data_bytes),
                    MQTTSN_PUBLISH_OK);
    }
    return MQTTSN_ACCEPTED;
}

static void board_receive(struct world *w, const struct queued *frame) {
    if (frame->channel == CHANNEL_LINK) {
        struct wire_link link;
        CHECK_EQUAL(wire_link_decode(frame->data, frame->bytes, &link), WIRE_LINK_OK);
        mqttsn_client_rewind(&w->client, link.as.rewind.boot, link.as.rewind.sequence);
    } else if (frame->channel == MQTTSN_CHANNEL_REQUEST) {
        struct wire_request request;
        CHECK(wire_request_decode(frame->data, frame->bytes, &request));
        mqttsn_client_receive_request(&w->client, request.request_id, request.message, request.message_bytes);
    } else {
        mqttsn_client_receive(&w->client, frame->data, frame->bytes);
    }
}

static void world_open(struct world *w, bool will) {
    memset(w, 0, sizeof *w);
    w->now_ms = UINT32_MAX - 20000;  // The clock wraps while it runs.
    w->answer_requests = true;
    w->rewound_ms = w->now_ms - 10000;
    w->topics[0] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_NORMAL, .name = "dt/b/temp"};
    w->topics[1] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_NORMAL, .name = "cmd/b/reply"};
    w->topics[2] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_PREDEFINED, .id = 77};
    w->topics[3] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_SHORT, .id = 0x6162};
    w->subscriptions[0] = (struct mqttsn_subscription){.type = MQTTSN_TOPIC_NORMAL, .filter = "cmd/b/#", .qos = 1};
    w->subscriptions[1] = (struct mqttsn_subscription){.type = MQTTSN_TOPIC_SHORT, .id = 0x6162, .qos = 0};
    w->subscriptions[2] = (struct mqttsn_subscription){.type = MQTTSN_TOPIC_PREDEFINED, .id = 77, .qos = 2};
    CHECK_EQUAL(ring_open(&w->ring, w->ring_storage, sizeof w->ring_storage, 32), RING_EMPTY);
    w->ring_source.ring = &w->ring;
    w->source = ring_source_open(&w->ring_source);
    const struct mqttsn_client_config config = {
        .platform = {w, world_now, world_tx},
        .client_id = "b",
        .keepalive_s = 30,
        .clean_session = true,
        .will_topic = will ? "dt/b/gone" : NULL,
        .will_data = (const uint8_t *)"gone",
        .will_data_bytes = 4,
        .will_qos = 1,
        .seed = 1234,
        .tx_buffer = w->tx_buffer,
        .tx_buffer_bytes = sizeof w->tx_buffer,
        .topics = w->topics,
        .topic_count = 4,
        .subscriptions = w->subscriptions,
        .subscription_count = 3,
        .inbound = w->inbound,
        .inbound_count = 2,
        .slots = w->slots,
        .slot_count = 3,
        .slot_data = w->slot_data,
        .slot_data_bytes = 100,
        .readings = &w->source,
        .flight = w->flight,
        .flight_count = 8,
        .context = w,
        .on_delivery = world_deliver,
    };
    CHECK(mqttsn_client_init(&w->client, &config));
    mqttsn_client_set_window(&w->client, 8);
}

static void add_reading(struct world *w, uint32_t boot, uint32_t sequence) {
    struct ring_reading reading = {.boot = boot, .sequence = sequence, .topic = 0};
    reading.payload_bytes =
        (uint8_t)snprintf((char *)reading.payload, sizeof reading.payload, "r%u", (unsigned)sequence);
    CHECK(ring_push(&w->ring, &reading));
}

/// Let time pass until done says so, at most limit_ms. Returns whether it did.
static bool run_until(struct world *w, bool (*done)(const struct world *), uint32_t limit_ms) {
    const uint32_t start_ms = w->now_ms;
    while (w->now_ms - start_ms < limit_ms) {
        uint32_t next_ms = mqttsn_client_poll(&w->client);
        CHECK(next_ms > 0);
        if (done != NULL && done(w)) {
            return true;
        }
        next_ms = next_ms < 1000 ? next_ms : 1000;
        for (size_t i = 0; i < w->queued; i++) {
            const uint32_t left_ms = w->queue[i].due_ms - w->now_ms;
            next_ms = left_ms < next_ms ? left_ms : next_ms;
        }
        w->now_ms += next_ms;
        gateway_retry(w);
        while (w->queued > 0 && w->queue[0].due_ms - w->now_ms == 0) {
            const struct queued frame = w->queue[0];
            w->queued--;
            memmove(w->queue, w->queue + 1, w->queued * sizeof w->queue[0]);
            if (frame.to_gateway) {
                gateway_receive(w, &frame);
            } else {
                board_receive(w, &frame);
            }
        }
    }
    return false;
}

#endif
