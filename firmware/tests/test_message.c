#include "check.h"
#include "vectors_data.h"

static void check_same(const struct mqttsn_message *actual, const struct mqttsn_message *expected) {
    CHECK_EQUAL(actual->type, expected->type);
    CHECK_EQUAL(actual->qos, expected->qos);
    CHECK_EQUAL(actual->topic_type, expected->topic_type);
    CHECK_EQUAL(actual->dup, expected->dup);
    CHECK_EQUAL(actual->retain, expected->retain);
    CHECK_EQUAL(actual->will, expected->will);
    CHECK_EQUAL(actual->clean_session, expected->clean_session);
    CHECK_EQUAL(actual->has_duration, expected->has_duration);
    CHECK_EQUAL(actual->return_code, expected->return_code);
    CHECK_EQUAL(actual->gateway_id, expected->gateway_id);
    CHECK_EQUAL(actual->radius, expected->radius);
    CHECK_EQUAL(actual->protocol_id, expected->protocol_id);
    CHECK_EQUAL(actual->duration_s, expected->duration_s);
    CHECK_EQUAL(actual->topic_id, expected->topic_id);
    CHECK_EQUAL(actual->msg_id, expected->msg_id);
    CHECK(same_bytes(actual->data, actual->data_bytes, expected->data, expected->data_bytes));
}

static void test_messages_decode_and_encode_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(message_vectors); i++) {
        const struct message_vector *vector = &message_vectors[i];
        struct mqttsn_message message;
        uint8_t out[1100];
        check_case = vector->name;
        CHECK_EQUAL(mqttsn_decode(vector->bytes.data, vector->bytes.bytes, &message), MQTTSN_OK);
        check_same(&message, &vector->message);
        const size_t bytes = mqttsn_encode(&vector->message, out, sizeof out);
        CHECK(bytes > 0);
        CHECK(vector->encodes_otherwise || same_bytes(out, bytes, vector->bytes.data, vector->bytes.bytes));
        CHECK_EQUAL(mqttsn_encode(&vector->message, out, bytes), bytes);
        CHECK_EQUAL(mqttsn_encode(&vector->message, out, bytes - 1), 0);
    }
}

static void test_messages_are_refused_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(message_rejections); i++) {
        const struct rejection_vector *vector = &message_rejections[i];
        struct mqttsn_message message;
        check_case = vector->name;
        const enum mqttsn_result result = mqttsn_decode(vector->bytes.data, vector->bytes.bytes, &message);
        CHECK(strcmp(mqttsn_result_name(result), vector->reason) == 0);
    }
}

static void test_encapsulations_are_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(encapsulation_vectors); i++) {
        const struct encapsulation_vector *vector = &encapsulation_vectors[i];
        struct mqttsn_encapsulation in;
        struct mqttsn_message message;
        uint8_t out[1400];
        check_case = vector->name;
        CHECK_EQUAL(mqttsn_decode_encapsulation(vector->bytes.data, vector->bytes.bytes, &in), MQTTSN_OK);
        CHECK_EQUAL(in.radius, vector->radius);
        CHECK(same_bytes(in.node_id, in.node_id_bytes, vector->node_id.data, vector->node_id.bytes));
        CHECK(same_bytes(in.message, in.message_bytes, vector->message.data, vector->message.bytes));
        CHECK_EQUAL(mqttsn_decode(in.message, in.message_bytes, &message), MQTTSN_OK);
        const size_t bytes = mqttsn_encode_encapsulation(&in, out, sizeof out);
        CHECK(same_bytes(out, bytes, vector->bytes.data, vector->bytes.bytes));
        CHECK_EQUAL(mqttsn_encode_encapsulation(&in, out, bytes - 1), 0);
        CHECK(mqttsn_decode(vector->bytes.data, vector->bytes.bytes, &message) != MQTTSN_OK);
    }
    for (size_t i = 0; i < COUNT(encapsulation_rejections); i++) {
        const struct rejection_vector *vector = &encapsulation_rejections[i];
        struct mqttsn_encapsulation in;
        check_case = vector->name;
        const enum mqttsn_result result = mqttsn_decode_encapsulation(vector->bytes.data, vector->bytes.bytes, &in);
        CHECK(strcmp(mqttsn_result_name(result), vector->reason) == 0);
    }
}

// What decodes is harmless: its data lie within the message, and it encodes to a message that decodes the same.
static void check_harmless(const uint8_t *bytes, size_t count) {
    struct mqttsn_message message;
    struct mqttsn_message again;
    uint8_t out[1100];
    if (mqttsn_decode(bytes, count, &message) != MQTTSN_OK) {
        return;
    }
    CHECK(message.data == NULL ? message.data_bytes == 0
                               : message.data > bytes && message.data + message.data_bytes <= bytes + count);
    const size_t encoded = mqttsn_encode(&message, out, sizeof out);
    CHECK(encoded > 0 && encoded <= count);
    CHECK_EQUAL(mqttsn_decode(out, encoded, &again), MQTTSN_OK);
    check_same(&again, &message);
}

static void test_every_single_bit_flip_is_refused_or_harmless(void) {
    for (size_t i = 0; i < COUNT(message_vectors); i++) {
        const struct message_vector *vector = &message_vectors[i];
        check_case = vector->name;
        for (size_t bit = 0; bit < vector->bytes.bytes * 8; bit++) {
            uint8_t *damaged = (uint8_t *)malloc(vector->bytes.bytes);
            memcpy(damaged, vector->bytes.data, vector->bytes.bytes);
            damaged[bit / 8] = (uint8_t)(damaged[bit / 8] ^ (1U << (bit % 8)));
            check_harmless(damaged, vector->bytes.bytes);
            free(damaged);
        }
    }
}

static void test_a_message_cut_at_any_length_is_refused(void) {
    for (size_t i = 0; i < COUNT(message_vectors); i++) {
        const struct message_vector *vector = &message_vectors[i];
        struct mqttsn_message message;
        check_case = vector->name;
        for (size_t bytes = 0; bytes < vector->bytes.bytes; bytes++) {
            uint8_t *cut = (uint8_t *)malloc(bytes + 1);
            memcpy(cut + 1, vector->bytes.data, bytes);
            CHECK(mqttsn_decode(cut + 1, bytes, &message) != MQTTSN_OK);
            free(cut);
        }
    }
}

static void test_every_payload_length_around_one_and_two_byte_lengths(void) {
    uint8_t data[520];
    uint8_t out[540];
    memset(data, 'x', sizeof data);
    for (size_t bytes = 0; bytes <= sizeof data; bytes++) {
        const struct mqttsn_message message = {.type = MQTTSN_PUBLISH, .data = data, .data_bytes = bytes};
        struct mqttsn_message back;
        const size_t length = mqttsn_encode(&message, out, sizeof out);
        CHECK_EQUAL(length, bytes + (bytes + 7 <= 255 ? 7 : 9));
        CHECK_EQUAL(out[0], length <= 255 ? length : 1);
        CHECK_EQUAL(mqttsn_decode(out, length, &back), MQTTSN_OK);
        CHECK_EQUAL(back.data_bytes, bytes);
    }
}

static void test_no_message_is_longer_than_its_length_field_can_say(void) {
    static uint8_t data[65536];
    static uint8_t out[65600];
    struct mqttsn_message message = {.type = MQTTSN_WILLMSG, .data = data, .data_bytes = 65531};
    struct mqttsn_message back;
    CHECK_EQUAL(mqttsn_encode(&message, out, sizeof out), 65535);
    CHECK_EQUAL(mqttsn_decode(out, 65535, &back), MQTTSN_OK);
    for (message.data_bytes = 65532; message.data_bytes <= sizeof data; message.data_bytes++) {
        CHECK_EQUAL(mqttsn_encode(&message, out, sizeof out), 0);
    }
}

static void test_names_of_types_are_the_standard_s(void) {
    CHECK(strcmp(mqttsn_type_name(MQTTSN_PUBLISH), "PUBLISH") == 0);
    CHECK(strcmp(mqttsn_type_name(MQTTSN_ENCAPSULATED), "ENCAPSULATED") == 0);
    CHECK(mqttsn_type_name(3) == NULL && mqttsn_type_name(0x19) == NULL && mqttsn_type_name(255) == NULL);
}

int main(void) {
    RUN(test_messages_decode_and_encode_as_the_vectors_say);
    RUN(test_messages_are_refused_as_the_vectors_say);
    RUN(test_encapsulations_are_as_the_vectors_say);
    RUN(test_every_single_bit_flip_is_refused_or_harmless);
    RUN(test_a_message_cut_at_any_length_is_refused);
    RUN(test_every_payload_length_around_one_and_two_byte_lengths);
    RUN(test_no_message_is_longer_than_its_length_field_can_say);
    RUN(test_names_of_types_are_the_standard_s);
    return 0;
}
