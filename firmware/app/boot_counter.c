#include "app/boot_counter.h"

enum { TRIES = 4 };

struct record {
    uint32_t count;
    uint32_t check;
};

struct scan {
    uint32_t highest;      // 0: no sound record.
    uint32_t free_offset;  // Everything from here to the sector's end is erased.
};

static uint32_t check_of(uint32_t count) {
    const uint8_t bytes[] = {
        'E', 'L', 'B', 'C', (uint8_t)count, (uint8_t)(count >> 8), (uint8_t)(count >> 16), (uint8_t)(count >> 24)};
    return wire_crc32(0, bytes, sizeof bytes);
}

static bool is_sound(const struct record *record) {
    return record->count != 0 && record->check == check_of(record->count);
}

static struct scan scan_sector(const struct board_flash *flash, uint32_t sector) {
    struct scan scan = {0};
    for (uint32_t offset = 0; offset < flash->sector_bytes; offset += sizeof(struct record)) {
        struct record record;
        flash->read(sector + offset, &record, sizeof record);
        if (record.count == UINT32_MAX && record.check == UINT32_MAX) {
            continue;
        }
        scan.free_offset = offset + sizeof record;
        if (is_sound(&record) && record.count > scan.highest) {
            scan.highest = record.count;
        }
    }
    return scan;
}

static bool write_record(const struct board_flash *flash, uint32_t address, uint32_t count) {
    const struct record record = {.count = count, .check = check_of(count)};
    struct record readback;
    if (!flash->program(address, &record, sizeof record)) {
        return false;
    }
    flash->read(address, &readback, sizeof readback);
    return readback.count == record.count && readback.check == record.check;
}

bool boot_counter_next(const struct board_flash *flash, uint32_t *count) {
    struct scan scans[2];
    for (int i = 0; i < 2; i++) {
        scans[i] = scan_sector(flash, flash->boot_counter[i]);
    }
    int active = scans[1].highest > scans[0].highest ? 1 : 0;
    *count = scans[active].highest + 1;

    uint32_t offset = scans[active].free_offset;
    for (int i = 0; i < TRIES && offset < flash->sector_bytes; i++) {
        if (write_record(flash, flash->boot_counter[active] + offset, *count)) {
            return true;
        }
        offset += sizeof(struct record);
    }
    uint32_t other = flash->boot_counter[1 - active];
    return flash->erase(other) && write_record(flash, other, *count);
}
