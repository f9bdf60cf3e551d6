#include "mqttsn/client.h"

#include <string.h>

#include "mqttsn/client_internal.h"

#define RETRY_MS 10000U
#define RETRIES 4U
#define GAP_MS 500U
#define BACKOFF_MS 500U
#define BACKOFF_MS_MAX 30000U
#define TX_BUFFER_BYTES_MIN 32U

static bool config_is_complete(const struct mqttsn_client_config *config) {
    const size_t id_bytes = config->client_id == NULL ? 0 : strlen(config->client_id);
    return config->platform.now_ms != NULL && config->platform.tx != NULL && id_bytes >= 1 && id_bytes <= 23 &&
           config->keepalive_s > 0 && config->tx_buffer != NULL && config->tx_buffer_bytes >= TX_BUFFER_BYTES_MIN &&
           config->on_delivery != NULL && config->topic_count < MQTTSN_NO_TOPIC && config->subscription_count < 256 &&
           (config->topic_count == 0 || config->topics != NULL) &&
           (config->subscription_count == 0 || config->subscriptions != NULL) &&
           (config->inbound_count == 0 || config->inbound != NULL) &&
           (config->slot_count == 0 || (config->slots != NULL && config->slot_data != NULL)) &&
           config->slot_data_bytes <= UINT16_MAX &&
           (config->readings == NULL ||
            (config->flight != NULL && config->flight_count > 0 && config->flight_count <= UINT8_MAX)) &&
           (config->will_data_bytes == 0 || config->will_data != NULL);
}

static uint32_t or_default(uint32_t value, uint32_t otherwise) {
    return value == 0 ? otherwise : value;
}

bool mqttsn_client_init(struct mqttsn_client *self, const struct mqttsn_client_config *config) {
    if (!config_is_complete(config)) {
        return false;
    }
    memset(self, 0, sizeof *self);
    self->config = *config;
    self->config.retry_ms = or_default(config->retry_ms, RETRY_MS);
    self->config.retries = (uint8_t)or_default(config->retries, RETRIES);
    self->config.gap_ms = or_default(config->gap_ms, GAP_MS);
    self->config.backoff_ms = or_default(config->backoff_ms, BACKOFF_MS);
    self->config.backoff_ms_max = or_default(config->backoff_ms_max, BACKOFF_MS_MAX);
    if (config->readings != NULL) {
        self->readings = *config->readings;
    }
    self->state = MQTTSN_STATE_IDLE;
    self->next_msg_id = 1;
    self->random = or_default(config->seed, 1);
    self->reconnect_backoff_ms = self->config.backoff_ms;
    self->congestion_backoff_ms = self->config.backoff_ms;
    for (size_t i = 0; i < config->topic_count; i++) {
        config->topics[i].progress = config->topics[i].type == MQTTSN_TOPIC_NORMAL ? MQTTSN_PENDING : MQTTSN_DONE;
    }
    for (size_t i = 0; i < config->subscription_count; i++) {
        config->subscriptions[i].progress = MQTTSN_PENDING;
        config->subscriptions[i].unwanted = false;
    }
    for (size_t i = 0; i < config->inbound_count; i++) {
        config->inbound[i].id = 0;
    }
    for (size_t i = 0; i < config->slot_count; i++) {
        config->slots[i].state = MQTTSN_SLOT_FREE;
    }
    return true;
}

// --- Time ---

uint32_t mqttsn_now(const struct mqttsn_client *self) {
    return self->config.platform.now_ms(self->config.platform.context);
}

uint32_t mqttsn_left_ms(uint32_t now_ms, uint32_t since_ms, uint32_t span_ms) {
    const uint32_t age_ms = now_ms - since_ms;
    return age_ms >= span_ms ? 0 : span_ms - age_ms;
}

uint32_t mqttsn_jittered(struct mqttsn_client *self, uint32_t base_ms) {
    // xorshift32: enough to keep boards apart.
    self->random ^= self->random << 13;
    self->random ^= self->random >> 17;
    self->random ^= self->random << 5;
    return base_ms / 2 + self->random % (base_ms / 2 + 1);
}

static uint32_t grown(const struct mqttsn_client *self, uint32_t backoff_ms) {
    const uint32_t most = self->config.backoff_ms_max;
    return backoff_ms >= most / 2 ? most : backoff_ms * 2;
}

// --- Sending ---

bool mqttsn_send(struct mqttsn_client *self, uint8_t channel, const uint8_t *prefix, size_t prefix_bytes,
                 const struct mqttsn_message *message) {
    uint8_t *buffer = self->config.tx_buffer;
    const size_t capacity = self->config.tx_buffer_bytes;
    if (prefix_bytes > 0) {
        memcpy(buffer, prefix, prefix_bytes);
    }
    const size_t bytes = mqttsn_encode(message, buffer + prefix_bytes, capacity - prefix_bytes);
    if (bytes == 0 || !self->config.platform.tx(self->config.platform.context, channel, buffer, prefix_bytes + bytes)) {
        return false;
    }
    self->last_tx_ms = mqttsn_now(self);
    return true;
}

bool mqttsn_send_plain(struct mqttsn_client *self, const struct mqttsn_message *message) {
    return mqttsn_send(self, MQTTSN_CHANNEL_PLAIN, NULL, 0, message);
}

static bool send_reply(struct mqttsn_client *self, enum mqttsn_type type, uint16_t topic_id, uint16_t msg_id,
                       uint8_t return_code) {
    const struct mqttsn_message message = {
        .type = type, .topic_id = topic_id, .msg_id = msg_id, .return_code = return_code};
    return mqttsn_send_plain(self, &message);
}

void mqttsn_reply(struct mqttsn_client *self, enum mqttsn_type type, uint16_t topic_id, uint16_t msg_id,
                  uint8_t return_code) {
    if (self->reply_count == 0 && send_reply(self, type, topic_id, msg_id, return_code)) {
        return;
    }
    if (self->reply_count == MQTTSN_REPLY_COUNT) {
        self->reply_count--;
        memmove(&self->replies[0], &self->replies[1], self->reply_count * sizeof self->replies[0]);
    }
    const size_t last = self->reply_count++;
    self->replies[last].type = type;
    self->replies[last].topic_id = topic_id;
    self->replies[last].msg_id = msg_id;
    self->replies[last].return_code = return_code;
}

static bool flush_replies(struct mqttsn_client *self) {
    size_t sent = 0;
    while (sent < self->reply_count && send_reply(self, self->replies[sent].type, self->replies[sent].topic_id,
                                                  self->replies[sent].msg_id, self->replies[sent].return_code)) {
        sent++;
    }
    self->reply_count = (uint8_t)(self->reply_count - sent);
    memmove(&self->replies[0], &self->replies[sent], self->reply_count * sizeof self->replies[0]);
    return self->reply_count == 0;
}

// --- Shared state ---

static bool msg_id_in_use(const struct mqttsn_client *self, uint16_t msg_id) {
    for (size_t i = 0; i < self->config.slot_count; i++) {
        const struct mqttsn_slot *slot = &self->config.slots[i];
        if (slot->state != MQTTSN_SLOT_FREE && slot->msg_id == msg_id) {
            return true;
        }
    }
    return mqttsn_readings_use_msg_id(self, msg_id);
}

uint16_t mqttsn_next_msg_id(struct mqttsn_client *self) {
    uint16_t msg_id = 0;
    do {
        msg_id = self->next_msg_id++;
    } while (msg_id == 0 || msg_id_in_use(self, msg_id));
    return msg_id;
}

void mqttsn_set_state(struct mqttsn_client *self, enum mqttsn_state state) {
    if (self->state != state) {
        self->state = state;
        if (self->config.on_state != NULL) {
            self->config.on_state(self->config.context, state);
        }
    }
}

void mqttsn_lose_session(struct mqttsn_client *self) {
    self->wait_since_ms = mqttsn_now(self);
    self->wait_ms = mqttsn_jittered(self, self->reconnect_backoff_ms);
    self->reconnect_backoff_ms = grown(self, self->reconnect_backoff_ms);
    if (self->state != MQTTSN_STATE_CONNECTING) {
        self->counters.reconnects++;
    }
    mqttsn_set_state(self, MQTTSN_STATE_WAITING);
}

void mqttsn_note_congestion(struct mqttsn_client *self) {
    const uint32_t now_ms = mqttsn_now(self);
    self->counters.congestions++;
    if (!mqttsn_is_congested(self, now_ms)) {
        self->congestion_since_ms = now_ms;
        self->congestion_ms = mqttsn_jittered(self, self->congestion_backoff_ms);
        self->congestion_backoff_ms = grown(self, self->congestion_backoff_ms);
    }
}

bool mqttsn_is_congested(const struct mqttsn_client *self, uint32_t now_ms) {
    return mqttsn_left_ms(now_ms, self->congestion_since_ms, self->congestion_ms) > 0;
}

size_t mqttsn_window(const struct mqttsn_client *self) {
    return self->window == 0 ? 1 : self->window;
}

// --- Calls ---

static bool is_attached(const struct mqttsn_client *self) {
    return self->state == MQTTSN_STATE_CONNECTED || self->state == MQTTSN_STATE_ASLEEP ||
           self->state == MQTTSN_STATE_AWAKE;
}

void mqttsn_client_start(struct mqttsn_client *self) {
    switch (self->state) {
        case MQTTSN_STATE_IDLE:
        case MQTTSN_STATE_DISCONNECTING:
        case MQTTSN_STATE_ASLEEP:
        case MQTTSN_STATE_AWAKE:
            mqttsn_begin_handshake(self, MQTTSN_STATE_CONNECTING, MQTTSN_CONNECT);
            break;
        default:
            break;
    }
}

void mqttsn_client_restart(struct mqttsn_client *self) {
    self->counters.reconnects += is_attached(self) ? 1U : 0U;
    self->reconnect_backoff_ms = self->config.backoff_ms;
    mqttsn_begin_handshake(self, MQTTSN_STATE_CONNECTING, MQTTSN_CONNECT);
}

void mqttsn_client_stop(struct mqttsn_client *self) {
    self->sleep_s = 0;
    if (self->state == MQTTSN_STATE_IDLE || self->state == MQTTSN_STATE_WAITING) {
        mqttsn_set_state(self, MQTTSN_STATE_IDLE);
    } else {
        mqttsn_begin_handshake(self, MQTTSN_STATE_DISCONNECTING, MQTTSN_DISCONNECT);
    }
}

void mqttsn_client_sleep(struct mqttsn_client *self, uint16_t duration_s) {
    if (is_attached(self) && duration_s > 0) {
        self->sleep_s = duration_s;
        mqttsn_begin_handshake(self, MQTTSN_STATE_DISCONNECTING, MQTTSN_DISCONNECT);
    }
}

void mqttsn_client_set_window(struct mqttsn_client *self, uint8_t window) {
    self->window = window;
}

uint32_t mqttsn_client_poll(struct mqttsn_client *self) {
    const uint32_t now_ms = mqttsn_now(self);
    if (self->state == MQTTSN_STATE_IDLE) {
        return MQTTSN_NEVER;
    }
    if (!mqttsn_is_congested(self, now_ms)) {
        self->congestion_ms = 0;  // Else the pause would come back when the clock wraps.
    }
    if (!flush_replies(self)) {
        return MQTTSN_NO_ROOM_MS;
    }
    uint32_t next_ms = mqttsn_poll_session(self, now_ms);
    // Each of these may lose the session; the others then find another state and rest.
    next_ms = mqttsn_sooner(next_ms, mqttsn_poll_ping(self, now_ms));
    next_ms = mqttsn_sooner(next_ms, mqttsn_poll_transaction(self, now_ms));
    next_ms = mqttsn_sooner(next_ms, mqttsn_poll_slots(self, now_ms));
    next_ms = mqttsn_sooner(next_ms, mqttsn_poll_readings(self, now_ms));
    if (self->state == MQTTSN_STATE_WAITING) {
        next_ms = mqttsn_left_ms(now_ms, self->wait_since_ms, self->wait_ms);
    }
    return next_ms;
}
