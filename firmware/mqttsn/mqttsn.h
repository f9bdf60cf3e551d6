/// MQTT-SN 1.2 for a board: the codec of the messages, and the client as a state machine without I/O.

#ifndef EDGELOOP_MQTTSN_H
#define EDGELOOP_MQTTSN_H

#include "mqttsn/client.h"
#include "mqttsn/message.h"

#endif
