// The composition root: builds everything once, statically, and starts the scheduler.
#include <string.h>

#include "app/app.h"
#include "app/boot_counter.h"
#include "app/text.h"
#include "boards/board.h"

enum {
    LINK_STACK_WORDS = 640,
    SAMPLING_STACK_WORDS = 256,
    COMMAND_STACK_WORDS = 384,
};

// Commands are short and rare, and a busy line must not starve them. The link rests now and then for sampling's sake.
enum { PRIORITY_SAMPLING = 1, PRIORITY_LINK, PRIORITY_COMMAND };

// On posix a task's stack is the thread's own, but must hold the port's bookkeeping.
static StackType_t link_stack[LINK_STACK_WORDS];
static StackType_t sampling_stack[SAMPLING_STACK_WORDS];
static StackType_t command_stack[COMMAND_STACK_WORDS];
static StaticTask_t task_memory[TASK_COUNT];
static StaticSemaphore_t mutex_memory;
static StaticQueue_t commands_memory, answers_memory;
static uint8_t commands_storage[QUEUE_DEPTH * sizeof(struct command_item)];
static uint8_t answers_storage[QUEUE_DEPTH * sizeof(struct answer_item)];
static struct app app;

void app_check_in(struct app *self, enum task_number task) {
    taskENTER_CRITICAL();
    bool all = checkin_mark(&self->checkin, (unsigned)task);
    taskEXIT_CRITICAL();
    if (all) {
        board_watchdog_feed();
    }
}

void app_ring_lock(void *self) {
    xSemaphoreTake(((struct app *)self)->ring_mutex, portMAX_DELAY);
}

void app_ring_unlock(void *self) {
    xSemaphoreGive(((struct app *)self)->ring_mutex);
}

uint32_t app_now_ms(void) {
    return (uint32_t)(board_now_us() / 1000);
}

static void say(struct text *line) {
    text_put(line, "\r\n");
    board_uart_write((const uint8_t *)line->out, line->bytes);
}

static void say_started(bool boot_counted, uint32_t readings_kept) {
    char room[160];
    struct text line = text_begin(room, sizeof room - 2);
    text_put(&line, "edgeloop " APP_VERSION " on ");
    text_put(&line, board_name());
    text_put(&line, ", board ");
    text_put(&line, app.identity.board_id);
    text_put(&line, ", boot ");
    text_put_uint(&line, app.boot);
    text_put(&line, boot_counted ? "" : " (flash refused the boot counter)");
    text_put(&line, ", reset by ");
    text_put(&line, command_reset_reason_name(board_reset_reason()));
    text_put(&line, ", readings kept ");
    text_put_uint(&line, readings_kept);
    line.capacity = sizeof room;
    say(&line);
}

// A board without an identity must not guess one. It says so, now and then, and waits to be provisioned.
static _Noreturn void unprovisioned_task(void *result) {
    for (;;) {
        char room[96];
        struct text line = text_begin(room, sizeof room);
        text_put(&line, "identity page ");
        text_put(&line, identity_result_name(*(enum identity_result *)result));
        text_put(&line, ": provision this board");
        say(&line);
        vTaskDelay(pdMS_TO_TICKS(5000));
    }
}

static enum identity_result read_identity(const struct board_flash *flash) {
    uint8_t page[IDENTITY_PAGE_BYTES_MAX];
    flash->read(flash->identity, page, sizeof page);
    return identity_parse(page, sizeof page, &app.identity);
}

// Take up what the last start left, and count this one. Returns whether flash holds the count.
static bool count_boot(struct kept *kept) {
    bool lost =
        board_reset_reason() == WIRE_RESET_POWER_ON || kept->check != wire_crc32(0, kept, offsetof(struct kept, check));
    if (lost) {
        *kept = (struct kept){0};
    }
    bool counted = boot_counter_next(board_flash(), &app.boot);
    if (!counted && app.boot <= kept->boot) {
        app.boot = kept->boot + 1;
    }
    kept->boot = app.boot;
    kept->watchdog_resets += board_reset_reason() == WIRE_RESET_WATCHDOG;
    kept->check = wire_crc32(0, kept, offsetof(struct kept, check));
    app.kept = kept;
    return counted;
}

// As large as a power of two allows. Returns the readings that the reset left in it.
static uint32_t open_ring(void *storage, size_t storage_bytes) {
    uint32_t capacity = 2;
    while (RING_STORAGE_BYTES(capacity * 2) <= storage_bytes) {
        capacity *= 2;
    }
    if (board_reset_reason() == WIRE_RESET_POWER_ON) {
        memset(storage, 0, RING_STORAGE_BYTES(0));  // what lies there is no ring of ours, whatever it looks like
    }
    ring_open(&app.ring, storage, storage_bytes, capacity);
    app.shed_at_start = app.ring.head.shed;
    return ring_held(&app.ring);
}

int main(int argc, char **argv) {
    static enum identity_result identity;
    board_init(argc, argv);
    identity = read_identity(board_flash());
    if (identity != IDENTITY_OK) {
        xTaskCreateStatic(unprovisioned_task, "blank", SAMPLING_STACK_WORDS, &identity, 1, sampling_stack, task_memory);
        vTaskStartScheduler();
    }
    size_t retained_bytes;
    struct kept *kept = board_retained(&retained_bytes);
    bool boot_counted = count_boot(kept);
    say_started(boot_counted, open_ring(kept + 1, retained_bytes - sizeof *kept));

    app.interval_ms = 1000;
    app.checkin = checkin_begin(TASK_COUNT);
    app.ring_mutex = xSemaphoreCreateMutexStatic(&mutex_memory);
    app.commands = xQueueCreateStatic(QUEUE_DEPTH, sizeof(struct command_item), commands_storage, &commands_memory);
    app.answers = xQueueCreateStatic(QUEUE_DEPTH, sizeof(struct answer_item), answers_storage, &answers_memory);
    app.tasks[TASK_LINK] = xTaskCreateStatic(link_task, "link", LINK_STACK_WORDS, &app, PRIORITY_LINK, link_stack,
                                             &task_memory[TASK_LINK]);
    app.tasks[TASK_COMMAND] = xTaskCreateStatic(command_task, "command", COMMAND_STACK_WORDS, &app, PRIORITY_COMMAND,
                                                command_stack, &task_memory[TASK_COMMAND]);
    app.tasks[TASK_SAMPLING] = xTaskCreateStatic(sampling_task, "sample", SAMPLING_STACK_WORDS, &app, PRIORITY_SAMPLING,
                                                 sampling_stack, &task_memory[TASK_SAMPLING]);
    board_watchdog_start();
    vTaskStartScheduler();
}
