/* Reads what a server sends on one connection, and checks it against what was asked for. */
#ifndef REPLY_H
#define REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"

struct reader {
    const struct ring *ring;
    uint32_t expected;
    /* Messages whose content is still compared; for those after them, the length (compressed ones: the framing). */
    uint32_t to_verify;
    /* How often each message of the ring comes before the next one, and how often this one came. */
    uint32_t repeats, repeated;
    bool server_takeover;
    void *inflater;

    unsigned char header[14];
    uint8_t header_have;
    bool in_payload;
    bool data, compressed, in_message;
    unsigned char control[125];
    uint8_t control_size;
    uint64_t left;
    uint64_t message_size;
};

void reader_init(struct reader *reader, const struct ring *ring, uint32_t to_verify, bool server_takeover);
/* The number of messages that end in these bytes. A wrong one ends the program. */
uint32_t reader_feed(struct reader *reader, const char *bytes, size_t size);

#endif
