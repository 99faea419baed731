/* The messages that are sent over and over, as frames that are masked (and compressed) already. */
#ifndef RING_H
#define RING_H

#include <stdint.h>

struct ring {
    uint32_t count;
    /* Frame i begins at frames + begin[i]. Frames past the last one are the first ones again, so that `ahead`
       frames from any one on lie side by side and go out in one send. */
    uint64_t *begin;
    char *frames;
    char **replies;
    uint32_t *reply_size;
};

/* A file written by ring.py; see there for its format. */
void ring_load(struct ring *ring, const char *path, uint32_t ahead);

#endif
