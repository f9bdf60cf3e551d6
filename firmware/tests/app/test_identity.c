#include <string.h>

#include "app/identity.h"
#include "tests/check.h"
#include "wire/wire.h"

enum { PAGE_BYTES = 8 + 64 + 4 };

struct page {
    uint8_t bytes[IDENTITY_PAGE_BYTES_MAX + 16];
};

static void seal(struct page *page, size_t length) {
    uint32_t crc = wire_crc32(0, page->bytes, 8 + length);
    for (int i = 0; i < 4; i++) {
        page->bytes[8 + length + (size_t)i] = (uint8_t)(crc >> 8 * i);
    }
}

static struct page page_of(const char *id, size_t length) {
    struct page page;
    memset(&page, 0xFF, sizeof page);
    memcpy(page.bytes, "ELID\1\0", 6);
    page.bytes[6] = (uint8_t)length;
    page.bytes[7] = (uint8_t)(length >> 8);
    memset(page.bytes + 8, 0, 32);
    memcpy(page.bytes + 8, id, strlen(id));
    for (size_t i = 0; i < 32; i++) {
        page.bytes[40 + i] = (uint8_t)(i + 1);
    }
    seal(&page, length);
    return page;
}

static void test_a_page_gives_the_id_and_the_entropy(void) {
    struct identity identity;
    struct page page = page_of("board-1", 64);
    CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_OK);
    CHECK(strcmp(identity.board_id, "board-1") == 0);
    CHECK(identity.entropy[0] == 1 && identity.entropy[31] == 32);
    page = page_of("b", 64);
    CHECK(identity_parse(page.bytes, sizeof page.bytes, &identity) == IDENTITY_OK);
    page = page_of("12345678901234567890123", 64);
    CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_OK);
    CHECK(strlen(identity.board_id) == IDENTITY_ID_BYTES_MAX);
}

static void test_what_a_later_writer_appends_is_passed_over(void) {
    struct identity identity;
    size_t longest = IDENTITY_PAGE_BYTES_MAX - 12;
    struct page page = page_of("board-1", longest);
    CHECK(identity_parse(page.bytes, IDENTITY_PAGE_BYTES_MAX, &identity) == IDENTITY_OK);
    CHECK(identity_parse(page.bytes, IDENTITY_PAGE_BYTES_MAX - 1, &identity) == IDENTITY_LENGTH);
    page = page_of("board-1", longest + 1);
    CHECK(identity_parse(page.bytes, sizeof page.bytes, &identity) == IDENTITY_LENGTH);
}

static void test_an_empty_or_foreign_page_is_missing(void) {
    struct identity identity;
    struct page page;
    memset(&page, 0xFF, sizeof page);
    CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_MISSING);
    memset(&page, 0, sizeof page);
    CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_MISSING);
    page = page_of("board-1", 64);
    for (size_t bytes = 0; bytes < 8; bytes++) {
        CHECK(identity_parse(page.bytes, bytes, &identity) == IDENTITY_MISSING);
    }
}

static void test_every_flipped_bit_is_refused(void) {
    struct identity identity;
    for (size_t bit = 0; bit < PAGE_BYTES * 8; bit++) {
        struct page page = page_of("board-1", 64);
        page.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) != IDENTITY_OK);
    }
}

static void test_every_length_is_safe_and_only_true_ones_pass(void) {
    struct identity identity;
    for (uint32_t length = 0; length <= UINT16_MAX; length++) {
        struct page page = page_of("board-1", 64);
        page.bytes[6] = (uint8_t)length;
        page.bytes[7] = (uint8_t)(length >> 8);
        if (length + 12 <= sizeof page.bytes) {
            seal(&page, length);
        }
        enum identity_result result = identity_parse(page.bytes, IDENTITY_PAGE_BYTES_MAX, &identity);
        CHECK((result == IDENTITY_OK) == (length >= 64 && length + 12 <= IDENTITY_PAGE_BYTES_MAX));
    }
}

static void test_ids_that_cannot_be_a_topic_level_or_a_client_id_are_refused(void) {
    static const char *const refused[] = {
        "",
        "a/b",
        "a+b",
        "#",
        "a b",
        "a\tb",
        "a\"b",
        "a\\b",
        "a\x7f",
        "\xc3\xa4",
        "123456789012345678901234",
        "1234567890123456789012345678901",
        "\n",
    };
    struct identity identity;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct page page = page_of(refused[i], 64);
        CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_BAD_ID);
    }
    struct page page = page_of("board", 64);
    page.bytes[8 + 20] = 'x';  // behind the NUL
    seal(&page, 64);
    CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_BAD_ID);
    memset(page.bytes + 8, 'x', 32);  // no NUL at all
    seal(&page, 64);
    CHECK(identity_parse(page.bytes, PAGE_BYTES, &identity) == IDENTITY_BAD_ID);
}

static void test_other_versions_are_refused(void) {
    struct identity identity;
    for (uint32_t version = 0; version <= UINT16_MAX; version++) {
        struct page page = page_of("board-1", 64);
        page.bytes[4] = (uint8_t)version;
        page.bytes[5] = (uint8_t)(version >> 8);
        seal(&page, 64);
        enum identity_result result = identity_parse(page.bytes, PAGE_BYTES, &identity);
        CHECK(result == (version == 1 ? IDENTITY_OK : IDENTITY_VERSION));
    }
}

int main(void) {
    RUN(test_a_page_gives_the_id_and_the_entropy);
    RUN(test_what_a_later_writer_appends_is_passed_over);
    RUN(test_an_empty_or_foreign_page_is_missing);
    RUN(test_every_flipped_bit_is_refused);
    RUN(test_every_length_is_safe_and_only_true_ones_pass);
    RUN(test_ids_that_cannot_be_a_topic_level_or_a_client_id_are_refused);
    RUN(test_other_versions_are_refused);
    return 0;
}
