#include <string.h>

#include "mqttsn/client_internal.h"

// A type no transaction has.
#define NO_TRANSACTION MQTTSN_ADVERTISE

void mqttsn_begin_handshake(struct mqttsn_client *self, enum mqttsn_state state, enum mqttsn_type type) {
    self->handshake.type = type;
    self->handshake.sent = false;
    self->handshake.tries = 0;
    self->ping.due = false;
    self->ping.sent = false;
    mqttsn_set_state(self, state);
}

// --- Handshakes: CONNECT with its will, DISCONNECT, the PINGREQ of a sleeper ---

static bool send_handshake(struct mqttsn_client *self) {
    const struct mqttsn_client_config *config = &self->config;
    struct mqttsn_message message = {.type = self->handshake.type};
    switch (self->handshake.type) {
        case MQTTSN_CONNECT:
            message.will = config->will_topic != NULL;
            message.clean_session = config->clean_session;
            message.protocol_id = 1;
            message.duration_s = config->keepalive_s;
            message.data = (const uint8_t *)config->client_id;
            message.data_bytes = strlen(config->client_id);
            break;
        case MQTTSN_WILLTOPIC:
            message.qos = config->will_qos;
            message.retain = config->will_retain;
            message.data = (const uint8_t *)config->will_topic;
            message.data_bytes = config->will_topic == NULL ? 0 : strlen(config->will_topic);
            break;
        case MQTTSN_WILLMSG:
            message.data = config->will_data;
            message.data_bytes = config->will_data_bytes;
            break;
        case MQTTSN_DISCONNECT:
            message.has_duration = self->sleep_s > 0;
            message.duration_s = self->sleep_s;
            break;
        default:  // PINGREQ
            message.data = (const uint8_t *)config->client_id;
            message.data_bytes = strlen(config->client_id);
            break;
    }
    return mqttsn_send_plain(self, &message);
}

static uint32_t poll_handshake(struct mqttsn_client *self, uint32_t now_ms) {
    const uint32_t left_ms = mqttsn_left_ms(now_ms, self->handshake.sent_ms, self->config.retry_ms);
    if (self->handshake.sent && left_ms > 0) {
        return left_ms;
    }
    if (self->handshake.sent) {
        self->handshake.tries++;
        self->counters.retries++;
        if (self->handshake.tries > self->config.retries) {
            if (self->state == MQTTSN_STATE_DISCONNECTING && self->sleep_s == 0) {
                mqttsn_set_state(self, MQTTSN_STATE_IDLE);
            } else {
                mqttsn_lose_session(self);
            }
            return MQTTSN_NEVER;
        }
        if (self->state == MQTTSN_STATE_CONNECTING) {
            // Whatever of the exchange was lost: it begins anew.
            self->handshake.type = MQTTSN_CONNECT;
        }
    }
    self->handshake.sent = send_handshake(self);
    self->handshake.sent_ms = now_ms;
    return self->handshake.sent ? self->config.retry_ms : MQTTSN_NO_ROOM_MS;
}

uint32_t mqttsn_poll_session(struct mqttsn_client *self, uint32_t now_ms) {
    if (self->state == MQTTSN_STATE_WAITING || self->state == MQTTSN_STATE_ASLEEP) {
        const uint32_t left_ms = mqttsn_left_ms(now_ms, self->wait_since_ms, self->wait_ms);
        if (left_ms > 0) {
            return left_ms;
        }
        if (self->state == MQTTSN_STATE_WAITING) {
            mqttsn_begin_handshake(self, MQTTSN_STATE_CONNECTING, MQTTSN_CONNECT);
        } else {
            mqttsn_begin_handshake(self, MQTTSN_STATE_AWAKE, MQTTSN_PINGREQ);
        }
    }
    if (self->state == MQTTSN_STATE_CONNECTED) {
        return MQTTSN_NEVER;
    }
    return poll_handshake(self, now_ms);
}

static void begin_session(struct mqttsn_client *self) {
    const struct mqttsn_client_config *config = &self->config;
    self->counters.connects++;
    self->transaction.type = NO_TRANSACTION;
    self->sleep_s = 0;
    for (size_t i = 0; i < config->topic_count; i++) {
        config->topics[i].progress = config->topics[i].type == MQTTSN_TOPIC_NORMAL ? MQTTSN_PENDING : MQTTSN_DONE;
    }
    for (size_t i = 0; i < config->subscription_count; i++) {
        config->subscriptions[i].progress =
            config->subscriptions[i].unwanted && config->clean_session ? MQTTSN_DONE : MQTTSN_PENDING;
    }
    if (config->clean_session) {
        for (size_t i = 0; i < config->inbound_count; i++) {
            config->inbound[i].id = 0;
        }
        memset(self->held_qos2, 0, sizeof self->held_qos2);
        self->seen_request_count = 0;
    }
    mqttsn_slots_reconnected(self);
    mqttsn_readings_reconnected(self);
    mqttsn_set_state(self, MQTTSN_STATE_CONNECTED);
}

static void fall_asleep(struct mqttsn_client *self) {
    self->wait_since_ms = mqttsn_now(self);
    // Early enough for retries before the gateway gives the sleeper up.
    self->wait_ms = (uint32_t)self->sleep_s * 750U;
    mqttsn_set_state(self, MQTTSN_STATE_ASLEEP);
}

static bool receive_connack(struct mqttsn_client *self, uint8_t return_code) {
    if (self->state != MQTTSN_STATE_CONNECTING || !self->handshake.sent) {
        return false;
    }
    if (return_code == MQTTSN_ACCEPTED) {
        begin_session(self);
        return true;
    }
    self->counters.congestions += return_code == MQTTSN_CONGESTION ? 1U : 0U;
    mqttsn_lose_session(self);
    return true;
}

static bool receive_disconnect(struct mqttsn_client *self) {
    switch (self->state) {
        case MQTTSN_STATE_DISCONNECTING:
            if (self->sleep_s > 0) {
                fall_asleep(self);
            } else {
                mqttsn_set_state(self, MQTTSN_STATE_IDLE);
            }
            return true;
        case MQTTSN_STATE_CONNECTED:
        case MQTTSN_STATE_AWAKE:
            mqttsn_lose_session(self);
            return true;
        default:
            // Asleep: a repeat of the answer that let us sleep.
            return false;
    }
}

static bool answer_will_request(struct mqttsn_client *self, enum mqttsn_type type) {
    if (self->state != MQTTSN_STATE_CONNECTING || self->config.will_topic == NULL) {
        return false;
    }
    self->handshake.type = type;
    self->handshake.sent = false;
    return true;
}

bool mqttsn_session_receive(struct mqttsn_client *self, const struct mqttsn_message *message) {
    switch (message->type) {
        case MQTTSN_CONNACK:
            return receive_connack(self, message->return_code);
        case MQTTSN_WILLTOPICREQ:
            return answer_will_request(self, MQTTSN_WILLTOPIC);
        case MQTTSN_WILLMSGREQ:
            return answer_will_request(self, MQTTSN_WILLMSG);
        case MQTTSN_DISCONNECT:
            return receive_disconnect(self);
        default:  // PINGRESP
            if (self->state == MQTTSN_STATE_AWAKE) {
                fall_asleep(self);
                return true;
            }
            if (self->state == MQTTSN_STATE_CONNECTED) {
                self->reconnect_backoff_ms = self->config.backoff_ms;
                return true;
            }
            return false;
    }
}

// --- Keep-alive ---

void mqttsn_probe(struct mqttsn_client *self) {
    self->ping.due = true;
}

uint32_t mqttsn_poll_ping(struct mqttsn_client *self, uint32_t now_ms) {
    const uint32_t keepalive_ms = (uint32_t)self->config.keepalive_s * 1000U;
    if (self->state != MQTTSN_STATE_CONNECTED) {
        return MQTTSN_NEVER;
    }
    if (self->ping.sent) {
        const uint32_t left_ms = mqttsn_left_ms(now_ms, self->ping.sent_ms, self->config.retry_ms);
        if (left_ms > 0) {
            return left_ms;
        }
        if (self->ping.tries == self->config.retries) {
            mqttsn_lose_session(self);
            return MQTTSN_NEVER;
        }
        self->ping.due = true;
    }
    const uint32_t quiet_ms = mqttsn_sooner(mqttsn_left_ms(now_ms, self->last_tx_ms, keepalive_ms / 4 * 3),
                                            mqttsn_left_ms(now_ms, self->last_rx_ms, keepalive_ms));
    if (quiet_ms > 0 && !self->ping.due) {
        return quiet_ms;
    }
    const struct mqttsn_message ping = {.type = MQTTSN_PINGREQ};
    if (!mqttsn_send_plain(self, &ping)) {
        return MQTTSN_NO_ROOM_MS;
    }
    self->ping.tries = (uint8_t)(self->ping.sent ? self->ping.tries + 1 : 0);
    self->counters.retries += self->ping.sent ? 1U : 0U;
    self->ping.due = false;
    self->ping.sent = true;
    self->ping.sent_ms = now_ms;
    return self->config.retry_ms;
}

// --- Transactions: REGISTER, SUBSCRIBE, UNSUBSCRIBE, one at a time (6.5, 6.9) ---

static bool transaction_is_open(const struct mqttsn_client *self) {
    return self->transaction.type != NO_TRANSACTION;
}

// Topics come first: readings wait for them.
static bool choose_transaction(struct mqttsn_client *self) {
    for (size_t i = 0; i < self->config.topic_count; i++) {
        if (self->config.topics[i].progress == MQTTSN_PENDING) {
            self->transaction.type = MQTTSN_REGISTER;
            self->transaction.index = (uint8_t)i;
            return true;
        }
    }
    for (size_t i = 0; i < self->config.subscription_count; i++) {
        if (self->config.subscriptions[i].progress == MQTTSN_PENDING) {
            self->transaction.type = self->config.subscriptions[i].unwanted ? MQTTSN_UNSUBSCRIBE : MQTTSN_SUBSCRIBE;
            self->transaction.index = (uint8_t)i;
            return true;
        }
    }
    return false;
}

static bool send_transaction(struct mqttsn_client *self) {
    struct mqttsn_message message = {.type = self->transaction.type, .msg_id = self->transaction.msg_id};
    const char *name = NULL;
    if (self->transaction.type == MQTTSN_REGISTER) {
        name = self->config.topics[self->transaction.index].name;
    } else {
        const struct mqttsn_subscription *subscription = &self->config.subscriptions[self->transaction.index];
        message.dup = self->transaction.tries > 0;
        message.qos = subscription->qos;
        message.topic_type = subscription->type;
        message.topic_id = subscription->id;
        name = subscription->type == MQTTSN_TOPIC_NORMAL ? subscription->filter : NULL;
    }
    message.data = (const uint8_t *)name;
    message.data_bytes = name == NULL ? 0 : strlen(name);
    return mqttsn_send_plain(self, &message);
}

uint32_t mqttsn_poll_transaction(struct mqttsn_client *self, uint32_t now_ms) {
    if (self->state != MQTTSN_STATE_CONNECTED) {
        return MQTTSN_NEVER;
    }
    if (mqttsn_is_congested(self, now_ms)) {
        return mqttsn_left_ms(now_ms, self->congestion_since_ms, self->congestion_ms);
    }
    if (!transaction_is_open(self)) {
        if (!choose_transaction(self)) {
            return MQTTSN_NEVER;
        }
        self->transaction.msg_id = mqttsn_next_msg_id(self);
        self->transaction.tries = 0;
        self->transaction.sent = false;
    }
    if (self->transaction.sent) {
        const uint32_t left_ms = mqttsn_left_ms(now_ms, self->transaction.sent_ms, self->config.retry_ms);
        if (left_ms > 0) {
            return left_ms;
        }
        self->transaction.tries++;
        self->counters.retries++;
        if (self->transaction.tries > self->config.retries) {
            mqttsn_lose_session(self);
            return MQTTSN_NEVER;
        }
    }
    self->transaction.sent = send_transaction(self);
    self->transaction.sent_ms = now_ms;
    return self->transaction.sent ? self->config.retry_ms : MQTTSN_NO_ROOM_MS;
}

bool mqttsn_transaction_receive(struct mqttsn_client *self, const struct mqttsn_message *message) {
    const enum mqttsn_type type = self->transaction.type;
    const bool fits = (message->type == MQTTSN_REGACK && type == MQTTSN_REGISTER) ||
                      (message->type == MQTTSN_SUBACK && type == MQTTSN_SUBSCRIBE) ||
                      (message->type == MQTTSN_UNSUBACK && type == MQTTSN_UNSUBSCRIBE);
    if (self->state != MQTTSN_STATE_CONNECTED || !fits || !self->transaction.sent ||
        message->msg_id != self->transaction.msg_id) {
        return false;
    }
    self->transaction.type = NO_TRANSACTION;
    if (message->return_code == MQTTSN_CONGESTION) {
        mqttsn_note_congestion(self);
        return true;
    }
    const bool accepted = message->return_code == MQTTSN_ACCEPTED;
    if (accepted) {
        self->reconnect_backoff_ms = self->config.backoff_ms;
    }
    if (type == MQTTSN_REGISTER) {
        struct mqttsn_topic *topic = &self->config.topics[self->transaction.index];
        topic->progress = accepted ? MQTTSN_DONE : MQTTSN_REFUSED;
        topic->id = accepted ? message->topic_id : 0;
        return true;
    }
    struct mqttsn_subscription *subscription = &self->config.subscriptions[self->transaction.index];
    if (subscription->unwanted != (type == MQTTSN_UNSUBSCRIBE)) {
        return true;  // The application changed its mind meanwhile: still pending.
    }
    subscription->progress = accepted ? MQTTSN_DONE : MQTTSN_REFUSED;
    if (type == MQTTSN_SUBSCRIBE && accepted) {
        subscription->qos_granted = message->qos;
        subscription->id = subscription->type == MQTTSN_TOPIC_NORMAL ? message->topic_id : subscription->id;
    }
    return true;
}

bool mqttsn_forget_topic(struct mqttsn_client *self, uint8_t topic) {
    if (topic >= self->config.topic_count || self->config.topics[topic].type != MQTTSN_TOPIC_NORMAL) {
        return false;
    }
    self->config.topics[topic].progress = MQTTSN_PENDING;
    return true;
}

void mqttsn_client_unsubscribe(struct mqttsn_client *self, size_t subscription) {
    if (subscription < self->config.subscription_count && !self->config.subscriptions[subscription].unwanted) {
        self->config.subscriptions[subscription].unwanted = true;
        self->config.subscriptions[subscription].progress = MQTTSN_PENDING;
    }
}

void mqttsn_client_subscribe(struct mqttsn_client *self, size_t subscription) {
    if (subscription < self->config.subscription_count && self->config.subscriptions[subscription].unwanted) {
        self->config.subscriptions[subscription].unwanted = false;
        self->config.subscriptions[subscription].progress = MQTTSN_PENDING;
    }
}

bool mqttsn_client_ready(const struct mqttsn_client *self) {
    for (size_t i = 0; i < self->config.topic_count; i++) {
        if (self->config.topics[i].progress == MQTTSN_PENDING) {
            return false;
        }
    }
    for (size_t i = 0; i < self->config.subscription_count; i++) {
        if (self->config.subscriptions[i].progress == MQTTSN_PENDING) {
            return false;
        }
    }
    return self->state == MQTTSN_STATE_CONNECTED;
}
