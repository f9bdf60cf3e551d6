#include "app/app.h"
#include "app/text.h"
#include "boards/board.h"

enum { SENSOR_RETRY_MS = 200 };

static bool sample(struct app *app, uint32_t sequence) {
    int16_t sixteenths_c;
    if (!board_sensor_read(&sixteenths_c)) {
        app->sensor_errors++;
        return false;
    }
    struct ring_reading reading = {.boot = app->boot, .sequence = sequence};
    struct text payload = text_begin(reading.payload, sizeof reading.payload);
    text_put(&payload, "{\"c\":");
    text_put_sixteenths(&payload, sixteenths_c);
    text_put(&payload, ",\"up_ms\":");
    text_put_uint(&payload, board_now_us() / 1000);
    text_put(&payload, "}");
    reading.payload_bytes = (uint8_t)payload.bytes;
    app_ring_lock(app);
    ring_push(&app->ring, &reading);
    app_ring_unlock(app);
    app->readings_produced = sequence;
    return true;
}

// As fast as the ring takes them: a full ring makes us wait, it does not shed.
static bool must_wait_for_room(struct app *app) {
    app->ring_awaited = true;
    app_ring_lock(app);
    bool full = ring_free(&app->ring) == 0;
    app_ring_unlock(app);
    app->ring_awaited = full;
    return full;
}

static void wait_ms(uint32_t ms) {
    TickType_t ticks = pdMS_TO_TICKS(ms < CHECKIN_MS ? ms : CHECKIN_MS);
    ulTaskNotifyTake(pdTRUE, ticks > 0 ? ticks : 1);
}

// Woken early when the settings changed or the ring has room again.
_Noreturn void sampling_task(void *context) {
    struct app *app = context;
    uint32_t due_ms = app_now_ms();
    for (;;) {
        app_check_in(app, TASK_SAMPLING);
        uint32_t now_ms = app_now_ms();
        uint32_t interval_ms = app->interval_ms;
        int32_t left_ms = (int32_t)(due_ms - now_ms);
        if (app->paused || (interval_ms == 0 && must_wait_for_room(app))) {
            wait_ms(CHECKIN_MS);
            due_ms = app_now_ms();
            continue;
        }
        if (left_ms > 0 && (uint32_t)left_ms <= interval_ms) {
            wait_ms((uint32_t)left_ms);
            continue;
        }
        // A step late by more than one interval begins a new rhythm instead of catching up.
        due_ms = (uint32_t)-left_ms < interval_ms ? due_ms + interval_ms : now_ms + interval_ms;
        if (!sample(app, app->readings_produced + 1)) {
            wait_ms(SENSOR_RETRY_MS);
        } else {
            // The link sleeps when nothing is in flight: tell it.
            xTaskNotifyGive(app->tasks[TASK_LINK]);
        }
    }
}
