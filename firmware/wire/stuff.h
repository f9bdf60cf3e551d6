/// Inside wire only: stuffing byte by byte into a writer, shared by whole buffers and frames.

#ifndef EDGELOOP_WIRE_STUFF_H
#define EDGELOOP_WIRE_STUFF_H

#include "wire/wire.h"

/// Open the first block at self->bytes. out, capacity and bytes are set by the caller.
void wire_stuff_begin(struct wire_writer *self);
void wire_stuff(struct wire_writer *self, const uint8_t *data, size_t data_bytes);

/// Close the last block.
void wire_stuff_end(struct wire_writer *self);

#endif
