#include "check.h"
#include "vectors_data.h"

static bool same_text(struct wire_text a, struct wire_text b) {
    return same_bytes(a.data, a.bytes, b.data, b.bytes);
}

static void check_same(const struct wire_link *actual, const struct wire_link *expected) {
    CHECK_EQUAL(actual->type, expected->type);
    switch (expected->type) {
        case WIRE_LINK_HELLO:
            CHECK_EQUAL(actual->as.hello.version, expected->as.hello.version);
            CHECK_EQUAL(actual->as.hello.window, expected->as.hello.window);
            CHECK_EQUAL(actual->as.hello.content_bytes_max, expected->as.hello.content_bytes_max);
            CHECK_EQUAL(actual->as.hello.boot, expected->as.hello.boot);
            CHECK_EQUAL(actual->as.hello.reset_reason, expected->as.hello.reset_reason);
            CHECK(same_text(actual->as.hello.board_id, expected->as.hello.board_id));
            CHECK(same_text(actual->as.hello.firmware, expected->as.hello.firmware));
            break;
        case WIRE_LINK_WELCOME:
            CHECK_EQUAL(actual->as.welcome.version, expected->as.welcome.version);
            CHECK_EQUAL(actual->as.welcome.window, expected->as.welcome.window);
            CHECK_EQUAL(actual->as.welcome.content_bytes_max, expected->as.welcome.content_bytes_max);
            CHECK_EQUAL(actual->as.welcome.unix_time_ms, expected->as.welcome.unix_time_ms);
            break;
        case WIRE_LINK_HELLO_REQUEST:
            CHECK_EQUAL(actual->as.hello_request_version, expected->as.hello_request_version);
            break;
        case WIRE_LINK_TIME:
            CHECK_EQUAL(actual->as.time_ms, expected->as.time_ms);
            break;
        case WIRE_LINK_STATS_REQUEST:
            break;
        case WIRE_LINK_STATS:
            CHECK_EQUAL(actual->as.stats.boot, expected->as.stats.boot);
            CHECK_EQUAL(actual->as.stats.uptime_ms, expected->as.stats.uptime_ms);
            CHECK_EQUAL(actual->as.stats.reset_reason, expected->as.stats.reset_reason);
            CHECK_EQUAL(actual->as.stats.count, expected->as.stats.count);
            for (size_t i = 0; i < expected->as.stats.count; i++) {
                CHECK_EQUAL(actual->as.stats.values[i].id, expected->as.stats.values[i].id);
                CHECK_EQUAL(actual->as.stats.values[i].value, expected->as.stats.values[i].value);
            }
            break;
        case WIRE_LINK_REWIND:
            CHECK_EQUAL(actual->as.rewind.boot, expected->as.rewind.boot);
            CHECK_EQUAL(actual->as.rewind.sequence, expected->as.rewind.sequence);
            break;
    }
}

static void test_links_decode_and_encode_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(link_vectors); i++) {
        const struct link_vector *vector = &link_vectors[i];
        struct wire_link link;
        uint8_t out[700];
        check_case = vector->name;
        CHECK_EQUAL(wire_link_decode(vector->payload.data, vector->payload.bytes, &link), WIRE_LINK_OK);
        check_same(&link, &vector->link);
        const size_t bytes = wire_link_encode(&vector->link, out, sizeof out);
        // A vector may carry later fields behind what we write.
        CHECK(bytes > 0 && bytes <= vector->payload.bytes);
        CHECK(memcmp(out, vector->payload.data, bytes) == 0);
        CHECK_EQUAL(wire_link_encode(&vector->link, out, bytes), bytes);
        CHECK_EQUAL(wire_link_encode(&vector->link, out, bytes - 1), 0);
    }
}

static void test_links_are_refused_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(link_rejections); i++) {
        const struct rejection_vector *vector = &link_rejections[i];
        struct wire_link link;
        check_case = vector->name;
        const bool unknown = strcmp(vector->reason, "unknown") == 0;
        CHECK_EQUAL(wire_link_decode(vector->bytes.data, vector->bytes.bytes, &link),
                    unknown ? WIRE_LINK_UNKNOWN : WIRE_LINK_TRUNCATED);
    }
}

static void test_links_cut_at_every_length_are_refused_or_the_same(void) {
    for (size_t i = 0; i < COUNT(link_vectors); i++) {
        const struct link_vector *vector = &link_vectors[i];
        struct wire_link link;
        uint8_t out[700];
        check_case = vector->name;
        const size_t needed = wire_link_encode(&vector->link, out, sizeof out);
        for (size_t bytes = 0; bytes <= vector->payload.bytes; bytes++) {
            uint8_t *exact = (uint8_t *)malloc(bytes + 1);  // For the sanitizer to see reads beyond.
            memcpy(exact + 1, vector->payload.data, bytes);
            const enum wire_link_result result = wire_link_decode(exact + 1, bytes, &link);
            CHECK_EQUAL(result, bytes < needed ? WIRE_LINK_TRUNCATED : WIRE_LINK_OK);
            free(exact);
        }
    }
}

static void test_every_single_bit_flip_of_a_link_is_read_within_its_bounds(void) {
    for (size_t i = 0; i < COUNT(link_vectors); i++) {
        const struct link_vector *vector = &link_vectors[i];
        check_case = vector->name;
        for (size_t bit = 0; bit < vector->payload.bytes * 8; bit++) {
            struct wire_link link;
            uint8_t *damaged = (uint8_t *)malloc(vector->payload.bytes);
            memcpy(damaged, vector->payload.data, vector->payload.bytes);
            damaged[bit / 8] = (uint8_t)(damaged[bit / 8] ^ (1U << (bit % 8)));
            if (wire_link_decode(damaged, vector->payload.bytes, &link) == WIRE_LINK_OK) {
                uint8_t out[700];
                CHECK(wire_link_encode(&link, out, sizeof out) > 0);
            }
            free(damaged);
        }
    }
}

static void test_a_longer_list_of_stats_keeps_its_first(void) {
    uint8_t payload[15 + 255 * 5] = {WIRE_LINK_STATS};
    payload[14] = 255;
    for (size_t i = 0; i < 255; i++) {
        payload[15 + i * 5] = (uint8_t)(i + 1);
    }
    struct wire_link link;
    CHECK_EQUAL(wire_link_decode(payload, sizeof payload, &link), WIRE_LINK_OK);
    CHECK_EQUAL(link.as.stats.count, WIRE_STATS_MAX);
    CHECK_EQUAL(link.as.stats.values[WIRE_STATS_MAX - 1].id, WIRE_STATS_MAX);
    link.as.stats.count = WIRE_STATS_MAX + 1;
    CHECK_EQUAL(wire_link_encode(&link, payload, sizeof payload), 0);
}

static void test_stats_have_the_names_of_the_list(void) {
    CHECK(wire_stat_name(0) == NULL && wire_stat_name(WIRE_STAT_END) == NULL);
    CHECK(strcmp(wire_stat_name(WIRE_STAT_FRAMES_IN), "frames_in") == 0);
    CHECK(strcmp(wire_stat_name(21), "text_bytes_dropped") == 0);
    for (unsigned i = 1; i < WIRE_STAT_END; i++) {
        CHECK(wire_stat_name(i) != NULL);
    }
}

static void test_readings_are_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(reading_vectors); i++) {
        const struct reading_vector *vector = &reading_vectors[i];
        struct wire_reading reading;
        uint8_t header[WIRE_READING_HEADER_BYTES];
        check_case = vector->name;
        CHECK(wire_reading_decode(vector->payload.data, vector->payload.bytes, &reading));
        CHECK_EQUAL(reading.boot, vector->boot);
        CHECK_EQUAL(reading.sequence, vector->sequence);
        CHECK_EQUAL(reading.back, vector->back);
        CHECK(same_bytes(reading.message, reading.message_bytes, vector->message.data, vector->message.bytes));
        CHECK_EQUAL(wire_reading_encode_header(&reading, header, sizeof header), sizeof header);
        CHECK(memcmp(header, vector->payload.data, sizeof header) == 0);
        CHECK_EQUAL(wire_reading_encode_header(&reading, header, sizeof header - 1), 0);
    }
    for (size_t i = 0; i < COUNT(reading_rejections); i++) {
        struct wire_reading reading;
        check_case = reading_rejections[i].name;
        CHECK(!wire_reading_decode(reading_rejections[i].bytes.data, reading_rejections[i].bytes.bytes, &reading));
    }
}

static void test_requests_are_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(request_vectors); i++) {
        const struct request_vector *vector = &request_vectors[i];
        struct wire_request request;
        uint8_t header[WIRE_REQUEST_HEADER_BYTES];
        check_case = vector->name;
        CHECK(wire_request_decode(vector->payload.data, vector->payload.bytes, &request));
        CHECK_EQUAL(request.request_id, vector->request_id);
        CHECK(same_bytes(request.message, request.message_bytes, vector->message.data, vector->message.bytes));
        CHECK_EQUAL(wire_request_encode_header(&request, header, sizeof header), sizeof header);
        CHECK(memcmp(header, vector->payload.data, sizeof header) == 0);
    }
    for (size_t i = 0; i < COUNT(request_rejections); i++) {
        struct wire_request request;
        check_case = request_rejections[i].name;
        CHECK(!wire_request_decode(request_rejections[i].bytes.data, request_rejections[i].bytes.bytes, &request));
    }
}

int main(void) {
    RUN(test_links_decode_and_encode_as_the_vectors_say);
    RUN(test_links_are_refused_as_the_vectors_say);
    RUN(test_links_cut_at_every_length_are_refused_or_the_same);
    RUN(test_every_single_bit_flip_of_a_link_is_read_within_its_bounds);
    RUN(test_a_longer_list_of_stats_keeps_its_first);
    RUN(test_stats_have_the_names_of_the_list);
    RUN(test_readings_are_as_the_vectors_say);
    RUN(test_requests_are_as_the_vectors_say);
    return 0;
}
