#include "app/app.h"

// Static, not on the stack: both are a kilobyte or so, and only this task uses them.
static struct command_item item;
static struct answer_item answer;
static struct wire_stats stats;

_Noreturn void command_task(void *context) {
    struct app *app = context;
    for (;;) {
        app_check_in(app, TASK_COMMAND);
        if (xQueueReceive(app->commands, &item, pdMS_TO_TICKS(CHECKIN_MS)) != pdTRUE) {
            continue;
        }
        struct settings settings = {.interval_ms = app->interval_ms, .paused = app->paused};
        link_stats(app, &stats);
        struct command_result result = command_run(item.command, item.payload, item.payload_bytes, &settings, &stats,
                                                   answer.payload, sizeof answer.payload);
        answer.effect = result.effect;
        answer.has_request = item.has_request;
        answer.request = item.request;
        answer.payload_bytes = (uint16_t)result.answer_bytes;
        app->interval_ms = settings.interval_ms;
        app->paused = settings.paused;
        if (result.effect == EFFECT_SETTINGS) {
            xTaskNotifyGive(app->tasks[TASK_SAMPLING]);
        }
        while (xQueueSend(app->answers, &answer, pdMS_TO_TICKS(CHECKIN_MS)) != pdTRUE) {
            app_check_in(app, TASK_COMMAND);
        }
        xTaskNotifyGive(app->tasks[TASK_LINK]);
    }
}
