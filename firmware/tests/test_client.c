#include "gateway_model.h"

static struct world world;

static bool is_ready(const struct world *w) {
    return mqttsn_client_ready(&w->client);
}

static bool is_drained(const struct world *w) {
    for (size_t i = 0; i < 4; i++) {
        if (w->outgoing[i].used) {
            return false;
        }
    }
    return is_ready(w) && ring_held(&w->ring) == 0 && mqttsn_client_slots_used(&w->client) == 0 && w->queued == 0;
}

static bool is_idle(const struct world *w) {
    return w->client.state == MQTTSN_STATE_IDLE;
}

static bool is_asleep(const struct world *w) {
    return w->client.state == MQTTSN_STATE_ASLEEP;
}

static bool is_connected(const struct world *w) {
    return w->client.state == MQTTSN_STATE_CONNECTED;
}

static bool is_waiting(const struct world *w) {
    return w->client.state == MQTTSN_STATE_WAITING;
}

static size_t count_told(const struct told *list, size_t count, const char *data) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += strcmp(list[i].data, data) == 0 ? 1U : 0U;
    }
    return found;
}

static void check_readings_in_order(const struct world *w, uint32_t boot, uint32_t first, uint32_t last) {
    CHECK_EQUAL(w->reading_count, last - first + 1);
    for (uint32_t i = 0; i <= last - first; i++) {
        char expected[20];
        snprintf(expected, sizeof expected, "r%u", (unsigned)(first + i));
        CHECK_EQUAL(w->readings[i].boot, boot);
        CHECK_EQUAL(w->readings[i].sequence, first + i);
        CHECK(strcmp(w->readings[i].data, expected) == 0);
    }
}

static void connect_world(bool will) {
    world_open(&world, will);
    mqttsn_client_start(&world.client);
    CHECK(run_until(&world, is_ready, 1000));
}

// --- One life of a board, with any one frame lost or doubled ---

static void live(unsigned lose_at, unsigned double_at) {
    world_open(&world, true);
    world.lose_at = lose_at;
    world.double_at = double_at;
    mqttsn_client_start(&world.client);
    CHECK(run_until(&world, is_ready, 300000));
    CHECK(strcmp(world.will_topic, "dt/b/gone") == 0);
    for (uint32_t i = 1; i <= 12; i++) {
        add_reading(&world, 5, i);
    }
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 1, false, "one", 3), MQTTSN_PUBLISH_OK);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 1, 2, true, "two", 3), MQTTSN_PUBLISH_OK);
    CHECK(run_until(&world, is_drained, 300000));
    gateway_publish(&world, "cmd/b/ping", 1, "hello", -1);
    gateway_publish(&world, "cmd/b/once", 2, "exactly", -1);
    CHECK(run_until(&world, is_drained, 300000));
    gateway_publish(&world, NULL, 1, "request", 300);
    CHECK(run_until(&world, is_drained, 300000));
    check_readings_in_order(&world, 5, 1, 12);
    CHECK(count_told(world.published, world.published_count, "one") >= 1);
    CHECK_EQUAL(count_told(world.published, world.published_count, "two"), 1);
    CHECK(count_told(world.delivered, world.delivered_count, "hello") >= 1);
    CHECK_EQUAL(count_told(world.delivered, world.delivered_count, "exactly"), 1);
    CHECK(world.answers >= 1);
    CHECK(count_told(world.delivered, world.delivered_count, "request") >= 1);
    CHECK(double_at != 0 || count_told(world.delivered, world.delivered_count, "request") == 1);
    CHECK_EQUAL(world.client.counters.connects, 1);
    CHECK_EQUAL(world.client.counters.readings_acknowledged, 12);
    mqttsn_client_sleep(&world.client, 100);
    CHECK(run_until(&world, is_asleep, 300000));
    mqttsn_client_start(&world.client);
    CHECK(run_until(&world, is_ready, 300000));
    mqttsn_client_stop(&world.client);
    CHECK(run_until(&world, is_idle, 300000));
}

static void test_a_life_without_loss(void) {
    live(0, 0);
    CHECK_EQUAL(world.client.counters.retries, 0);
    CHECK_EQUAL(world.client.counters.readings_sent_again, 0);
    CHECK_EQUAL(world.client.counters.rejected, 0);
    CHECK_EQUAL(world.client.counters.unexpected, 0);
    CHECK_EQUAL(world.rewinds, 0);
}

static void test_a_life_with_any_one_frame_lost_or_doubled_ends_the_same(void) {
    char name[60];
    live(0, 0);
    const unsigned frames = world.frames;
    CHECK(frames > 60);
    for (unsigned i = 1; i <= frames; i++) {
        snprintf(name, sizeof name, "frame %u of %u lost", i, frames);
        check_case = name;
        live(i, 0);
        snprintf(name, sizeof name, "frame %u of %u doubled", i, frames);
        live(0, i);
    }
    check_case = "";
}

// --- Readings ---

static void test_a_gap_is_closed_by_rewind_without_waiting_for_a_retry(void) {
    connect_world(false);
    for (uint32_t i = 1; i <= 20; i++) {
        add_reading(&world, 5, i);
    }
    world.lose_at = world.frames + 3;
    const uint32_t start_ms = world.now_ms;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK(world.now_ms - start_ms < 1000);
    CHECK(world.rewinds >= 1);
    check_readings_in_order(&world, 5, 1, 20);
}

static void test_a_lost_acknowledgement_delays_one_reading_half_a_second(void) {
    connect_world(false);
    for (uint32_t i = 1; i <= 5; i++) {
        add_reading(&world, 5, i);
    }
    mqttsn_client_poll(&world.client);
    world.lose_at = world.frames + 1;  // The first PUBACK.
    const uint32_t start_ms = world.now_ms;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK(world.now_ms - start_ms < 600);
    CHECK_EQUAL(world.client.counters.readings_sent_again, 1);
    check_readings_in_order(&world, 5, 1, 5);
}

static void test_the_window_leaves_one_place_to_answers(void) {
    connect_world(false);
    world.silent = true;
    for (uint32_t i = 1; i <= 20; i++) {
        add_reading(&world, 5, i);
    }
    run_until(&world, NULL, 1000);
    CHECK_EQUAL(world.client.counters.readings_sent, 7);
    gateway_publish(&world, NULL, 1, "request", 1);
    run_until(&world, NULL, 100);
    CHECK_EQUAL(world.answers, 1);
}

static void test_a_granted_window_smaller_than_the_table_holds(void) {
    connect_world(false);
    mqttsn_client_set_window(&world.client, 3);
    world.silent = true;
    for (uint32_t i = 1; i <= 20; i++) {
        add_reading(&world, 5, i);
    }
    run_until(&world, NULL, 1000);
    CHECK_EQUAL(world.client.counters.readings_sent, 2);
}

static void test_silence_is_answered_by_going_back_while_the_gateway_lives(void) {
    connect_world(false);
    world.silent = true;
    for (uint32_t i = 1; i <= 10; i++) {
        add_reading(&world, 5, i);
    }
    run_until(&world, NULL, 35000);
    CHECK_EQUAL(world.client.counters.readings_sent_again, 3 * 7);
    CHECK_EQUAL(world.client.counters.reconnects, 0);
    CHECK(world.sent_by_type[MQTTSN_PINGREQ] >= 3);
    world.silent = false;
    CHECK(run_until(&world, is_drained, 60000));
    check_readings_in_order(&world, 5, 1, 10);
}

static void test_congestion_is_answered_by_a_growing_pause(void) {
    connect_world(false);
    world.congest = 5;
    for (uint32_t i = 1; i <= 10; i++) {
        add_reading(&world, 5, i);
    }
    CHECK(run_until(&world, is_drained, 60000));
    CHECK(world.client.counters.congestions >= 1);
    check_readings_in_order(&world, 5, 1, 10);
    CHECK_EQUAL(world.client.counters.reconnects, 0);
    // Always congested: the pauses reach their bound, and few frames are spent.
    world.congest = 255;
    const unsigned before = world.sent_by_type[MQTTSN_PUBLISH];
    add_reading(&world, 5, 11);
    run_until(&world, NULL, 120000);
    CHECK(world.sent_by_type[MQTTSN_PUBLISH] - before < 20);
    CHECK(world.sent_by_type[MQTTSN_PUBLISH] - before > 5);
    CHECK_EQUAL(ring_held(&world.ring), 1);
}

static void test_an_invalid_topic_id_is_registered_again(void) {
    connect_world(false);
    world.invalid_topic = 1;
    const unsigned before = world.sent_by_type[MQTTSN_REGISTER];
    add_reading(&world, 5, 1);
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(world.sent_by_type[MQTTSN_REGISTER], before + 1);
    check_readings_in_order(&world, 5, 1, 1);
}

static void test_readings_of_an_earlier_boot_are_settled_first(void) {
    connect_world(false);
    for (uint32_t i = 7; i <= 9; i++) {
        add_reading(&world, 4, i);
    }
    for (uint32_t i = 1; i <= 3; i++) {
        add_reading(&world, 5, i);
    }
    world.lose_at = world.frames + 2;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(world.reading_count, 6);
    for (uint32_t i = 0; i < 6; i++) {
        CHECK_EQUAL(world.readings[i].boot, i < 3 ? 4 : 5);
        CHECK_EQUAL(world.readings[i].sequence, i < 3 ? i + 7 : i - 2);
    }
}

static void test_a_lossy_line_carries_every_reading_in_order_over_resets(void) {
    char name[60];
    for (unsigned seed = 1; seed <= 60; seed++) {
        snprintf(name, sizeof name, "one frame in five lost, seed %u", seed);
        check_case = name;
        connect_world(false);
        world.seed = seed;
        world.loss_percent = 20;
        for (uint32_t i = 1; i <= 20; i++) {
            add_reading(&world, 5, i);
        }
        run_until(&world, NULL, seed * 7);
        // A warm reset: the ring stays, the client begins anew, the gateway still thinks the old one is there.
        struct mqttsn_client_config config = world.client.config;
        CHECK_EQUAL(ring_open(&world.ring, world.ring_storage, sizeof world.ring_storage, 32), RING_RECOVERED);
        CHECK(mqttsn_client_init(&world.client, &config));
        mqttsn_client_set_window(&world.client, 8);
        mqttsn_client_start(&world.client);
        for (uint32_t i = 1; i <= 10; i++) {
            add_reading(&world, 6, i);
        }
        CHECK(run_until(&world, is_drained, 3000000));
        CHECK_EQUAL(world.reading_count, 30);
        for (uint32_t i = 0; i < 30; i++) {
            CHECK_EQUAL(world.readings[i].boot, i < 20 ? 5 : 6);
            CHECK_EQUAL(world.readings[i].sequence, i < 20 ? i + 1 : i - 19);
        }
    }
}

static void test_readings_refused_or_damaged_do_not_hold_up_the_rest(void) {
    connect_world(false);
    world.refuse = 2;
    for (uint32_t i = 1; i <= 10; i++) {
        add_reading(&world, 5, i);
    }
    world.ring.entries[5].crc ^= 1;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(world.client.counters.readings_refused, 2);
    CHECK_EQUAL(world.client.counters.readings_gone, 1);
    CHECK_EQUAL(world.reading_count, 7);
    CHECK_EQUAL(world.readings[2].sequence, 5);
    CHECK_EQUAL(world.readings[3].sequence, 7);
}

static void test_readings_shed_by_the_ring_are_passed_over(void) {
    connect_world(false);
    world.cut = true;
    for (uint32_t i = 1; i <= 10; i++) {
        add_reading(&world, 5, i);
    }
    run_until(&world, NULL, 200);
    for (uint32_t i = 11; i <= 50; i++) {
        add_reading(&world, 5, i);
    }
    CHECK_EQUAL(world.ring.head.shed, 18);
    world.cut = false;
    CHECK(run_until(&world, is_drained, 60000));
    check_readings_in_order(&world, 5, 19, 50);
    CHECK_EQUAL(world.client.counters.readings_gone, 7);
}

static void test_a_gateway_that_forgot_asks_for_all_that_is_held(void) {
    connect_world(false);
    world.silent = true;
    for (uint32_t i = 1; i <= 10; i++) {
        add_reading(&world, 5, i);
    }
    run_until(&world, NULL, 100);
    // It restarts: no session, no memory of readings.
    world.connected = false;
    world.silent = false;
    world.last_boot = 0;
    world.last_sequence = 0;
    world.reading_count = 0;
    CHECK(run_until(&world, is_drained, 60000));
    check_readings_in_order(&world, 5, 1, 10);
    CHECK_EQUAL(world.client.counters.reconnects, 1);
    CHECK(world.disconnects >= 1);
}

static void test_rewind_to_what_is_not_in_flight_is_harmless(void) {
    connect_world(false);
    mqttsn_client_rewind(&world.client, 5, 1);
    world.silent = true;
    for (uint32_t i = 1; i <= 3; i++) {
        add_reading(&world, 5, i);
    }
    run_until(&world, NULL, 50);
    mqttsn_client_rewind(&world.client, 5, 99);
    mqttsn_client_poll(&world.client);
    CHECK_EQUAL(world.client.counters.readings_sent_again, 0);
    mqttsn_client_rewind(&world.client, 5, 2);
    mqttsn_client_poll(&world.client);
    CHECK_EQUAL(world.client.counters.readings_sent_again, 2);
    mqttsn_client_rewind(&world.client, 9, 1);
    mqttsn_client_poll(&world.client);
    CHECK_EQUAL(world.client.counters.readings_sent_again, 5);
}

static void test_without_a_window_readings_go_one_at_a_time_as_plain_publishes(void) {
    connect_world(false);
    mqttsn_client_set_window(&world.client, 0);
    for (uint32_t i = 1; i <= 4; i++) {
        add_reading(&world, 5, i);
    }
    mqttsn_client_poll(&world.client);
    CHECK_EQUAL(world.client.counters.readings_sent, 1);
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(world.reading_count, 0);
    CHECK_EQUAL(world.published_count, 4);
    CHECK(strcmp(world.published[3].data, "r4") == 0 && strcmp(world.published[3].topic, "dt/b/temp") == 0);
}

// --- Publishes ---

static void test_publishes_are_refused_when_they_cannot_be_sent(void) {
    uint8_t data[200] = {0};
    connect_world(false);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 4, 1, false, data, 1), MQTTSN_PUBLISH_REFUSED);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 3, false, data, 1), MQTTSN_PUBLISH_REFUSED);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, -1, false, data, 1), MQTTSN_PUBLISH_REFUSED);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 1, false, data, 101), MQTTSN_PUBLISH_TOO_LONG);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 2, -1, false, data, 400), MQTTSN_PUBLISH_TOO_LONG);
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 1, false, data, 100), MQTTSN_PUBLISH_OK);
    }
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 1, false, data, 1), MQTTSN_PUBLISH_FULL);
}

static void test_publishes_without_a_session_go_out_in_any_state(void) {
    world_open(&world, false);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 2, -1, false, "x", 1), MQTTSN_PUBLISH_OK);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 3, -1, false, "y", 1), MQTTSN_PUBLISH_OK);
    run_until(&world, NULL, 100);
    CHECK_EQUAL(world.published_count, 2);
    CHECK(strcmp(world.published[0].topic, "#77") == 0 && strcmp(world.published[1].data, "y") == 0);
}

static void test_nothing_is_lost_when_the_line_has_no_room(void) {
    connect_world(false);
    world.no_room = true;
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 0, false, "zero", 4), MQTTSN_PUBLISH_OK);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 1, false, "one", 3), MQTTSN_PUBLISH_OK);
    add_reading(&world, 5, 1);
    gateway_publish(&world, NULL, 1, "short", -1);
    run_until(&world, NULL, 2000);
    CHECK_EQUAL(world.delivered_count, 1);
    CHECK(mqttsn_client_poll(&world.client) <= 5);
    world.no_room = false;
    CHECK(run_until(&world, is_drained, 1000));
    CHECK_EQUAL(count_told(world.published, world.published_count, "zero"), 1);
    CHECK_EQUAL(count_told(world.published, world.published_count, "one"), 1);
    check_readings_in_order(&world, 5, 1, 1);
}

static void test_publishes_are_held_until_they_are_taken_or_refused(void) {
    connect_world(false);
    const unsigned registers = world.sent_by_type[MQTTSN_REGISTER];
    world.congest = 1;
    world.invalid_topic = 1;
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 1, 1, false, "in the end", 10), MQTTSN_PUBLISH_OK);
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(count_told(world.published, world.published_count, "in the end"), 1);
    CHECK_EQUAL(world.client.counters.congestions, 1);
    CHECK_EQUAL(world.sent_by_type[MQTTSN_REGISTER], registers + 1);
    // A predefined topic cannot be registered: refused. Not supported: refused.
    world.invalid_topic = 1;
    world.refuse = 1;
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 2, 1, false, "x", 1), MQTTSN_PUBLISH_OK);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 1, 1, false, "y", 1), MQTTSN_PUBLISH_OK);
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(world.client.counters.publishes_refused, 2);
    CHECK_EQUAL(world.client.counters.publishes_acknowledged, 1);
}

static void test_topics_the_gateway_refuses_cost_what_is_published_on_them(void) {
    world_open(&world, false);
    world.refuse_topics = true;
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 1, 1, false, "early", 5), MQTTSN_PUBLISH_OK);
    add_reading(&world, 5, 1);
    mqttsn_client_start(&world.client);
    CHECK(run_until(&world, is_drained, 10000));
    CHECK_EQUAL(world.client.counters.publishes_refused, 1);
    CHECK_EQUAL(world.client.counters.readings_refused, 1);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 1, 1, false, "late", 4), MQTTSN_PUBLISH_REFUSED);
}

static void test_a_gateway_that_answers_nothing_but_pings_is_connected_to_anew(void) {
    connect_world(false);
    world.deaf = true;
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 1, 1, false, "patient", 7), MQTTSN_PUBLISH_OK);
    run_until(&world, NULL, 100000);
    CHECK_EQUAL(world.client.counters.reconnects, 0);
    run_until(&world, NULL, 100000);
    CHECK_EQUAL(world.client.counters.reconnects, 1);
    world.deaf = false;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(count_told(world.published, world.published_count, "patient"), 1);
}

// --- Deliveries ---

static void test_more_topics_than_the_table_holds_are_registered_again(void) {
    connect_world(false);
    const char *const names[] = {"cmd/b/1", "cmd/b/2", "cmd/b/3", "cmd/b/1", "cmd/b/2"};
    for (size_t i = 0; i < 5; i++) {
        gateway_publish(&world, names[i], 1, names[i], -1);
        CHECK(run_until(&world, is_drained, 60000));
        CHECK(strcmp(world.delivered[i].topic, names[i]) == 0 && strcmp(world.delivered[i].data, names[i]) == 0);
    }
    CHECK_EQUAL(world.delivered_count, 5);
    CHECK(world.client.counters.refused_deliveries >= 2);
}

static void test_an_application_without_room_has_the_gateway_repeat(void) {
    connect_world(false);
    world.answer_with = MQTTSN_CONGESTION;
    gateway_publish(&world, NULL, 1, "later", 7);
    gateway_publish(&world, NULL, 2, "twice", -1);
    run_until(&world, NULL, 5000);
    CHECK_EQUAL(world.delivered_count, 0);
    world.answer_with = MQTTSN_ACCEPTED;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK_EQUAL(world.delivered_count, 2);
    CHECK_EQUAL(world.answers, 1);
}

static void test_predefined_and_short_topics_are_delivered(void) {
    connect_world(false);
    gateway_publish(&world, NULL, 0, "short", -1);
    run_until(&world, NULL, 100);
    CHECK(strcmp(world.delivered[0].topic, "ab") == 0);
    uint8_t bytes[32];
    const struct mqttsn_message message = {.type = MQTTSN_PUBLISH,
                                           .topic_type = MQTTSN_TOPIC_PREDEFINED,
                                           .topic_id = 77,
                                           .data = (const uint8_t *)"p",
                                           .data_bytes = 1};
    mqttsn_client_receive(&world.client, bytes, mqttsn_encode(&message, bytes, sizeof bytes));
    CHECK_EQUAL(world.delivered_count, 2);
    CHECK(strcmp(world.delivered[1].data, "p") == 0);
}

// --- Sessions ---

static void test_a_quiet_line_is_kept_alive(void) {
    connect_world(false);
    run_until(&world, NULL, 300000);
    CHECK_EQUAL(world.client.counters.reconnects, 0);
    CHECK(world.sent_by_type[MQTTSN_PINGREQ] >= 10 && world.sent_by_type[MQTTSN_PINGREQ] <= 14);
}

static void test_a_gateway_that_went_away_is_noticed_and_found_again(void) {
    connect_world(false);
    add_reading(&world, 5, 1);
    CHECK(run_until(&world, is_drained, 1000));
    world.cut = true;
    world.connected = false;
    add_reading(&world, 5, 2);
    CHECK_EQUAL(mqttsn_client_publish(&world.client, 0, 1, false, "kept", 4), MQTTSN_PUBLISH_OK);
    CHECK(run_until(&world, is_waiting, 100000));
    CHECK_EQUAL(world.client.counters.reconnects, 1);
    run_until(&world, NULL, 600000);
    // Tries go on, but ever more slowly.
    CHECK(world.sent_by_type[MQTTSN_CONNECT] > 30 && world.sent_by_type[MQTTSN_CONNECT] < 70);
    world.cut = false;
    CHECK(run_until(&world, is_drained, 100000));
    check_readings_in_order(&world, 5, 1, 2);
    CHECK_EQUAL(count_told(world.published, world.published_count, "kept"), 1);
}

static void test_a_gateway_known_to_have_begun_anew_is_connected_to_at_once(void) {
    connect_world(false);
    world.connected = false;
    world.silent = true;
    add_reading(&world, 5, 1);
    mqttsn_client_poll(&world.client);
    mqttsn_client_restart(&world.client);
    world.silent = false;
    const uint32_t start_ms = world.now_ms;
    CHECK(run_until(&world, is_drained, 60000));
    CHECK(world.now_ms - start_ms < 200);
    CHECK_EQUAL(world.client.counters.reconnects, 1);
    CHECK_EQUAL(world.sent_by_type[MQTTSN_CONNECT], 2);
    check_readings_in_order(&world, 5, 1, 1);
    // While it waits for its next try as well.
    world.cut = true;
    CHECK(run_until(&world, is_waiting, 200000));
    world.cut = false;
    mqttsn_client_restart(&world.client);
    CHECK(run_until(&world, is_drained, 200));
}

static void test_a_congested_gateway_is_asked_again_later(void) {
    world_open(&world, false);
    world.congest = 2;
    mqttsn_client_start(&world.client);
    CHECK(run_until(&world, is_connected, 10000));
    CHECK_EQUAL(world.sent_by_type[MQTTSN_CONNECT], 3);
    CHECK_EQUAL(world.client.counters.congestions, 2);
}

static void test_a_sleeper_fetches_what_waits_and_sleeps_again(void) {
    connect_world(false);
    mqttsn_client_sleep(&world.client, 40);
    CHECK(run_until(&world, is_asleep, 1000));
    CHECK_EQUAL(world.sleep_s, 40);
    const uint32_t start_ms = world.now_ms;
    add_reading(&world, 5, 1);
    run_until(&world, NULL, 29000);
    CHECK_EQUAL(world.sent_by_type[MQTTSN_PINGREQ], 0);
    CHECK_EQUAL(world.reading_count, 0);
    run_until(&world, NULL, 2000);
    CHECK_EQUAL(world.sent_by_type[MQTTSN_PINGREQ], 1);
    CHECK(is_asleep(&world) && world.now_ms - start_ms >= 30000);
    mqttsn_client_start(&world.client);
    CHECK(run_until(&world, is_drained, 1000));
    CHECK_EQUAL(world.reading_count, 1);
}

static void test_a_subscription_is_given_up_and_taken_again(void) {
    connect_world(false);
    mqttsn_client_unsubscribe(&world.client, 1);
    CHECK(run_until(&world, is_ready, 1000));
    CHECK_EQUAL(world.sent_by_type[MQTTSN_UNSUBSCRIBE], 1);
    mqttsn_client_subscribe(&world.client, 1);
    CHECK(run_until(&world, is_ready, 1000));
    CHECK_EQUAL(world.sent_by_type[MQTTSN_SUBSCRIBE], 4);
}

// --- Bad input ---

static void test_messages_a_client_never_gets_are_counted(void) {
    uint8_t bytes[16];
    connect_world(false);
    const enum mqttsn_type types[] = {MQTTSN_SEARCHGW, MQTTSN_WILLTOPICUPD, MQTTSN_SUBSCRIBE};
    for (size_t i = 0; i < 3; i++) {
        const struct mqttsn_message message = {.type = types[i], .data = (const uint8_t *)"x", .data_bytes = 1};
        mqttsn_client_receive(&world.client, bytes, mqttsn_encode(&message, bytes, sizeof bytes));
    }
    mqttsn_client_receive(&world.client, "\x02\x03", 2);
    mqttsn_client_receive_request(&world.client, 1, "\x02\x16", 2);
    CHECK_EQUAL(world.client.counters.rejected, 5);
    CHECK(is_connected(&world));
}

static void test_acknowledgements_nobody_waits_for_are_counted(void) {
    uint8_t bytes[16];
    connect_world(false);
    const enum mqttsn_type types[] = {MQTTSN_PUBACK,       MQTTSN_PUBREC,    MQTTSN_PUBCOMP, MQTTSN_PUBREL,
                                      MQTTSN_CONNACK,      MQTTSN_REGACK,    MQTTSN_SUBACK,  MQTTSN_UNSUBACK,
                                      MQTTSN_WILLTOPICREQ, MQTTSN_WILLMSGREQ};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct mqttsn_message message = {.type = types[i], .msg_id = 999};
        mqttsn_client_receive(&world.client, bytes, mqttsn_encode(&message, bytes, sizeof bytes));
    }
    CHECK_EQUAL(world.client.counters.unexpected, sizeof types / sizeof types[0]);
    CHECK(is_connected(&world));
}

static void test_noise_never_harms_the_client(void) {
    uint8_t bytes[64];
    unsigned seed = 11;
    connect_world(false);
    check_case = "noise, seed 11";
    world.cut = true;
    for (unsigned round = 0; round < 100000; round++) {
        const size_t count = 2 + next_random(&seed) % 20;
        for (size_t i = 0; i < count; i++) {
            bytes[i] = (uint8_t)next_random(&seed);
        }
        bytes[0] = (uint8_t)count;
        bytes[1] = (uint8_t)(bytes[1] % 0x20);
        world.delivered_count = 0;
        if (round % 50 == 0) {
            add_reading(&world, 5, round + 1);
        }
        if (round % 8 == 0) {
            mqttsn_client_receive_request(&world.client, (uint16_t)round, bytes, count);
            world.answer_requests = mqttsn_client_slots_used(&world.client) < 3;
        } else {
            mqttsn_client_receive(&world.client, bytes, count);
        }
        world.answer_requests = mqttsn_client_slots_used(&world.client) < 3;
        world.now_ms += next_random(&seed) % 100;
        mqttsn_client_poll(&world.client);
    }
    world.cut = false;
    world.answer_requests = true;
    world.connected = false;
    CHECK(run_until(&world, is_drained, 600000));
}

static void test_a_configuration_that_lacks_something_is_refused(void) {
    world_open(&world, false);
    struct mqttsn_client client;
    struct mqttsn_client_config config = world.client.config;
    CHECK(mqttsn_client_init(&client, &config));
    config.client_id = "";
    CHECK(!mqttsn_client_init(&client, &config));
    config.client_id = "abcdefghijklmnopqrstuvwx";
    CHECK(!mqttsn_client_init(&client, &config));
    config = world.client.config;
    config.flight_count = 0;
    CHECK(!mqttsn_client_init(&client, &config));
    config = world.client.config;
    config.platform.tx = NULL;
    CHECK(!mqttsn_client_init(&client, &config));
    config = world.client.config;
    config.keepalive_s = 0;
    CHECK(!mqttsn_client_init(&client, &config));
}

int main(void) {
    RUN(test_a_life_without_loss);
    RUN(test_a_life_with_any_one_frame_lost_or_doubled_ends_the_same);
    RUN(test_a_gap_is_closed_by_rewind_without_waiting_for_a_retry);
    RUN(test_a_lost_acknowledgement_delays_one_reading_half_a_second);
    RUN(test_the_window_leaves_one_place_to_answers);
    RUN(test_a_granted_window_smaller_than_the_table_holds);
    RUN(test_silence_is_answered_by_going_back_while_the_gateway_lives);
    RUN(test_congestion_is_answered_by_a_growing_pause);
    RUN(test_an_invalid_topic_id_is_registered_again);
    RUN(test_readings_of_an_earlier_boot_are_settled_first);
    RUN(test_a_lossy_line_carries_every_reading_in_order_over_resets);
    RUN(test_readings_refused_or_damaged_do_not_hold_up_the_rest);
    RUN(test_readings_shed_by_the_ring_are_passed_over);
    RUN(test_a_gateway_that_forgot_asks_for_all_that_is_held);
    RUN(test_rewind_to_what_is_not_in_flight_is_harmless);
    RUN(test_without_a_window_readings_go_one_at_a_time_as_plain_publishes);
    RUN(test_publishes_are_refused_when_they_cannot_be_sent);
    RUN(test_publishes_without_a_session_go_out_in_any_state);
    RUN(test_nothing_is_lost_when_the_line_has_no_room);
    RUN(test_publishes_are_held_until_they_are_taken_or_refused);
    RUN(test_topics_the_gateway_refuses_cost_what_is_published_on_them);
    RUN(test_a_gateway_that_answers_nothing_but_pings_is_connected_to_anew);
    RUN(test_more_topics_than_the_table_holds_are_registered_again);
    RUN(test_an_application_without_room_has_the_gateway_repeat);
    RUN(test_predefined_and_short_topics_are_delivered);
    RUN(test_a_quiet_line_is_kept_alive);
    RUN(test_a_gateway_that_went_away_is_noticed_and_found_again);
    RUN(test_a_gateway_known_to_have_begun_anew_is_connected_to_at_once);
    RUN(test_a_congested_gateway_is_asked_again_later);
    RUN(test_a_sleeper_fetches_what_waits_and_sleeps_again);
    RUN(test_a_subscription_is_given_up_and_taken_again);
    RUN(test_messages_a_client_never_gets_are_counted);
    RUN(test_acknowledgements_nobody_waits_for_are_counted);
    RUN(test_noise_never_harms_the_client);
    RUN(test_a_configuration_that_lacks_something_is_refused);
    return 0;
}
