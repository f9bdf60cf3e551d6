/// An MQTT-SN 1.2 client on a frame line, as a state machine without I/O.
///
/// Messages come in by mqttsn_client_receive, go out by the platform's tx, time comes from its now_ms. Nothing happens
/// outside a call: after every call that can change anything, and no later than mqttsn_client_poll said, call
/// mqttsn_client_poll. All calls on one instance come from one task.
///
/// Two kinds of publishes leave a board.
///   Readings  stay in the caller's ring until they are acknowledged and are sent strictly in its order, a window of
///             them in flight, by go-back-N: a REWIND, a congested gateway or silence for retry_ms moves the next
///             one to be sent back. Readings of an earlier boot are settled before the first of the next is sent.
///   The rest  answers to commands, QoS 0, 1 and 2: copied into a slot of the caller's memory, sent in order, held
///             until acknowledged. They go before readings.
/// Both share the window the gateway granted, one of which readings leave to the rest. Without one (a plain gateway) a
/// window of one and no envelopes are used.
///
/// Losing the gateway: PINGREQ is the judge. It goes out when the line was quiet for the keep-alive and whenever an
/// acknowledgement is overdue; when retries of it stay unanswered the client connects again, with jittered, growing
/// pauses, and then registers, subscribes and sends all that is unacknowledged again. It never gives up.

#ifndef EDGELOOP_MQTTSN_CLIENT_H
#define EDGELOOP_MQTTSN_CLIENT_H

#include "mqttsn/message.h"

#ifdef __cplusplus
extern "C" {
#endif

/// --- What the client stands on --------------------------------------------------------------------------------

/// Channels handed to tx. The same values as wire.h's, which this module does not need otherwise.
#define MQTTSN_CHANNEL_PLAIN 0x01U
#define MQTTSN_CHANNEL_READING 0x02U
#define MQTTSN_CHANNEL_REQUEST 0x05U

struct mqttsn_platform {
    void *context;
    /// Milliseconds from any start; may wrap.
    uint32_t (*now_ms)(void *context);
    /// Send one frame. payload is the client's and valid during the call. Returns false when there is no room now:
    /// nothing was sent, and the client offers it again at a later poll.
    bool (*tx)(void *context, uint8_t channel, const uint8_t *payload, size_t payload_bytes);
};

/// --- Readings: the caller's ring ------------------------------------------------------------------------------

struct mqttsn_reading {
    uint32_t boot;
    uint32_t sequence;    ///< From 1 within a boot, without holes except where the ring shed.
    uint8_t topic;        ///< Index into the configuration's topics.
    const uint8_t *data;  ///< The PUBLISH's payload; valid until the next call to the source.
    size_t data_bytes;
};

/// A ring seen by position: positions count up by one an entry, wrap at 2^32, and never change for an entry held.
/// ring/ring.h fits: mqttsn/ring_source.h joins the two.
struct mqttsn_reading_source {
    void *context;
    uint32_t (*oldest)(void *context);  ///< Position of the oldest entry held; equal to end when empty.
    uint32_t (*end)(void *context);     ///< One past the newest.
    /// Returns false when the position is not held any more (shed) or its content is damaged: it is passed over.
    bool (*peek)(void *context, uint32_t position, struct mqttsn_reading *out);
    /// Everything before this position is settled and may go.
    void (*settle)(void *context, uint32_t before);
};

/// One reading in flight. Caller's memory, the client's content.
struct mqttsn_flight {
    uint32_t position;
    uint32_t boot;
    uint32_t sequence;
    uint32_t sent_ms;
    uint16_t msg_id;
    uint8_t tries;  ///< Times sent in this session.
    bool sent;      ///< Ever: what follows is a repeat.
    bool settled;
};

/// --- Topics, subscriptions, slots: the caller's tables ---------------------------------------------------------

enum mqttsn_progress {
    MQTTSN_PENDING,
    MQTTSN_DONE,
    MQTTSN_REFUSED,  ///< The gateway said no for another reason than congestion; tried again at the next CONNECT.
};

/// A topic the board publishes on. Set name for a normal one (it is registered after every CONNECT), id for the others.
struct mqttsn_topic {
    enum mqttsn_topic_type type;
    const char *name;               ///< Terminated; outlives the client.
    uint16_t id;                    ///< Predefined id, the two characters of a short topic, or what REGACK gave.
    enum mqttsn_progress progress;  ///< The client's.
};

struct mqttsn_subscription {
    enum mqttsn_topic_type type;
    const char *filter;  ///< Terminated; for normal topics.
    uint16_t id;         ///< For predefined and short topics; after SUBACK of a filter without wildcard its topic id.
    int8_t qos;          ///< Asked for; after SUBACK what was granted is in qos_granted.
    int8_t qos_granted;
    bool unwanted;                  ///< Set by mqttsn_client_unsubscribe.
    enum mqttsn_progress progress;  ///< The client's.
};

#define MQTTSN_INBOUND_NAME_BYTES_MAX 64U

/// A topic id the gateway registered with us, after a wildcard subscription. When the table is full the one least
/// recently used makes room: a message that comes for it is answered "invalid topic id", and the gateway registers it
/// again. Longer names are refused as not supported.
struct mqttsn_inbound {
    uint16_t id;  ///< 0: free.
    uint8_t name_bytes;
    char name[MQTTSN_INBOUND_NAME_BYTES_MAX];
    uint32_t used;  ///< The client's count at its last use.
};

enum mqttsn_slot_state {
    MQTTSN_SLOT_FREE,
    MQTTSN_SLOT_WAITING,    ///< To be sent (again).
    MQTTSN_SLOT_PUBLISHED,  ///< PUBACK or PUBREC is due.
    MQTTSN_SLOT_RELEASE,    ///< PUBREL to be sent (again).
    MQTTSN_SLOT_RELEASED,   ///< PUBCOMP is due.
};

/// A publish other than a reading. Caller's memory, the client's content.
struct mqttsn_slot {
    enum mqttsn_slot_state state;
    enum mqttsn_topic_type topic_type;
    int8_t qos;
    bool retain;
    bool dup;
    bool has_request;
    uint8_t tries;
    uint8_t topic;  ///< Index into topics; UINT8_MAX: topic_id is used as it is.
    uint16_t topic_id;
    uint16_t msg_id;
    uint16_t request_id;
    uint16_t data_bytes;
    uint32_t order;
    uint32_t sent_ms;
};

/// --- Deliveries -----------------------------------------------------------------------------------------------

/// What an answer needs to know of the request. Copy it, answer whenever ready.
struct mqttsn_request {
    uint16_t request_id;
    uint16_t topic_id;
    enum mqttsn_topic_type topic_type;
};

/// A message for the board. All pointers are valid during the call-back only.
struct mqttsn_delivery {
    const char *topic;  ///< Name, not terminated; for predefined ids of subscriptions without a filter NULL.
    size_t topic_bytes;
    enum mqttsn_topic_type topic_type;
    uint16_t topic_id;
    const uint8_t *data;
    size_t data_bytes;
    int8_t qos;
    bool retain;
    bool dup;
    bool has_request;  ///< An answer is wanted: mqttsn_client_answer with request.
    struct mqttsn_request request;
};

enum mqttsn_state {
    MQTTSN_STATE_IDLE,           ///< Before start, after disconnect.
    MQTTSN_STATE_WAITING,        ///< A pause before the next CONNECT.
    MQTTSN_STATE_CONNECTING,     ///< CONNECT sent; will messages are exchanged here too.
    MQTTSN_STATE_CONNECTED,      ///< Registrations and subscriptions go on here; see mqttsn_client_ready.
    MQTTSN_STATE_DISCONNECTING,  ///< DISCONNECT sent, with or without a duration.
    MQTTSN_STATE_ASLEEP,
    MQTTSN_STATE_AWAKE,  ///< PINGREQ with our id sent; deliveries come until PINGRESP.
};

/// Counters, part of the API; each wraps at 2^32.
struct mqttsn_counters {
    uint32_t rejected;       ///< Messages that do not decode or do not belong to a client.
    uint32_t unexpected;     ///< Sound, but nobody waited for them (late or repeated acknowledgements).
    uint32_t connects;       ///< CONNACK accepted.
    uint32_t reconnects;     ///< Sessions lost and begun again.
    uint32_t congestions;    ///< Return code "congestion", anywhere.
    uint32_t readings_sent;  ///< First transmissions.
    uint32_t readings_sent_again;
    uint32_t readings_acknowledged;
    uint32_t readings_refused;  ///< Settled by another return code than accepted: will never be taken.
    uint32_t readings_gone;     ///< Not in the ring any more when their turn came.
    uint32_t rewinds;
    uint32_t publishes_acknowledged;  ///< Slots.
    uint32_t publishes_refused;
    uint32_t retries;  ///< Of anything but readings.
    uint32_t delivered;
    uint32_t delivered_again;     ///< Repeats recognised and not told again.
    uint32_t refused_deliveries;  ///< Told, but the application did not take them, or their topic is unknown.
};

struct mqttsn_client_config {
    struct mqttsn_platform platform;

    const char *client_id;  ///< Terminated, 1 to 23 characters (5.3.1); outlives the client.
    uint16_t keepalive_s;   ///< Above 0.
    bool clean_session;
    const char *will_topic;  ///< NULL: no will. Terminated.
    const uint8_t *will_data;
    size_t will_data_bytes;
    int8_t will_qos;
    bool will_retain;

    uint32_t retry_ms;        ///< T_retry; 0 means 10,000.
    uint8_t retries;          ///< N_retry; 0 means 4.
    uint32_t gap_ms;          ///< How long the oldest reading may be overtaken before it alone is sent again; 0: 500.
    uint32_t backoff_ms;      ///< First pause after congestion or a lost session; doubles up to backoff_ms_max. 0: 500.
    uint32_t backoff_ms_max;  ///< 0: 30,000.
    uint32_t seed;            ///< For the jitter; any value, better different on each board.

    /// Where messages are built. Bounds every message sent, envelope included.
    uint8_t *tx_buffer;
    size_t tx_buffer_bytes;

    struct mqttsn_topic *topics;  ///< At most 254.
    size_t topic_count;
    struct mqttsn_subscription *subscriptions;
    size_t subscription_count;
    struct mqttsn_inbound *inbound;  ///< May be none, without wildcard subscriptions.
    size_t inbound_count;
    struct mqttsn_slot *slots;
    size_t slot_count;
    uint8_t *slot_data;  ///< slot_count times slot_data_bytes.
    size_t slot_data_bytes;

    const struct mqttsn_reading_source *readings;  ///< NULL: none. Outlives the client.
    struct mqttsn_flight *flight;
    size_t flight_count;  ///< The window to ask for in HELLO; at most 255.

    void *context;
    /// A message came. The return code answers it: for QoS 1 and 2 anything but MQTTSN_ACCEPTED makes the gateway
    /// keep it (CONGESTION) or drop it (NOT_SUPPORTED). Publish and answer may be called from here.
    enum mqttsn_return_code (*on_delivery)(void *context, const struct mqttsn_delivery *delivery);
    /// The state changed. May be NULL. Called from within the call that changed it; must not call the client.
    void (*on_state)(void *context, enum mqttsn_state state);
};

#define MQTTSN_SEEN_COUNT 8U
#define MQTTSN_REPLY_COUNT 8U

/// One client. 404 bytes on a Cortex-M3 beside the caller's tables; the library takes 8.4 kB of code there, its calls
/// at most 500 bytes of stack beside the call-backs'. Read the fields for diagnosis, write none.
///
/// Invariants. At most one handshake message and one transaction await an answer at a time. Entries in flight stand in
/// the ring's order; the first is never settled; those before flight_next were sent in the present pass; all that are
/// not settled are of one boot.
struct mqttsn_client {
    struct mqttsn_client_config config;
    struct mqttsn_reading_source readings;  ///< A copy of the configuration's.
    struct mqttsn_counters counters;
    enum mqttsn_state state;
    uint8_t window;  ///< Granted; 0: plain, a window of one without envelopes.
    uint16_t next_msg_id;
    uint32_t random;
    uint32_t last_tx_ms;
    uint32_t last_rx_ms;

    struct {
        enum mqttsn_type
            type;  ///< What is sent or awaits its answer: CONNECT, WILLTOPIC, WILLMSG, DISCONNECT, PINGREQ.
        bool sent;
        uint8_t tries;
        uint32_t sent_ms;
    } handshake;  ///< In CONNECTING, DISCONNECTING and AWAKE.

    struct {
        bool due;
        bool sent;
        uint8_t tries;
        uint32_t sent_ms;
    } ping;

    struct {
        enum mqttsn_type type;  ///< REGISTER, SUBSCRIBE or UNSUBSCRIBE; anything else: none under way.
        bool sent;
        uint8_t tries;
        uint8_t index;
        uint16_t msg_id;
        uint32_t sent_ms;
    } transaction;

    uint16_t sleep_s;  ///< Of the sleep asked for; 0: a plain disconnect.
    uint32_t wait_ms;  ///< Length of the pause (WAITING) or the sleep (ASLEEP) begun at wait_since_ms.
    uint32_t wait_since_ms;
    uint32_t reconnect_backoff_ms;
    uint32_t congestion_ms;  ///< Length of the pause begun at congestion_since_ms; 0: none.
    uint32_t congestion_since_ms;
    uint32_t congestion_backoff_ms;

    uint32_t slot_order;  ///< Slots taken so far.
    uint32_t inbound_uses;

    size_t flight_first;  ///< Index of the oldest entry in flight.
    size_t flight_held;   ///< Entries in flight, from flight_first on, around the array's end.
    size_t flight_next;   ///< How many of them were sent in the present pass.
    bool gap_open;        ///< A later one is settled while the first is not, since gap_since_ms.
    uint32_t gap_since_ms;

    uint8_t seen_request_count;
    uint16_t seen_requests[MQTTSN_SEEN_COUNT];  ///< Request ids taken lately: repeats are not told again.
    uint16_t held_qos2[MQTTSN_SEEN_COUNT];      ///< Message ids told, whose PUBREL is due; 0: free.
    uint8_t reply_count;
    struct {
        enum mqttsn_type type;
        uint8_t return_code;
        uint16_t topic_id;
        uint16_t msg_id;
    } replies[MQTTSN_REPLY_COUNT];  ///< Acknowledgements that found no room, the oldest first.
};

/// --- Calls ----------------------------------------------------------------------------------------------------

/// Copies the configuration; its tables stay the caller's, untouched by him from now on. Returns false when something
/// required is missing or out of range.
bool mqttsn_client_init(struct mqttsn_client *self, const struct mqttsn_client_config *config);

/// Connect, or wake up for good. The next poll sends CONNECT.
void mqttsn_client_start(struct mqttsn_client *self);

/// Connect anew from any state, at once and without a DISCONNECT: the gateway at the other end is known to have begun
/// anew. Counted as a reconnect when there was a session.
void mqttsn_client_restart(struct mqttsn_client *self);

/// Say DISCONNECT and stay idle. Slots and readings stay.
void mqttsn_client_stop(struct mqttsn_client *self);

/// Say DISCONNECT with a duration; once the gateway has answered the client is asleep, asks for what waits after
/// three quarters of the duration and falls asleep again, until mqttsn_client_start. duration_s: above 0. Nothing
/// happens unless the client is connected, asleep or awake.
void mqttsn_client_sleep(struct mqttsn_client *self, uint16_t duration_s);

/// The gateway's WELCOME: QoS 1 publishes it allows in flight. 0: it never said so (plain MQTT-SN, as after init).
void mqttsn_client_set_window(struct mqttsn_client *self, uint8_t window);

/// The gateway's REWIND: send again from this reading. One already settled or shed means from the oldest held.
void mqttsn_client_rewind(struct mqttsn_client *self, uint32_t boot, uint32_t sequence);

/// The content of a frame on the MQTTSN channel: one message.
void mqttsn_client_receive(struct mqttsn_client *self, const void *message, size_t message_bytes);

/// The content of a frame on the REQUEST channel, after its id: one PUBLISH.
void mqttsn_client_receive_request(struct mqttsn_client *self, uint16_t request_id, const void *message,
                                   size_t message_bytes);

/// Do what is due: retries, keep-alive, pauses over, readings that came into the ring, frames that found no room.
/// Returns the milliseconds until it is due again, UINT32_MAX when only something new can change anything.
/// When tx had no room the result is at most 5.
uint32_t mqttsn_client_poll(struct mqttsn_client *self);

enum mqttsn_publish_result {
    MQTTSN_PUBLISH_OK,
    MQTTSN_PUBLISH_FULL,      ///< No slot free (or for QoS -1: no room in tx). Try later.
    MQTTSN_PUBLISH_TOO_LONG,  ///< More than slot_data_bytes or tx_buffer_bytes hold.
    MQTTSN_PUBLISH_REFUSED,   ///< No such topic, or the gateway refused to register it, or a QoS it does not allow.
};

/// Publish on a topic of the table. data is copied. QoS 0 takes a slot until it is sent, QoS 1 and 2 until they are
/// acknowledged. QoS -1 is sent at once, in any state, on predefined and short topics only.
enum mqttsn_publish_result mqttsn_client_publish(struct mqttsn_client *self, size_t topic, int8_t qos, bool retain,
                                                 const void *data, size_t data_bytes);

/// Answer a request, with QoS 1, in a REQUEST frame. data is copied.
enum mqttsn_publish_result mqttsn_client_answer(struct mqttsn_client *self, const struct mqttsn_request *request,
                                                const void *data, size_t data_bytes);

/// Give up a subscription of the table, or take it up again.
void mqttsn_client_unsubscribe(struct mqttsn_client *self, size_t subscription);
void mqttsn_client_subscribe(struct mqttsn_client *self, size_t subscription);

/// Connected, and every topic and subscription settled one way or the other.
bool mqttsn_client_ready(const struct mqttsn_client *self);

/// Publishes that occupy slots.
size_t mqttsn_client_slots_used(const struct mqttsn_client *self);

#ifdef __cplusplus
}
#endif

#endif
