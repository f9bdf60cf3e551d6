// The link task: owner of the UART, the wire and the MQTT-SN client.
///
// One pass: take what arrived, take what the command task answered, let the client do what is due, sleep until the
// UART, another task or a timer has something. A reading is built only when the transmitter has nearly run dry
// (BOARD_UART_LOW_BYTES), everything else whenever it fits: so an answer waits behind one reading at most, and the line
// never pauses while readings wait.
#include <string.h>

#include "app/app.h"
#include "app/text.h"
#include "boards/board.h"
#include "mqttsn/ring_source.h"

enum {
    KEEPALIVE_S = 30,
    RETRY_MS = 5000,  // T_retry; the standard's 10 s are meant for radio.
    TX_MESSAGE_BYTES = ANSWER_BYTES_MAX + WIRE_REQUEST_HEADER_BYTES + MQTTSN_PUBLISH_HEADER_BYTES_MAX,
    TX_FRAME_BYTES = WIRE_FRAME_BYTES_MAX(TX_MESSAGE_BYTES + 1),
    RX_SEGMENT_BYTES = WIRE_STUFFED_BYTES_MAX(CONTENT_BYTES_MAX),
    SLOT_COUNT = QUEUE_DEPTH,
    INBOUND_COUNT = 12,
    TOPIC_BYTES_MAX = IDENTITY_ID_BYTES_MAX + 16,
    HELLO_MS = 1000,  // Pause between HELLOs that nobody answers; grows to HELLO_MS_MAX.
    HELLO_MS_MAX = 10000,
    HELLOS_BEFORE_PLAIN = 3,  // Then the gateway is taken for a plain MQTT-SN one, until it says WELCOME.
    BUSY_MS_MAX = 100,
    EFFECT_MS_MAX = 1000,  // How long a reset waits for its answer to be acknowledged.
};
_Static_assert((int)TX_FRAME_BYTES < (int)BOARD_UART_TX_BYTES, "the longest frame fits the UART's buffer");

enum topic_index { TOPIC_TEMPERATURE, TOPIC_REPLY, TOPIC_COUNT };

static struct {
    struct app *app;
    struct wire_receiver receiver;
    struct mqttsn_client client;
    struct ring_source ring_source;
    struct mqttsn_reading_source readings;
    uint32_t frames_out;
    uint32_t rested_ms;
    uint32_t links_unknown;
    uint32_t sessions_renewed;  // By a gateway that began anew; the client counts those it lost.
    uint32_t text_bytes_dropped;

    bool welcomed;
    size_t peer_content_bytes_max;
    uint32_t hello_due_ms;
    uint32_t hello_pause_ms;
    unsigned hellos;

    enum command_effect effect;
    uint32_t effect_due_ms;

    bool answer_held;  // `answer` waits for a slot.
    struct answer_item answer;
    struct command_item command;
    struct wire_link link;

    char topic_names[TOPIC_COUNT][TOPIC_BYTES_MAX];
    char filter[TOPIC_BYTES_MAX];
    struct mqttsn_topic topics[TOPIC_COUNT];
    struct mqttsn_subscription subscription;
    struct mqttsn_inbound inbound[INBOUND_COUNT];
    struct mqttsn_slot slots[SLOT_COUNT];
    uint8_t slot_data[SLOT_COUNT * ANSWER_BYTES_MAX];
    struct mqttsn_flight flight[WINDOW];
    uint8_t tx_message[TX_MESSAGE_BYTES];
    uint8_t tx_frame[TX_FRAME_BYTES];
    uint8_t rx_segment[RX_SEGMENT_BYTES];
} self;

static uint32_t now_ms(void *context) {
    (void)context;
    return app_now_ms();
}

static bool send(void *context, uint8_t channel, const uint8_t *payload, size_t payload_bytes) {
    (void)context;
    if (channel == WIRE_CHANNEL_READING && board_uart_backlog_bytes() > BOARD_UART_LOW_BYTES) {
        return false;
    }
    size_t bytes = wire_frame_encode(channel, payload, payload_bytes, self.tx_frame, sizeof self.tx_frame);
    if (bytes == 0 || !board_uart_write(self.tx_frame, bytes)) {
        return false;
    }
    self.frames_out++;
    return true;
}

static void send_link(void) {
    uint8_t payload[192];
    size_t bytes = wire_link_encode(&self.link, payload, sizeof payload);
    if (bytes > 0) {
        send(NULL, WIRE_CHANNEL_LINK, payload, bytes);  // no room: the other side asks again, and so do we
    }
}

static struct wire_text wire_text_of(const char *terminated) {
    return (struct wire_text){.data = terminated, .bytes = (uint8_t)strlen(terminated)};
}

static void send_hello(void) {
    self.link = (struct wire_link){.type = WIRE_LINK_HELLO,
                                   .as.hello = {
                                       .version = WIRE_LINK_VERSION,
                                       .window = WINDOW,
                                       .content_bytes_max = CONTENT_BYTES_MAX,
                                       .boot = self.app->boot,
                                       .reset_reason = (uint8_t)board_reset_reason(),
                                       .board_id = wire_text_of(self.app->identity.board_id),
                                       .firmware = wire_text_of(APP_VERSION),
                                   }};
    send_link();
}

void link_stats(struct app *app, struct wire_stats *out) {
    const uint32_t *rejected = self.receiver.counters.rejected;
    const uint32_t values[WIRE_STAT_END] = {
        [WIRE_STAT_FRAMES_IN] = self.receiver.counters.frames,
        [WIRE_STAT_FRAMES_OUT] = self.frames_out,
        [WIRE_STAT_BAD_CRC] = rejected[WIRE_BAD_CRC],
        [WIRE_STAT_BAD_COBS] = rejected[WIRE_BAD_COBS],
        [WIRE_STAT_TOO_LONG] = rejected[WIRE_TOO_LONG],
        [WIRE_STAT_TOO_SHORT] = rejected[WIRE_TOO_SHORT],
        [WIRE_STAT_TIMEOUT] = rejected[WIRE_TIMEOUT],
        [WIRE_STAT_UNKNOWN_CHANNEL] = rejected[WIRE_UNKNOWN_CHANNEL] + self.links_unknown,
        [WIRE_STAT_UART_OVERRUN] = board_uart_overruns(),
        [WIRE_STAT_READINGS_PRODUCED] = app->readings_produced,
        [WIRE_STAT_READINGS_ACKNOWLEDGED] = self.client.counters.readings_acknowledged,
        [WIRE_STAT_READINGS_SHED] = app->ring.head.shed - app->shed_at_start,
        [WIRE_STAT_READINGS_SENT_AGAIN] = self.client.counters.readings_sent_again,
        [WIRE_STAT_READINGS_HELD] = ring_held(&app->ring),
        [WIRE_STAT_COMMANDS_RECEIVED] = app->commands_received,
        [WIRE_STAT_COMMANDS_ANSWERED] = app->commands_answered,
        [WIRE_STAT_SENSOR_ERRORS] = app->sensor_errors,
        [WIRE_STAT_MQTTSN_REJECTED] = self.client.counters.rejected,
        [WIRE_STAT_RECONNECTS] = self.client.counters.reconnects + self.sessions_renewed,
        [WIRE_STAT_WATCHDOG_RESETS] = app->kept->watchdog_resets,
        [WIRE_STAT_TEXT_BYTES_DROPPED] = self.text_bytes_dropped,
    };
    out->boot = app->boot;
    out->uptime_ms = board_now_us() / 1000;
    out->reset_reason = (uint8_t)board_reset_reason();
    out->count = 0;
    for (uint8_t id = 1; id < WIRE_STAT_END; id++) {
        out->values[out->count].id = id;
        out->values[out->count++].value = values[id];
    }
}

// From any state, without a DISCONNECT and without waiting for a pause to be over.
static void connect_now(void) {
    mqttsn_client_stop(&self.client);
    mqttsn_client_start(&self.client);
}

static void welcome(const struct wire_welcome *welcome) {
    self.peer_content_bytes_max = welcome->content_bytes_max;
    mqttsn_client_set_window(&self.client, welcome->window);
    if (!self.welcomed) {
        self.welcomed = true;
        self.sessions_renewed += self.client.state == MQTTSN_STATE_CONNECTED;
        connect_now();
    }
}

static void on_link(const struct wire_event *event) {
    if (wire_link_decode(event->data, event->data_bytes, &self.link) != WIRE_LINK_OK) {
        self.links_unknown++;
        return;
    }
    switch (self.link.type) {
        case WIRE_LINK_WELCOME:
            welcome(&self.link.as.welcome);
            break;
        case WIRE_LINK_HELLO_REQUEST:
            // The gateway has just opened the port: what it knew of us may be gone.
            self.welcomed = false;
            self.hellos = 0;
            self.hello_pause_ms = HELLO_MS;
            self.hello_due_ms = app_now_ms();
            break;
        case WIRE_LINK_STATS_REQUEST:
            self.link.type = WIRE_LINK_STATS;
            link_stats(self.app, &self.link.as.stats);
            send_link();
            break;
        case WIRE_LINK_REWIND:
            mqttsn_client_rewind(&self.client, self.link.as.rewind.boot, self.link.as.rewind.sequence);
            break;
        case WIRE_LINK_TIME:  // readings carry the uptime; the gateway stamps them
        case WIRE_LINK_HELLO:
        case WIRE_LINK_STATS:
            break;
    }
}

static void on_event(void *context, const struct wire_event *event) {
    (void)context;
    struct wire_request request;
    switch (event->type) {
        case WIRE_EVENT_FRAME:
            if (event->channel == WIRE_CHANNEL_MQTTSN) {
                mqttsn_client_receive(&self.client, event->data, event->data_bytes);
            } else if (event->channel == WIRE_CHANNEL_LINK) {
                on_link(event);
            } else if (wire_request_decode(event->data, event->data_bytes, &request)) {
                mqttsn_client_receive_request(&self.client, request.request_id, request.message, request.message_bytes);
            } else {
                self.links_unknown++;
            }
            break;
        case WIRE_EVENT_SMP_LINE:
        case WIRE_EVENT_TEXT:
            self.text_bytes_dropped += (uint32_t)event->data_bytes;
            break;
        case WIRE_EVENT_REJECTED:
            break;
    }
}

static enum mqttsn_return_code on_delivery(void *context, const struct mqttsn_delivery *delivery) {
    (void)context;
    self.command.command = command_of_topic(delivery->topic, delivery->topic_bytes, self.app->identity.board_id);
    if (self.command.command == COMMAND_IGNORED) {
        return MQTTSN_ACCEPTED;
    }
    if (delivery->data_bytes > sizeof self.command.payload) {
        return MQTTSN_NOT_SUPPORTED;
    }
    self.command.has_request = delivery->has_request;
    self.command.request = delivery->request;
    self.command.payload_bytes = (uint16_t)delivery->data_bytes;
    if (delivery->data_bytes > 0) {
        memcpy(self.command.payload, delivery->data, delivery->data_bytes);
    }
    // Counted first: the command task runs at once, and `stats` counts itself.
    self.app->commands_received++;
    if (xQueueSend(self.app->commands, &self.command, 0) != pdTRUE) {
        self.app->commands_received--;
        return MQTTSN_CONGESTION;
    }
    return MQTTSN_ACCEPTED;
}

static void fit_to_peer(void) {
    struct text error;
    size_t overhead = 1 + WIRE_REQUEST_HEADER_BYTES + MQTTSN_PUBLISH_HEADER_BYTES_MAX;
    if (self.answer.payload_bytes + overhead > self.peer_content_bytes_max) {
        error = text_begin(self.answer.payload, sizeof self.answer.payload);
        text_put(&error, "{\"error\":\"too_long\"}");
        self.answer.payload_bytes = (uint16_t)error.bytes;
    }
}

static void send_answers(void) {
    for (;;) {
        if (!self.answer_held) {
            if (xQueueReceive(self.app->answers, &self.answer, 0) != pdTRUE) {
                return;
            }
            self.answer_held = true;
            fit_to_peer();
        }
        enum mqttsn_publish_result result = self.answer.has_request
                                                ? mqttsn_client_answer(&self.client, &self.answer.request,
                                                                       self.answer.payload, self.answer.payload_bytes)
                                                : mqttsn_client_publish(&self.client, TOPIC_REPLY, 1, false,
                                                                        self.answer.payload, self.answer.payload_bytes);
        if (result == MQTTSN_PUBLISH_FULL) {
            return;
        }
        self.answer_held = false;
        self.app->commands_answered += result == MQTTSN_PUBLISH_OK;
        if (self.answer.effect == EFFECT_RESET || self.answer.effect == EFFECT_FAULT) {
            self.effect = self.answer.effect;
            self.effect_due_ms = app_now_ms() + EFFECT_MS_MAX;
        }
    }
}

// Once the answer has been acknowledged, or its time is over.
static void do_effect(void) {
    if (self.effect == EFFECT_NONE ||
        (mqttsn_client_slots_used(&self.client) > 0 && (int32_t)(self.effect_due_ms - app_now_ms()) > 0)) {
        return;
    }
    if (self.effect == EFFECT_RESET) {
        board_reset();
    }
    taskENTER_CRITICAL();
    checkin_stop(&self.app->checkin);
    taskEXIT_CRITICAL();
    self.effect = EFFECT_NONE;
}

// Returns the milliseconds until the next HELLO.
static uint32_t say_hello_when_due(void) {
    if (self.welcomed) {
        return UINT32_MAX;
    }
    int32_t left_ms = (int32_t)(self.hello_due_ms - app_now_ms());
    if (left_ms > 0) {
        return (uint32_t)left_ms;
    }
    if (self.hellos == HELLOS_BEFORE_PLAIN) {
        self.peer_content_bytes_max = WIRE_CONTENT_BYTES_UNKNOWN_PEER;
        mqttsn_client_set_window(&self.client, 0);
        connect_now();
    }
    self.hellos++;
    send_hello();
    uint32_t pause_ms = self.hello_pause_ms;
    self.hello_pause_ms = pause_ms * 2 < HELLO_MS_MAX ? pause_ms * 2 : HELLO_MS_MAX;
    self.hello_due_ms = app_now_ms() + pause_ms;
    return pause_ms;
}

static void receive(void) {
    uint8_t bytes[64];
    size_t count;
    while ((count = board_uart_read(bytes, sizeof bytes)) > 0) {
        wire_receiver_push(&self.receiver, bytes, count, app_now_ms());
    }
    wire_receiver_poll(&self.receiver, app_now_ms());
}

static void wake_sampling(void) {
    if (self.app->ring_awaited && ring_free(&self.app->ring) > 0) {
        self.app->ring_awaited = false;
        xTaskNotifyGive(self.app->tasks[TASK_SAMPLING]);
    }
}

static void name_topic(char *out, const char *before, const char *after) {
    struct text name = text_begin(out, TOPIC_BYTES_MAX - 1);
    text_put(&name, before);
    text_put(&name, self.app->identity.board_id);
    text_put(&name, after);
    out[name.bytes] = '\0';
}

static void begin(struct app *app) {
    self.app = app;
    self.ring_source =
        (struct ring_source){.ring = &app->ring, .lock = app_ring_lock, .unlock = app_ring_unlock, .context = app};
    self.readings = ring_source_open(&self.ring_source);

    name_topic(self.topic_names[TOPIC_TEMPERATURE], "dt/", "/temp");
    name_topic(self.topic_names[TOPIC_REPLY], "cmd/", "/reply");
    name_topic(self.filter, "cmd/", "/#");
    for (int i = 0; i < TOPIC_COUNT; i++) {
        self.topics[i] = (struct mqttsn_topic){.type = MQTTSN_TOPIC_NORMAL, .name = self.topic_names[i]};
    }
    self.subscription = (struct mqttsn_subscription){.filter = self.filter, .qos = 1};

    const struct mqttsn_client_config client = {
        .platform = {.now_ms = now_ms, .tx = send},
        .client_id = app->identity.board_id,
        .keepalive_s = KEEPALIVE_S,
        .retry_ms = RETRY_MS,
        .seed = wire_crc32(app->boot, app->identity.entropy, sizeof app->identity.entropy),
        .tx_buffer = self.tx_message,
        .tx_buffer_bytes = sizeof self.tx_message,
        .topics = self.topics,
        .topic_count = TOPIC_COUNT,
        .subscriptions = &self.subscription,
        .subscription_count = 1,
        .inbound = self.inbound,
        .inbound_count = INBOUND_COUNT,
        .slots = self.slots,
        .slot_count = SLOT_COUNT,
        .slot_data = self.slot_data,
        .slot_data_bytes = ANSWER_BYTES_MAX,
        .readings = &self.readings,
        .flight = self.flight,
        .flight_count = WINDOW,
        .on_delivery = on_delivery,
    };
    const struct wire_receiver_config receiver = {
        .buffer = self.rx_segment,
        .buffer_bytes = sizeof self.rx_segment,
        .content_bytes_max = CONTENT_BYTES_MAX,
        .channels = WIRE_CHANNEL_BIT(WIRE_CHANNEL_MQTTSN) | WIRE_CHANNEL_BIT(WIRE_CHANNEL_LINK) |
                    WIRE_CHANNEL_BIT(WIRE_CHANNEL_REQUEST),
        .on_event = on_event,
    };
    bool ready = mqttsn_client_init(&self.client, &client) && wire_receiver_init(&self.receiver, &receiver);
    configASSERT(ready);
    self.peer_content_bytes_max = WIRE_CONTENT_BYTES_UNKNOWN_PEER;
    self.hello_pause_ms = HELLO_MS;
    self.hello_due_ms = app_now_ms();
    board_uart_start(xTaskGetCurrentTaskHandle());
}

static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

// Sleep until woken. A line so fast that there is always something to do must leave others a tick all the same: their
// check-ins feed the watchdog.
static void rest(uint32_t wait_ms) {
    const uint32_t before_ms = app_now_ms();
    if (wait_ms > 0) {
        TickType_t ticks = pdMS_TO_TICKS(wait_ms);
        ulTaskNotifyTake(pdTRUE, ticks > 0 ? ticks : 1);
    }
    if (before_ms - self.rested_ms >= BUSY_MS_MAX) {
        vTaskDelay(1);
    }
    if (app_now_ms() != before_ms) {
        self.rested_ms = app_now_ms();
    }
}

_Noreturn void link_task(void *app) {
    begin(app);
    for (;;) {
        uint32_t wait_ms = CHECKIN_MS;
        app_check_in(app, TASK_LINK);
        receive();
        send_answers();
        wait_ms = least(wait_ms, say_hello_when_due());
        wait_ms = least(wait_ms, mqttsn_client_poll(&self.client));
        wait_ms = least(wait_ms, wire_receiver_next_ms(&self.receiver, app_now_ms()));
        if (self.answer_held || self.effect != EFFECT_NONE) {
            wait_ms = least(wait_ms, 10);
            do_effect();
        }
        wake_sampling();
        rest(wait_ms);
    }
}
