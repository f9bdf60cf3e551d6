/// Inside mqttsn only: how the client's files share one instance.

#ifndef EDGELOOP_MQTTSN_CLIENT_INTERNAL_H
#define EDGELOOP_MQTTSN_CLIENT_INTERNAL_H

#include "mqttsn/client.h"

#define MQTTSN_NO_TOPIC UINT8_MAX

/// --- client.c: time, sending, states ---

uint32_t mqttsn_now(const struct mqttsn_client *self);

/// Milliseconds left of a span begun at since; 0 when it is over.
uint32_t mqttsn_left_ms(uint32_t now_ms, uint32_t since_ms, uint32_t span_ms);

/// Encode and send. prefix: an envelope's header, at most 9 bytes. Returns false when it found no room.
bool mqttsn_send(struct mqttsn_client *self, uint8_t channel, const uint8_t *prefix, size_t prefix_bytes,
                 const struct mqttsn_message *message);
bool mqttsn_send_plain(struct mqttsn_client *self, const struct mqttsn_message *message);

/// Acknowledge now or, for want of room, at a later poll. When eight wait already the oldest is forgotten: the
/// gateway repeats what it gets no answer to.
void mqttsn_reply(struct mqttsn_client *self, enum mqttsn_type type, uint16_t topic_id, uint16_t msg_id,
                  uint8_t return_code);

/// Never 0, never one in use.
uint16_t mqttsn_next_msg_id(struct mqttsn_client *self);
void mqttsn_set_state(struct mqttsn_client *self, enum mqttsn_state state);

/// Somewhere from base / 2 to base.
uint32_t mqttsn_jittered(struct mqttsn_client *self, uint32_t base_ms);

/// The session is gone: pause, then CONNECT.
void mqttsn_lose_session(struct mqttsn_client *self);

/// A gateway without room: nothing but handshakes and replies is sent until the pause is over.
void mqttsn_note_congestion(struct mqttsn_client *self);
bool mqttsn_is_congested(const struct mqttsn_client *self, uint32_t now_ms);

/// Ask whether the gateway is still there.
void mqttsn_probe(struct mqttsn_client *self);

/// QoS 1 and 2 publishes that may be in flight.
size_t mqttsn_window(const struct mqttsn_client *self);
size_t mqttsn_slots_in_flight(const struct mqttsn_client *self);
size_t mqttsn_readings_in_flight(const struct mqttsn_client *self);

/// Every poll function sends what is due and returns the milliseconds until it is due again.
#define MQTTSN_NEVER UINT32_MAX
#define MQTTSN_NO_ROOM_MS 5U

static inline uint32_t mqttsn_sooner(uint32_t a_ms, uint32_t b_ms) {
    return a_ms < b_ms ? a_ms : b_ms;
}

/// --- client_session.c: CONNECT, DISCONNECT, PINGREQ, REGISTER, SUBSCRIBE ---

uint32_t mqttsn_poll_session(struct mqttsn_client *self, uint32_t now_ms);
uint32_t mqttsn_poll_ping(struct mqttsn_client *self, uint32_t now_ms);
uint32_t mqttsn_poll_transaction(struct mqttsn_client *self, uint32_t now_ms);
void mqttsn_begin_handshake(struct mqttsn_client *self, enum mqttsn_state state, enum mqttsn_type type);

/// Each takes one message that belongs to it; returns false when nobody waited for it.
bool mqttsn_session_receive(struct mqttsn_client *self, const struct mqttsn_message *message);
bool mqttsn_transaction_receive(struct mqttsn_client *self, const struct mqttsn_message *message);

/// A topic id the gateway does not know (any more): register again. Returns false for one that cannot be registered.
bool mqttsn_forget_topic(struct mqttsn_client *self, uint8_t topic);

/// --- client_publish.c ---

uint32_t mqttsn_poll_slots(struct mqttsn_client *self, uint32_t now_ms);
bool mqttsn_slots_receive(struct mqttsn_client *self, const struct mqttsn_message *message);
void mqttsn_slots_reconnected(struct mqttsn_client *self);

/// --- client_readings.c ---

uint32_t mqttsn_poll_readings(struct mqttsn_client *self, uint32_t now_ms);
bool mqttsn_readings_receive(struct mqttsn_client *self, const struct mqttsn_message *message);
void mqttsn_readings_reconnected(struct mqttsn_client *self);
bool mqttsn_readings_use_msg_id(const struct mqttsn_client *self, uint16_t msg_id);

#endif
