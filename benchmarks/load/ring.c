#include "ring.h"

#include "common.h"

static void read_all(FILE *file, void *into, size_t size) {
    if (fread(into, 1, size, file) != size)
        FAIL("the file of messages is too short");
}

void ring_load(struct ring *ring, const char *path, uint32_t ahead) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        FAIL("cannot open %s", path);
    uint32_t count;
    read_all(file, &count, sizeof count);
    uint32_t *frame_size = allocate(count, sizeof *frame_size);
    ring->count = count;
    ring->reply_size = allocate(count, sizeof *ring->reply_size);
    ring->replies = allocate(count, sizeof *ring->replies);
    ring->begin = allocate(count + ahead + 1, sizeof *ring->begin);
    read_all(file, frame_size, count * sizeof *frame_size);
    read_all(file, ring->reply_size, count * sizeof *ring->reply_size);
    for (uint32_t i = 0; i < count + ahead; i++)
        ring->begin[i + 1] = ring->begin[i] + frame_size[i % count];
    ring->frames = allocate(ring->begin[count + ahead], 1);
    read_all(file, ring->frames, ring->begin[count]);
    for (uint32_t i = count; i < count + ahead; i++)
        memcpy(ring->frames + ring->begin[i], ring->frames + ring->begin[i % count], frame_size[i % count]);
    for (uint32_t i = 0; i < count; i++) {
        ring->replies[i] = allocate(ring->reply_size[i] + 1, 1);
        read_all(file, ring->replies[i], ring->reply_size[i]);
    }
    free(frame_size);
    fclose(file);
}
