// Flash as a file, with the rules of NOR flash; retained memory as an anonymous file that passes through an exec.
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "posix.h"

enum {
    SECTOR_BYTES = 4096,
    FLASH_BYTES = 3 * SECTOR_BYTES,
    RETAINED_BYTES = 96 * 1024,
};

static uint8_t *flash_memory;
static uint8_t *retained_memory;
static int retained_fd;

void posix_memory_open(const char *flash_path, int inherited_retained_fd) {
    struct stat status;
    int flash_fd = open(flash_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (flash_fd < 0 || fstat(flash_fd, &status) != 0 ||
        (status.st_size < FLASH_BYTES && ftruncate(flash_fd, FLASH_BYTES) != 0)) {
        posix_fail("cannot use as flash", flash_path);
    }
    flash_memory = mmap(NULL, FLASH_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, flash_fd, 0);
    close(flash_fd);

    retained_fd = inherited_retained_fd;
    if (retained_fd < 0) {
        retained_fd = memfd_create("retained", 0);
        if (retained_fd < 0 || ftruncate(retained_fd, RETAINED_BYTES) != 0) {
            posix_fail("cannot make memory", "retained");
        }
    }
    retained_memory = mmap(NULL, RETAINED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, retained_fd, 0);
    if (flash_memory == MAP_FAILED || retained_memory == MAP_FAILED) {
        posix_fail("cannot map memory for", flash_path);
    }
}

int posix_retained_fd(void) {
    return retained_fd;
}

void *board_retained(size_t *bytes) {
    *bytes = RETAINED_BYTES;
    return retained_memory;
}

static bool in_flash(uint32_t address, size_t bytes) {
    return address <= FLASH_BYTES && bytes <= FLASH_BYTES - address;
}

static void flash_read(uint32_t address, void *data, size_t bytes) {
    if (in_flash(address, bytes)) {
        memcpy(data, flash_memory + address, bytes);
    }
}

static bool flash_program(uint32_t address, const void *data, size_t bytes) {
    const uint8_t *from = data;
    if (!in_flash(address, bytes) || (address | bytes) % 4 != 0) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        flash_memory[address + i] &= from[i];
    }
    return true;
}

static bool flash_erase(uint32_t sector_address) {
    if (!in_flash(sector_address, SECTOR_BYTES) || sector_address % SECTOR_BYTES != 0) {
        return false;
    }
    memset(flash_memory + sector_address, 0xFF, SECTOR_BYTES);
    return true;
}

const struct board_flash *board_flash(void) {
    static const struct board_flash flash = {
        .identity = 0,
        .boot_counter = {SECTOR_BYTES, 2 * SECTOR_BYTES},
        .sector_bytes = SECTOR_BYTES,
        .read = flash_read,
        .program = flash_program,
        .erase = flash_erase,
    };
    return &flash;
}
