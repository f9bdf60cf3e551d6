#include <setjmp.h>
#include <string.h>

#include "app/boot_counter.h"
#include "tests/check.h"

enum { SECTOR_BYTES = 64, FIRST = 0x1000, SECOND = 0x2000 };

// Two sectors of NOR flash whose power fails at a given operation. A word programmed and an eighth of a sector erased
// are an operation each; the one that fails is done in part.
static struct {
    uint8_t sectors[2][SECTOR_BYTES];
    int operations_left;  // −1: the power stays.
    uint32_t noise;
    bool refuses;
    int erases;
    jmp_buf power_failed;
} flash;

static uint32_t noise(void) {
    flash.noise = flash.noise * 1664525 + 1013904223;
    return flash.noise >> 8;
}

static uint8_t *at(uint32_t address) {
    return address >= SECOND ? &flash.sectors[1][address - SECOND] : &flash.sectors[0][address - FIRST];
}

static bool power_fails(void) {
    return flash.operations_left >= 0 && flash.operations_left-- == 0;
}

static void flash_read(uint32_t address, void *data, size_t bytes) {
    memcpy(data, at(address), bytes);
}

static bool flash_program(uint32_t address, const void *data, size_t bytes) {
    const uint8_t *from = data;
    if (flash.refuses) {
        return false;
    }
    for (size_t word = 0; word < bytes; word += 4) {
        bool fails = power_fails();
        for (size_t i = word; i < word + 4; i++) {
            *at(address + (uint32_t)i) &= (uint8_t)(from[i] | (fails ? noise() : 0));  // some bits only
        }
        if (fails) {
            longjmp(flash.power_failed, 1);
        }
    }
    return true;
}

static bool flash_erase(uint32_t address) {
    flash.erases++;
    if (flash.refuses) {
        return false;
    }
    for (size_t part = 0; part < 8; part++) {
        bool fails = power_fails();
        for (size_t i = 0; i < SECTOR_BYTES / 8; i++) {
            uint8_t *byte = at(address) + part * (SECTOR_BYTES / 8) + i;
            *byte |= (uint8_t)(fails ? noise() : 0xFF);
        }
        if (fails) {
            longjmp(flash.power_failed, 1);
        }
    }
    return true;
}

static const struct board_flash board = {
    .boot_counter = {FIRST, SECOND},
    .sector_bytes = SECTOR_BYTES,
    .read = flash_read,
    .program = flash_program,
    .erase = flash_erase,
};

static void begin(int fill) {
    memset(&flash, 0, sizeof flash);
    memset(flash.sectors, fill, sizeof flash.sectors);
    flash.operations_left = -1;
}

static uint32_t boot(void) {
    uint32_t count = 0;
    CHECK(boot_counter_next(&board, &count));
    return count;
}

// Returns 0 when the power failed.
static uint32_t boot_with_power_for(int operations) {
    flash.operations_left = operations;
    if (setjmp(flash.power_failed) != 0) {
        return 0;
    }
    return boot();
}

static void test_boots_count_from_one_through_many_sectors(void) {
    begin(0xFF);
    for (uint32_t expected = 1; expected <= 1000; expected++) {
        CHECK(boot() == expected);
    }
    CHECK(flash.erases <= 1000 / (SECTOR_BYTES / 8) + 1);
}

static void test_flash_of_any_content_is_taken_into_use(void) {
    static const int fills[] = {0x00, 0xFF, 0xA5, 0x01};
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
        begin(fills[i]);
        CHECK(boot() == 1);
        CHECK(boot() == 2);
    }
    for (uint32_t seed = 0; seed < 200; seed++) {
        begin(0);
        flash.noise = seed;
        for (size_t j = 0; j < sizeof flash.sectors; j++) {
            flash.sectors[j / SECTOR_BYTES][j % SECTOR_BYTES] = (uint8_t)noise();
        }
        uint32_t first = boot();
        CHECK(boot() == first + 1);
    }
}

// For every age of the sectors, the power fails at every operation of a boot, and then at every operation of the next.
static void test_no_boot_number_is_given_twice_when_power_fails_at_any_operation(void) {
    int cuts = 0;
    for (uint32_t age = 0; age < 4 * SECTOR_BYTES / 8; age++) {
        for (int first_cut = 0;; first_cut++) {
            uint32_t first = 0;
            for (int second_cut = 0;; second_cut++) {
                begin(0xFF);
                flash.noise = age * 977 + (uint32_t)(first_cut * 31 + second_cut);
                uint32_t last = 0;
                for (uint32_t i = 0; i < age; i++) {
                    last = boot();
                }
                first = boot_with_power_for(first_cut);
                if (first != 0) {
                    CHECK(first > last);
                    last = first;
                }
                uint32_t second = boot_with_power_for(second_cut);
                if (second != 0) {
                    CHECK(second > last);
                    last = second;
                }
                flash.operations_left = -1;
                CHECK(boot() > last);
                CHECK(boot() > last + 1);
                cuts++;
                if (second != 0) {
                    break;
                }
            }
            if (first != 0) {
                break;
            }
        }
    }
    CHECK(cuts > 100);
}

static void test_flash_that_takes_nothing_is_told_and_gives_the_next_number(void) {
    begin(0xFF);
    boot();
    boot();
    flash.refuses = true;
    uint32_t count = 0;
    CHECK(!boot_counter_next(&board, &count));
    CHECK(count == 3);
}

static void test_a_damaged_newest_record_costs_one_number_only(void) {
    begin(0xFF);
    for (int i = 0; i < 3; i++) {
        boot();
    }
    flash.sectors[0][2 * 8] ^= 1;
    CHECK(boot() == 3);
    CHECK(boot() == 4);
}

int main(void) {
    RUN(test_boots_count_from_one_through_many_sectors);
    RUN(test_flash_of_any_content_is_taken_into_use);
    RUN(test_no_boot_number_is_given_twice_when_power_fails_at_any_operation);
    RUN(test_flash_that_takes_nothing_is_told_and_gives_the_next_number);
    RUN(test_a_damaged_newest_record_costs_one_number_only);
    return 0;
}
