/* What the native engine does byte by byte, in C so that the compiler can see it whole. */
#ifndef TORNADO_WS_NATIVE_H
#define TORNADO_WS_NATIVE_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* out = data ^ key, the key begun at byte `turn` of it; out may be data. Plain loops over words: -O3 makes SIMD of them. */
static inline void tws_mask(uint8_t *out, const uint8_t *data, size_t size, const uint8_t *key, size_t turn) {
    uint8_t turned[8];
    uint64_t word, mask;
    size_t i;
    for (i = 0; i < 8; i++)
        turned[i] = key[(turn + i) & 3];
    memcpy(&mask, turned, 8);
    for (i = 0; i + 8 <= size; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= mask;
        memcpy(out + i, &word, 8);
    }
    for (; i < size; i++)
        out[i] = data[i] ^ turned[i & 7];
}

/* Check more bytes of a UTF-8 text; 0 at the first byte that no text can have there.
 * The state is 0 between characters, else: continuation bytes still to come, and the range of the next one. */
static inline int tws_utf8(uint32_t *state, const uint8_t *data, size_t size) {
    uint32_t left = *state & 3, low = (*state >> 8) & 0xFF, high = (*state >> 16) & 0xFF;
    size_t i = 0;
    uint64_t word;
    uint8_t byte;
    while (i < size) {
        if (!left) {
            while (i + 8 <= size) {
                memcpy(&word, data + i, 8);
                if (word & 0x8080808080808080ULL)
                    break;
                i += 8;
            }
            if (i == size)
                break;
            byte = data[i++];
            if (byte < 0x80)
                continue;
            low = 0x80;
            high = 0xBF;
            if (byte >= 0xC2 && byte <= 0xDF) {
                left = 1;
            } else if (byte >= 0xE0 && byte <= 0xEF) {
                left = 2;
                if (byte == 0xE0)
                    low = 0xA0;
                else if (byte == 0xED)
                    high = 0x9F;
            } else if (byte >= 0xF0 && byte <= 0xF4) {
                left = 3;
                if (byte == 0xF0)
                    low = 0x90;
                else if (byte == 0xF4)
                    high = 0x8F;
            } else {
                return 0;
            }
        } else {
            byte = data[i++];
            if (byte < low || byte > high)
                return 0;
            low = 0x80;
            high = 0xBF;
            left--;
        }
    }
    *state = left | (low << 8) | (high << 16);
    return 1;
}

/* Bytes that nobody has any more are about to be written over. The field is there in every CPython, if deprecated. */
static inline void tws_forget_hash(PyObject *data) {
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
    ((PyBytesObject *)data)->ob_shash = -1;
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
}

#endif
