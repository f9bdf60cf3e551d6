#include <string.h>

#include "app/text.h"
#include "tests/check.h"

static bool reads(const struct text *text, const char *expected) {
    return !text->overflowed && text->bytes == strlen(expected) && memcmp(text->out, expected, text->bytes) == 0;
}

static void test_sixteenths_are_written_exactly_with_four_digits(void) {
    static const struct {
        int16_t sixteenths;
        const char *decimal;
    } cases[] = {
        {0, "0.0000"},    {1, "0.0625"},    {-1, "-0.0625"},           {344, "21.5000"},
        {-16, "-1.0000"}, {-48, "-3.0000"}, {2047, "127.9375"},        {-2048, "-128.0000"},
        {-3, "-0.1875"},  {15, "0.9375"},   {INT16_MIN, "-2048.0000"}, {INT16_MAX, "2047.9375"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char room[16];
        struct text text = text_begin(room, sizeof room);
        text_put_sixteenths(&text, cases[i].sixteenths);
        CHECK(reads(&text, cases[i].decimal));
    }
}

static void test_integers_are_written_up_to_the_largest(void) {
    char room[64];
    struct text text = text_begin(room, sizeof room);
    text_put_uint(&text, 0);
    text_put(&text, " ");
    text_put_uint(&text, 10);
    text_put(&text, " ");
    text_put_uint(&text, UINT64_MAX);
    CHECK(reads(&text, "0 10 18446744073709551615"));
}

static void test_text_that_does_not_fit_is_remembered_and_writes_nothing_beyond(void) {
    for (size_t capacity = 0; capacity < 12; capacity++) {
        char room[16];
        memset(room, '~', sizeof room);
        struct text text = text_begin(room, capacity);
        text_put(&text, "123456");
        text_put_uint(&text, 7890);
        text_put_bytes(&text, NULL, 0);
        CHECK(text.overflowed == (capacity < 10));
        CHECK(text.bytes <= capacity);
        CHECK(room[capacity] == '~');
    }
}

static void test_only_plain_decimal_numbers_are_parsed(void) {
    static const char *const refused[] = {"",    "-1",  "+1",         " 1",         "1 ",          "1.0", "0x1",
                                          "1e3", "abc", "4294967296", "9999999999", "00000000001", "1\n"};
    uint32_t value = 42;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        CHECK(!text_parse_uint(refused[i], strlen(refused[i]), &value));
    }
    CHECK(!text_parse_uint("1\0", 2, &value));
    CHECK(value == 42);
    CHECK(text_parse_uint("0", 1, &value) && value == 0);
    CHECK(text_parse_uint("007", 3, &value) && value == 7);
    CHECK(text_parse_uint("4294967295", 10, &value) && value == UINT32_MAX);
}

int main(void) {
    RUN(test_sixteenths_are_written_exactly_with_four_digits);
    RUN(test_integers_are_written_up_to_the_largest);
    RUN(test_text_that_does_not_fit_is_remembered_and_writes_nothing_beyond);
    RUN(test_only_plain_decimal_numbers_are_parsed);
    return 0;
}
