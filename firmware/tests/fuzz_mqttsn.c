/// Raw bytes as one MQTT-SN message to the decoders, and as a series of messages to a client in the middle of its work.

#include <stdlib.h>
#include <string.h>

#include "mqttsn/mqttsn.h"
#include "mqttsn/ring_source.h"

#define CAPACITY 8U

struct board {
    uint32_t now_ms;
    struct mqttsn_client client;
    struct mqttsn_topic topics[2];
    struct mqttsn_subscription subscriptions[1];
    struct mqttsn_inbound inbound[2];
    struct mqttsn_slot slots[2];
    uint8_t slot_data[2 * 64];
    struct mqttsn_flight flight[4];
    uint8_t tx_buffer[160];
    _Alignas(4) uint8_t storage[RING_STORAGE_BYTES(CAPACITY)];
    struct ring ring;
    struct ring_source ring_source;
    struct mqttsn_reading_source source;
    unsigned sent;
};

static uint32_t now(void *context) {
    return ((const struct board *)context)->now_ms;
}

static bool tx(void *context, uint8_t channel, const uint8_t *payload, size_t bytes) {
    struct board *board = (struct board *)context;
    struct mqttsn_message message;
    const size_t envelope = channel == MQTTSN_CHANNEL_READING ? 9 : channel == MQTTSN_CHANNEL_REQUEST ? 2 : 0;
    if (bytes < envelope || mqttsn_decode(payload + envelope, bytes - envelope, &message) != MQTTSN_OK) {
        abort();
    }
    // Now and then the line has no room.
    return ++board->sent % 7 != 0;
}

static enum mqttsn_return_code deliver(void *context, const struct mqttsn_delivery *delivery) {
    struct board *board = (struct board *)context;
    if (delivery->topic_bytes > 0 && delivery->topic[delivery->topic_bytes - 1] == '!') {
        return MQTTSN_CONGESTION;
    }
    if (delivery->has_request) {
        (void)mqttsn_client_answer(&board->client, &delivery->request, delivery->data, delivery->data_bytes);
    }
    return MQTTSN_ACCEPTED;
}

static void open_board(struct board *board) {
    memset(board, 0, sizeof *board);
    board->topics[0] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_NORMAL, .name = "t"};
    board->topics[1] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_PREDEFINED, .id = 5};
    board->subscriptions[0] = (struct mqttsn_subscription){.type = MQTTSN_TOPIC_NORMAL, .filter = "c/#", .qos = 1};
    (void)ring_open(&board->ring, board->storage, sizeof board->storage, CAPACITY);
    board->ring_source.ring = &board->ring;
    board->source = ring_source_open(&board->ring_source);
    const struct mqttsn_client_config config = {.platform = {board, now, tx},
                                                .client_id = "b",
                                                .keepalive_s = 30,
                                                .will_topic = "w",
                                                .tx_buffer = board->tx_buffer,
                                                .tx_buffer_bytes = sizeof board->tx_buffer,
                                                .topics = board->topics,
                                                .topic_count = 2,
                                                .subscriptions = board->subscriptions,
                                                .subscription_count = 1,
                                                .inbound = board->inbound,
                                                .inbound_count = 2,
                                                .slots = board->slots,
                                                .slot_count = 2,
                                                .slot_data = board->slot_data,
                                                .slot_data_bytes = 64,
                                                .readings = &board->source,
                                                .flight = board->flight,
                                                .flight_count = 4,
                                                .context = board,
                                                .on_delivery = deliver};
    if (!mqttsn_client_init(&board->client, &config)) {
        abort();
    }
}

static void step(struct board *board, const uint8_t *data, size_t size) {
    const uint8_t choice = size > 0 ? data[size - 1] : 0;
    const struct ring_reading reading = {.boot = choice / 64U, .sequence = board->sent + 1, .payload_bytes = 3};
    if (choice % 3 == 0) {
        (void)ring_push(&board->ring, &reading);
    }
    if (choice % 5 == 0) {
        (void)mqttsn_client_publish(&board->client, choice % 2, (int8_t)(choice % 4 - 1), false, data, size % 70);
    }
    if (choice % 11 == 0) {
        mqttsn_client_rewind(&board->client, choice / 64U, board->sent / 2);
    }
    if (choice % 31 == 0) {
        mqttsn_client_sleep(&board->client, 10);
    }
    if (choice % 37 == 0) {
        mqttsn_client_start(&board->client);
    }
    mqttsn_client_set_window(&board->client, choice % 4);
    if (choice % 2 == 0) {
        mqttsn_client_receive(&board->client, data, size);
    } else {
        mqttsn_client_receive_request(&board->client, choice, data, size);
        mqttsn_client_receive(&board->client, data, size);
    }
    board->now_ms += choice * 20U;
    (void)mqttsn_client_poll(&board->client);
    if (board->client.flight_next > board->client.flight_held || board->client.flight_held > 4) {
        abort();
    }
}

static void check_decoders(const uint8_t *data, size_t size) {
    struct mqttsn_message message;
    struct mqttsn_encapsulation encapsulation;
    uint8_t *out = (uint8_t *)malloc(size + 1);
    if (mqttsn_decode(data, size, &message) == MQTTSN_OK) {
        const size_t bytes = mqttsn_encode(&message, out, size);
        if (bytes == 0 || mqttsn_decode(out, bytes, &message) != MQTTSN_OK) {
            abort();
        }
    }
    if (mqttsn_decode_encapsulation(data, size, &encapsulation) == MQTTSN_OK &&
        (mqttsn_encode_encapsulation(&encapsulation, out, size) != size || memcmp(out, data, size) != 0)) {
        abort();
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct board board;
    static const uint8_t accepted[] = {3, MQTTSN_CONNACK, 0};
    check_decoders(data, size);
    open_board(&board);
    mqttsn_client_start(&board.client);
    (void)mqttsn_client_poll(&board.client);
    mqttsn_client_receive(&board.client, accepted, sizeof accepted);
    // The input as one message, then as many as its own lengths cut it into.
    step(&board, data, size);
    size_t at = 0;
    while (at < size) {
        const size_t bytes = data[at] == 0 ? 1 : data[at] < size - at ? data[at] : size - at;
        step(&board, data + at, bytes);
        at += bytes;
    }
    return 0;
}
