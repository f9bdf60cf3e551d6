/// What the application's tasks share. All of it lives in one struct; each field names who writes it.
///
///   link      owns the UART, the wire and the MQTT-SN client; nobody else touches them.
///   sampling  reads the sensor and pushes readings into the ring.
///   command   runs commands, one at a time, so that a slow one does not hold up the line.
///
/// Commands and answers pass by value through two queues; the ring is behind a mutex; settings and counters are single
/// words that one task writes and others read.
#ifndef EDGELOOP_APP_H
#define EDGELOOP_APP_H

#include <FreeRTOS.h>
#include <queue.h>
#include <semphr.h>
#include <task.h>

#include "app/checkin.h"
#include "app/command.h"
#include "app/identity.h"
#include "mqttsn/mqttsn.h"
#include "ring/ring.h"

#define APP_VERSION "0.1.0"

enum {
    CONTENT_BYTES_MAX = 640,  ///< Of a frame we take; told in HELLO.
    COMMAND_BYTES_MAX = 600,  ///< Of a command's payload.
    ANSWER_BYTES_MAX = 1024,  ///< Of an answer; the longest is `stats`.
    QUEUE_DEPTH = 4,          ///< Commands waiting, and answers waiting; a further command is told "congestion".
    WINDOW = 16,              ///< Readings in flight, before the gateway grants fewer.
    CHECKIN_MS = 500,         ///< Every task is back at least this often; BOARD_WATCHDOG_MS is eight times that.
};

enum task_number { TASK_LINK, TASK_SAMPLING, TASK_COMMAND, TASK_COUNT };

struct command_item {
    enum command command;
    bool has_request;
    struct mqttsn_request request;
    uint16_t payload_bytes;
    uint8_t payload[COMMAND_BYTES_MAX];
};

struct answer_item {
    enum command_effect effect;
    bool has_request;
    struct mqttsn_request request;
    uint16_t payload_bytes;
    uint8_t payload[ANSWER_BYTES_MAX];
};

/// What the application keeps over a warm reset, beside the ring.
struct kept {
    uint32_t boot;             ///< Of the last start: what counts on when the flash refuses the boot counter.
    uint32_t watchdog_resets;  ///< Since power-up.
    uint32_t check;            ///< CRC-32 over the fields before.
};

struct app {
    struct identity identity;
    uint32_t boot;
    struct kept *kept;
    TaskHandle_t tasks[TASK_COUNT];
    struct checkin checkin;  ///< Any task, in a critical section.

    struct ring ring;  ///< Behind ring_mutex.
    SemaphoreHandle_t ring_mutex;
    uint32_t shed_at_start;      ///< ring.head.shed when this boot began.
    volatile bool ring_awaited;  ///< sampling sets it and waits; link clears it and wakes sampling.

    QueueHandle_t commands;
    QueueHandle_t answers;

    volatile uint32_t interval_ms;  ///< command writes.
    volatile bool paused;           ///< command writes.

    volatile uint32_t readings_produced;  ///< sampling writes.
    volatile uint32_t sensor_errors;      ///< sampling writes.
    volatile uint32_t commands_received;  ///< link writes.
    volatile uint32_t commands_answered;  ///< link writes.
};

/// Every task, at least every CHECKIN_MS.
void app_check_in(struct app *app, enum task_number task);
void app_ring_lock(void *app);
void app_ring_unlock(void *app);
uint32_t app_now_ms(void);

/// link.c: the counters of this boot, for STATS and the command `stats`. Any task.
void link_stats(struct app *app, struct wire_stats *out);

_Noreturn void link_task(void *app);
_Noreturn void sampling_task(void *app);
_Noreturn void command_task(void *app);

#endif
