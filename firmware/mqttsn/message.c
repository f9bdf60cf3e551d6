#include "mqttsn/message.h"

#include <string.h>

#include "wire/bytes.h"

// 5.3.4
#define FLAG_DUP 0x80U
#define FLAG_QOS_SHIFT 5U
#define FLAG_QOS_MASK 3U
#define FLAG_RETAIN 0x10U
#define FLAG_WILL 0x08U
#define FLAG_CLEAN_SESSION 0x04U
#define FLAG_TOPIC_TYPE_MASK 3U

#define LONG_LENGTH_MARK 0x01U

// What a type is made of, in the order it stands in the message.
enum part {
    PART_FLAGS = 1 << 0,
    PART_PROTOCOL_ID = 1 << 1,
    PART_GATEWAY_ID = 1 << 2,
    PART_RADIUS = 1 << 3,
    PART_DURATION = 1 << 4,
    PART_TOPIC_ID = 1 << 5,
    PART_MSG_ID = 1 << 6,
    PART_RETURN_CODE = 1 << 7,
    PART_DATA = 1 << 8,          // may be empty
    PART_NAME = 1 << 9,          // at least one byte
    PART_TOPIC = 1 << 10,        // a name, or a topic id when the flags say so
    PART_FLAGS_IF_ANY = 1 << 11  // WILLTOPIC, WILLTOPICUPD: no flags and no topic, or both
};

struct form {
    const char *name;
    uint16_t parts;
};

static const struct form forms[] = {
    [MQTTSN_ADVERTISE] = {"ADVERTISE", PART_GATEWAY_ID | PART_DURATION},
    [MQTTSN_SEARCHGW] = {"SEARCHGW", PART_RADIUS},
    [MQTTSN_GWINFO] = {"GWINFO", PART_GATEWAY_ID | PART_DATA},
    [MQTTSN_CONNECT] = {"CONNECT", PART_FLAGS | PART_PROTOCOL_ID | PART_DURATION | PART_NAME},
    [MQTTSN_CONNACK] = {"CONNACK", PART_RETURN_CODE},
    [MQTTSN_WILLTOPICREQ] = {"WILLTOPICREQ", 0},
    [MQTTSN_WILLTOPIC] = {"WILLTOPIC", PART_FLAGS_IF_ANY | PART_DATA},
    [MQTTSN_WILLMSGREQ] = {"WILLMSGREQ", 0},
    [MQTTSN_WILLMSG] = {"WILLMSG", PART_DATA},
    [MQTTSN_REGISTER] = {"REGISTER", PART_TOPIC_ID | PART_MSG_ID | PART_NAME},
    [MQTTSN_REGACK] = {"REGACK", PART_TOPIC_ID | PART_MSG_ID | PART_RETURN_CODE},
    [MQTTSN_PUBLISH] = {"PUBLISH", PART_FLAGS | PART_TOPIC_ID | PART_MSG_ID | PART_DATA},
    [MQTTSN_PUBACK] = {"PUBACK", PART_TOPIC_ID | PART_MSG_ID | PART_RETURN_CODE},
    [MQTTSN_PUBCOMP] = {"PUBCOMP", PART_MSG_ID},
    [MQTTSN_PUBREC] = {"PUBREC", PART_MSG_ID},
    [MQTTSN_PUBREL] = {"PUBREL", PART_MSG_ID},
    [MQTTSN_SUBSCRIBE] = {"SUBSCRIBE", PART_FLAGS | PART_MSG_ID | PART_TOPIC},
    [MQTTSN_SUBACK] = {"SUBACK", PART_FLAGS | PART_TOPIC_ID | PART_MSG_ID | PART_RETURN_CODE},
    [MQTTSN_UNSUBSCRIBE] = {"UNSUBSCRIBE", PART_FLAGS | PART_MSG_ID | PART_TOPIC},
    [MQTTSN_UNSUBACK] = {"UNSUBACK", PART_MSG_ID},
    [MQTTSN_PINGREQ] = {"PINGREQ", PART_DATA},
    [MQTTSN_PINGRESP] = {"PINGRESP", 0},
    [MQTTSN_DISCONNECT] = {"DISCONNECT", 0},  // an optional duration, handled by name
    [MQTTSN_WILLTOPICUPD] = {"WILLTOPICUPD", PART_FLAGS_IF_ANY | PART_DATA},
    [MQTTSN_WILLTOPICRESP] = {"WILLTOPICRESP", PART_RETURN_CODE},
    [MQTTSN_WILLMSGUPD] = {"WILLMSGUPD", PART_DATA},
    [MQTTSN_WILLMSGRESP] = {"WILLMSGRESP", PART_RETURN_CODE},
};

#define FORM_COUNT (sizeof forms / sizeof forms[0])

const char *mqttsn_result_name(enum mqttsn_result result) {
    static const char *const names[MQTTSN_RESULT_COUNT] = {"ok", "too_short", "bad_length", "unknown_type",
                                                           "bad_flags"};
    return (unsigned)result < MQTTSN_RESULT_COUNT ? names[result] : "";
}

const char *mqttsn_type_name(unsigned type) {
    return type < FORM_COUNT ? forms[type].name : type == MQTTSN_ENCAPSULATED ? "ENCAPSULATED" : NULL;
}

// --- Decoding ---

// Length and type. length counts the header.
static enum mqttsn_result read_header(const uint8_t *in, size_t in_bytes, size_t *header, size_t *length,
                                      uint8_t *type) {
    if (in_bytes > 0 && in[0] == LONG_LENGTH_MARK) {
        if (in_bytes < 4) {
            return MQTTSN_BAD_LENGTH;
        }
        *header = 4;
        *length = get_u16(in + 1);
    } else {
        if (in_bytes < 2) {
            return MQTTSN_TOO_SHORT;
        }
        *header = 2;
        *length = in[0];
    }
    *type = in[*header - 1];
    return *length == in_bytes ? MQTTSN_OK : MQTTSN_BAD_LENGTH;
}

// Flags a type may set; the others are reserved or meaningless there.
static unsigned flags_of_type(enum mqttsn_type type) {
    const unsigned qos = FLAG_QOS_MASK << FLAG_QOS_SHIFT;
    switch (type) {
        case MQTTSN_CONNECT:
            return FLAG_WILL | FLAG_CLEAN_SESSION;
        case MQTTSN_WILLTOPIC:
        case MQTTSN_WILLTOPICUPD:
            return qos | FLAG_RETAIN;
        case MQTTSN_PUBLISH:
            return FLAG_DUP | qos | FLAG_RETAIN | FLAG_TOPIC_TYPE_MASK;
        case MQTTSN_SUBSCRIBE:
            return FLAG_DUP | qos | FLAG_TOPIC_TYPE_MASK;
        case MQTTSN_SUBACK:
            return qos;
        default:  // UNSUBSCRIBE
            return FLAG_TOPIC_TYPE_MASK;
    }
}

static bool read_flags(uint8_t flags, struct mqttsn_message *out) {
    const unsigned qos = flags >> FLAG_QOS_SHIFT & FLAG_QOS_MASK;
    const unsigned topic_type = flags & FLAG_TOPIC_TYPE_MASK;
    const bool anonymous = qos == 3;
    const bool anonymous_allowed = out->type == MQTTSN_PUBLISH && topic_type != MQTTSN_TOPIC_NORMAL;
    if ((flags & ~flags_of_type(out->type)) != 0 || topic_type > MQTTSN_TOPIC_SHORT ||
        (anonymous && !anonymous_allowed)) {
        return false;
    }
    out->qos = (int8_t)(anonymous ? -1 : (int)qos);
    out->topic_type = (enum mqttsn_topic_type)topic_type;
    out->dup = (flags & FLAG_DUP) != 0;
    out->retain = (flags & FLAG_RETAIN) != 0;
    out->will = (flags & FLAG_WILL) != 0;
    out->clean_session = (flags & FLAG_CLEAN_SESSION) != 0;
    return true;
}

static size_t fixed_bytes(unsigned parts) {
    static const uint8_t sizes[] = {1, 1, 1, 1, 2, 2, 2, 1};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof sizes; i++) {
        bytes += (parts >> i & 1U) != 0 ? sizes[i] : 0U;
    }
    return bytes;
}

// What follows the fixed parts.
static enum mqttsn_result read_tail(unsigned parts, const uint8_t *in, size_t in_bytes, struct mqttsn_message *out) {
    if (out->type == MQTTSN_DISCONNECT && in_bytes == 2) {
        out->has_duration = true;
        out->duration_s = get_u16(in);
        return MQTTSN_OK;
    }
    if (out->type == MQTTSN_DISCONNECT && in_bytes == 1) {
        return MQTTSN_TOO_SHORT;
    }
    if ((parts & PART_FLAGS_IF_ANY) != 0 && in_bytes > 0) {
        if (in_bytes == 1) {
            return MQTTSN_TOO_SHORT;
        }
        if (!read_flags(in[0], out)) {
            return MQTTSN_BAD_FLAGS;
        }
        in++;
        in_bytes--;
    }
    if ((parts & PART_TOPIC) != 0 && out->topic_type != MQTTSN_TOPIC_NORMAL) {
        if (in_bytes < 2) {
            return MQTTSN_TOO_SHORT;
        }
        out->topic_id = get_u16(in);
        return in_bytes == 2 ? MQTTSN_OK : MQTTSN_BAD_LENGTH;
    }
    if ((parts & (PART_NAME | PART_TOPIC)) != 0 && in_bytes == 0) {
        return MQTTSN_TOO_SHORT;
    }
    if ((parts & (PART_DATA | PART_NAME | PART_TOPIC)) == 0 && in_bytes > 0) {
        return MQTTSN_BAD_LENGTH;
    }
    if (in_bytes > 0) {
        out->data = in;
        out->data_bytes = in_bytes;
    }
    return MQTTSN_OK;
}

enum mqttsn_result mqttsn_decode(const void *data, size_t data_bytes, struct mqttsn_message *out) {
    const uint8_t *in = (const uint8_t *)data;
    struct mqttsn_message message = {.type = MQTTSN_ADVERTISE};
    size_t header = 0;
    size_t length = 0;
    uint8_t type = 0;
    const enum mqttsn_result framed = read_header(in, data_bytes, &header, &length, &type);
    if (framed != MQTTSN_OK) {
        return framed;
    }
    if (type >= FORM_COUNT || forms[type].name == NULL) {
        return MQTTSN_UNKNOWN_TYPE;
    }
    const unsigned parts = forms[type].parts;
    const uint8_t *end = in + length;
    in += header;
    if ((size_t)(end - in) < fixed_bytes(parts)) {
        return MQTTSN_TOO_SHORT;
    }
    message.type = (enum mqttsn_type)type;
    if ((parts & PART_FLAGS) != 0) {
        if (!read_flags(*in++, &message)) {
            return MQTTSN_BAD_FLAGS;
        }
    }
    if ((parts & PART_PROTOCOL_ID) != 0) {
        message.protocol_id = *in++;
    }
    if ((parts & PART_GATEWAY_ID) != 0) {
        message.gateway_id = *in++;
    }
    if ((parts & PART_RADIUS) != 0) {
        message.radius = *in++;
    }
    if ((parts & PART_DURATION) != 0) {
        message.duration_s = get_u16(in);
        in += 2;
    }
    if ((parts & PART_TOPIC_ID) != 0) {
        message.topic_id = get_u16(in);
        in += 2;
    }
    if ((parts & PART_MSG_ID) != 0) {
        message.msg_id = get_u16(in);
        in += 2;
    }
    if ((parts & PART_RETURN_CODE) != 0) {
        message.return_code = *in++;
    }
    const enum mqttsn_result result = read_tail(parts, in, (size_t)(end - in), &message);
    if (result == MQTTSN_OK) {
        *out = message;
    }
    return result;
}

// --- Encoding ---

static uint8_t flags_of(const struct mqttsn_message *message) {
    const unsigned qos = message->qos < 0 ? 3U : (unsigned)message->qos & FLAG_QOS_MASK;
    const unsigned flags = (message->dup ? FLAG_DUP : 0U) | qos << FLAG_QOS_SHIFT |
                           (message->retain ? FLAG_RETAIN : 0U) | (message->will ? FLAG_WILL : 0U) |
                           (message->clean_session ? FLAG_CLEAN_SESSION : 0U) | (unsigned)message->topic_type;
    return (uint8_t)(flags & flags_of_type(message->type));
}

size_t mqttsn_encode(const struct mqttsn_message *message, void *out, size_t out_capacity) {
    uint8_t *to = (uint8_t *)out;
    if ((unsigned)message->type >= FORM_COUNT || forms[message->type].name == NULL) {
        return 0;
    }
    const unsigned parts = forms[message->type].parts;
    const bool by_id = (parts & PART_TOPIC) != 0 && message->topic_type != MQTTSN_TOPIC_NORMAL;
    const bool with_data = (parts & (PART_DATA | PART_NAME | PART_TOPIC)) != 0 && !by_id;
    const bool with_duration = message->type == MQTTSN_DISCONNECT && message->has_duration;
    const size_t data_bytes = with_data ? message->data_bytes : 0;
    const bool late_flags = (parts & PART_FLAGS_IF_ANY) != 0 && data_bytes > 0;
    if (data_bytes > UINT16_MAX || ((parts & (PART_NAME | PART_TOPIC)) != 0 && !by_id && data_bytes == 0)) {
        return 0;
    }
    const size_t body = fixed_bytes(parts) + data_bytes + (by_id || with_duration ? 2U : 0U) + (late_flags ? 1U : 0U);
    const size_t header = body + 2 > UINT8_MAX ? 4 : 2;
    const size_t length = header + body;
    if (length > UINT16_MAX || length > out_capacity) {
        return 0;
    }
    if (header == 4) {
        *to++ = LONG_LENGTH_MARK;
        put_u16(to, (uint16_t)length);
        to += 2;
    } else {
        *to++ = (uint8_t)length;
    }
    *to++ = (uint8_t)message->type;
    if ((parts & PART_FLAGS) != 0 || late_flags) {
        *to++ = flags_of(message);
    }
    if ((parts & PART_PROTOCOL_ID) != 0) {
        *to++ = message->protocol_id;
    }
    if ((parts & PART_GATEWAY_ID) != 0) {
        *to++ = message->gateway_id;
    }
    if ((parts & PART_RADIUS) != 0) {
        *to++ = message->radius;
    }
    if ((parts & PART_DURATION) != 0 || with_duration) {
        put_u16(to, message->duration_s);
        to += 2;
    }
    if ((parts & PART_TOPIC_ID) != 0) {
        put_u16(to, message->topic_id);
        to += 2;
    }
    if ((parts & PART_MSG_ID) != 0) {
        put_u16(to, message->msg_id);
        to += 2;
    }
    if ((parts & PART_RETURN_CODE) != 0) {
        *to++ = message->return_code;
    }
    if (by_id) {
        put_u16(to, message->topic_id);
        to += 2;
    }
    if (data_bytes > 0) {
        memmove(to, message->data, data_bytes);
    }
    return length;
}

// --- Encapsulation: its length ends with the node id, the message follows it (5.5) ---

#define ENCAPSULATION_HEADER_BYTES 3U

enum mqttsn_result mqttsn_decode_encapsulation(const void *data, size_t data_bytes, struct mqttsn_encapsulation *out) {
    const uint8_t *in = (const uint8_t *)data;
    if (data_bytes < 2) {
        return MQTTSN_TOO_SHORT;
    }
    if (in[1] != MQTTSN_ENCAPSULATED) {
        return MQTTSN_UNKNOWN_TYPE;
    }
    const size_t length = in[0];
    if (length <= ENCAPSULATION_HEADER_BYTES || data_bytes < length + 2) {
        return MQTTSN_BAD_LENGTH;
    }
    if ((in[2] & ~3U) != 0) {
        return MQTTSN_BAD_FLAGS;
    }
    if (in[length] != LONG_LENGTH_MARK && in[length + 1] == MQTTSN_ENCAPSULATED) {
        return MQTTSN_UNKNOWN_TYPE;
    }
    *out = (struct mqttsn_encapsulation){.radius = in[2] & 3U,
                                         .node_id = in + ENCAPSULATION_HEADER_BYTES,
                                         .node_id_bytes = length - ENCAPSULATION_HEADER_BYTES,
                                         .message = in + length,
                                         .message_bytes = data_bytes - length};
    return MQTTSN_OK;
}

size_t mqttsn_encode_encapsulation(const struct mqttsn_encapsulation *encapsulation, void *out, size_t out_capacity) {
    uint8_t *to = (uint8_t *)out;
    const size_t length = ENCAPSULATION_HEADER_BYTES + encapsulation->node_id_bytes;
    if (encapsulation->node_id_bytes == 0 || length > UINT8_MAX || length > out_capacity ||
        encapsulation->message_bytes > out_capacity - length) {
        return 0;
    }
    memmove(to + length, encapsulation->message, encapsulation->message_bytes);
    to[0] = (uint8_t)length;
    to[1] = MQTTSN_ENCAPSULATED;
    to[2] = encapsulation->radius & 3U;
    memmove(to + ENCAPSULATION_HEADER_BYTES, encapsulation->node_id, encapsulation->node_id_bytes);
    return length + encapsulation->message_bytes;
}
