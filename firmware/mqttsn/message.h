/// MQTT-SN 1.2 messages: bytes to struct and back, all types, both directions.
///
/// Pure functions without state, heap or I/O. Clauses cited are those of "MQTT-SN Protocol Specification 1.2".

#ifndef EDGELOOP_MQTTSN_MESSAGE_H
#define EDGELOOP_MQTTSN_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// 5.2.2
enum mqttsn_type {
    MQTTSN_ADVERTISE = 0x00,
    MQTTSN_SEARCHGW = 0x01,
    MQTTSN_GWINFO = 0x02,
    MQTTSN_CONNECT = 0x04,
    MQTTSN_CONNACK = 0x05,
    MQTTSN_WILLTOPICREQ = 0x06,
    MQTTSN_WILLTOPIC = 0x07,
    MQTTSN_WILLMSGREQ = 0x08,
    MQTTSN_WILLMSG = 0x09,
    MQTTSN_REGISTER = 0x0A,
    MQTTSN_REGACK = 0x0B,
    MQTTSN_PUBLISH = 0x0C,
    MQTTSN_PUBACK = 0x0D,
    MQTTSN_PUBCOMP = 0x0E,
    MQTTSN_PUBREC = 0x0F,
    MQTTSN_PUBREL = 0x10,
    MQTTSN_SUBSCRIBE = 0x12,
    MQTTSN_SUBACK = 0x13,
    MQTTSN_UNSUBSCRIBE = 0x14,
    MQTTSN_UNSUBACK = 0x15,
    MQTTSN_PINGREQ = 0x16,
    MQTTSN_PINGRESP = 0x17,
    MQTTSN_DISCONNECT = 0x18,
    MQTTSN_WILLTOPICUPD = 0x1A,
    MQTTSN_WILLTOPICRESP = 0x1B,
    MQTTSN_WILLMSGUPD = 0x1C,
    MQTTSN_WILLMSGRESP = 0x1D,
    MQTTSN_ENCAPSULATED = 0xFE,  ///< struct mqttsn_encapsulation, with functions of its own.
};

/// 5.3.4, the two lowest flag bits.
enum mqttsn_topic_type {
    MQTTSN_TOPIC_NORMAL = 0,
    MQTTSN_TOPIC_PREDEFINED = 1,
    MQTTSN_TOPIC_SHORT = 2,  ///< topic_id holds the two characters, the first in the high byte.
};

/// 5.3.10
enum mqttsn_return_code {
    MQTTSN_ACCEPTED = 0,
    MQTTSN_CONGESTION = 1,
    MQTTSN_INVALID_TOPIC_ID = 2,
    MQTTSN_NOT_SUPPORTED = 3,
};

/// One message of any type. Fields a type does not have are zero after decoding and ignored when encoding.
struct mqttsn_message {
    enum mqttsn_type type;
    int8_t qos;                         ///< 0, 1, 2, or -1 (flag bits 11).
    enum mqttsn_topic_type topic_type;  ///< PUBLISH, SUBSCRIBE, UNSUBSCRIBE.
    bool dup;
    bool retain;
    bool will;
    bool clean_session;
    bool has_duration;    ///< DISCONNECT only: whether a duration is present.
    uint8_t return_code;  ///< enum mqttsn_return_code, or a reserved value.
    uint8_t gateway_id;
    uint8_t radius;
    uint8_t protocol_id;  ///< CONNECT: 1. Any value decodes.
    uint16_t duration_s;  ///< CONNECT's and DISCONNECT's Duration, ADVERTISE's.
    uint16_t topic_id;
    uint16_t msg_id;
    /// The one part of variable length a type can have: ClientId, TopicName, Data, WillTopic, WillMsg or GwAdd.
    /// Not terminated. Points into the bytes decoded; NULL when there is none.
    const uint8_t *data;
    size_t data_bytes;
};

enum mqttsn_result {
    MQTTSN_OK,
    MQTTSN_TOO_SHORT,     ///< Ends before the type's fixed part, or has no name where one is required.
    MQTTSN_BAD_LENGTH,    ///< The length field is not the length given, or bytes are left over after a fixed type.
    MQTTSN_UNKNOWN_TYPE,  ///< A reserved type, or an encapsulation where a plain message is due.
    MQTTSN_BAD_FLAGS,     ///< Reserved flags, topic id type 11, or QoS -1 where there is none.
    MQTTSN_RESULT_COUNT
};

/// "ok", "too_short", "bad_length", "unknown_type", "bad_flags". Static storage.
const char *mqttsn_result_name(enum mqttsn_result result);

/// "PUBLISH", …; NULL for a type the standard reserves. Static storage.
const char *mqttsn_type_name(unsigned type);

/// Longest header a message can have: PUBLISH with a three-byte length.
#define MQTTSN_PUBLISH_HEADER_BYTES_MAX 9U
/// Header of a PUBLISH of at most 255 bytes.
#define MQTTSN_PUBLISH_HEADER_BYTES 7U

/// data: exactly one message. Both forms of the length are taken for any length (5.2.1). A SUBSCRIBE or UNSUBSCRIBE by
/// predefined or short topic gives topic_id, by name gives data. A WILLTOPIC without flags is an empty one. Names are
/// not looked into: they may be any bytes. Return codes beyond 3 decode: a client takes them for a refusal.
/// out is written only on MQTTSN_OK.
enum mqttsn_result mqttsn_decode(const void *data, size_t data_bytes, struct mqttsn_message *out);

/// Returns the bytes written: the one-byte length up to 255, the three-byte length beyond. 0 when out is too small,
/// the message longer than 65,535 bytes or its type unknown. message->data may lie inside out only where it will
/// stand in the result.
size_t mqttsn_encode(const struct mqttsn_message *message, void *out, size_t out_capacity);

/// 5.5: a message passed on for a client that is not at this end of the line.
struct mqttsn_encapsulation {
    uint8_t radius;  ///< The two lowest bits of Ctrl.
    const uint8_t *node_id;
    size_t node_id_bytes;  ///< 1 to 252.
    const uint8_t *message;
    size_t message_bytes;
};

/// data: the whole frame. The pointers point into it. A further encapsulation inside is MQTTSN_UNKNOWN_TYPE.
enum mqttsn_result mqttsn_decode_encapsulation(const void *data, size_t data_bytes, struct mqttsn_encapsulation *out);

/// Returns the bytes written, 0 when out is too small or a length out of its range.
size_t mqttsn_encode_encapsulation(const struct mqttsn_encapsulation *encapsulation, void *out, size_t out_capacity);

#ifdef __cplusplus
}
#endif

#endif
