#include "reply.h"

#include <zlib.h>

#include "common.h"

enum { FIN = 0x80, RSV1 = 0x40, RSV_OTHER = 0x30, MASKED = 0x80, CONTROL = 0x8, CLOSE = 0x8 };

void reader_init(struct reader *reader, const struct ring *ring, uint32_t to_verify, bool server_takeover) {
    memset(reader, 0, sizeof *reader);
    reader->ring = ring;
    reader->to_verify = to_verify;
    reader->repeats = 1;
    reader->server_takeover = server_takeover;
}

static void compare(struct reader *reader, const char *bytes, size_t size) {
    if (reader->message_size + size > reader->ring->reply_size[reader->expected] ||
        memcmp(reader->ring->replies[reader->expected] + reader->message_size, bytes, size) != 0)
        FAIL("a reply differs from what was sent");
    reader->message_size += size;
}

static void inflate_and_compare(struct reader *reader, const char *bytes, size_t size) {
    char plain[16384];
    z_stream *stream = reader->inflater;
    if (stream == NULL) {
        stream = reader->inflater = allocate(1, sizeof *stream);
        if (inflateInit2(stream, -15) != Z_OK)
            FAIL("zlib does not start");
    }
    stream->next_in = (Bytef *)(uintptr_t)bytes;
    stream->avail_in = (uInt)size;
    do {
        stream->next_out = (Bytef *)plain;
        stream->avail_out = sizeof plain;
        int result = inflate(stream, Z_SYNC_FLUSH);
        if (result != Z_OK && result != Z_BUF_ERROR)
            FAIL("a reply is not a deflate stream (%d)", result);
        compare(reader, plain, sizeof plain - stream->avail_out);
    } while (stream->avail_out == 0);
}

static void payload(struct reader *reader, const char *bytes, size_t size) {
    if (!reader->data) {
        if (size > sizeof reader->control - reader->control_size)
            FAIL("the server sent a control frame with a payload of more than 125 bytes");
        memcpy(reader->control + reader->control_size, bytes, size);
        reader->control_size = (uint8_t)(reader->control_size + size);
        return;
    }
    if (reader->to_verify == 0)
        reader->message_size += size;
    else if (reader->compressed)
        inflate_and_compare(reader, bytes, size);
    else
        compare(reader, bytes, size);
}

static void message_end(struct reader *reader) {
    if (reader->compressed && reader->to_verify > 0) {
        inflate_and_compare(reader, "\x00\x00\xff\xff", 4);
        if (!reader->server_takeover)
            inflateReset(reader->inflater);
    }
    bool known = !reader->compressed || reader->to_verify > 0;
    if (known && reader->message_size != reader->ring->reply_size[reader->expected])
        FAIL("a reply of %llu bytes instead of %u", (unsigned long long)reader->message_size,
             reader->ring->reply_size[reader->expected]);
    if (reader->to_verify > 0 && --reader->to_verify == 0 && reader->inflater != NULL) {
        inflateEnd(reader->inflater);
        free(reader->inflater);
        reader->inflater = NULL;
    }
    if (++reader->repeated == reader->repeats) {
        reader->repeated = 0;
        reader->expected = reader->expected + 1 == reader->ring->count ? 0 : reader->expected + 1;
    }
    reader->message_size = 0;
    reader->in_message = false;
}

/* The size that the header will have, as far as the bytes tell. */
static size_t header_size(const unsigned char *header, size_t have) {
    if (have < 2)
        return 2;
    unsigned length = header[1] & 0x7F;
    return 2 + (length == 126 ? 2u : length == 127 ? 8u : 0u) + (header[1] & MASKED ? 4u : 0u);
}

static void header_end(struct reader *reader, const unsigned char *header) {
    unsigned first = header[0], opcode = first & 0xF;
    uint64_t length = header[1] & 0x7F;
    unsigned extended = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (extended) {
        length = 0;
        for (unsigned i = 0; i < extended; i++)
            length = length << 8 | header[2 + i];
    }
    reader->data = !(opcode & CONTROL);
    reader->control_size = 0;
    if (first & RSV_OTHER || (reader->data && (opcode == 0) != reader->in_message))
        FAIL("the server sent a frame with first byte %#x", first);
    if (reader->data && !reader->in_message) {
        reader->compressed = first & RSV1;
        reader->in_message = true;
    }
    reader->header[0] = (unsigned char)first;
    reader->left = length;
    reader->in_payload = true;
}

static void closed(const struct reader *reader) {
    if (reader->control_size < 2)
        FAIL("the server sent a close frame");
    FAIL("the server sent a close frame: %d %.*s", reader->control[0] << 8 | reader->control[1],
         reader->control_size - 2, reader->control + 2);
}

uint32_t reader_feed(struct reader *reader, const char *bytes, size_t size) {
    uint32_t messages = 0;
    const char *end = bytes + size;
    while (bytes < end || (reader->in_payload && reader->left == 0)) {
        if (!reader->in_payload) {
            /* Most headers lie whole in what was received; only a torn one is put together. */
            size_t whole = header_size((const unsigned char *)bytes, (size_t)(end - bytes));
            if (reader->header_have == 0 && end - bytes >= 2 && (size_t)(end - bytes) >= whole) {
                header_end(reader, (const unsigned char *)bytes);
                bytes += whole;
                continue;
            }
            reader->header[reader->header_have++] = (unsigned char)*bytes++;
            if (reader->header_have >= 2 &&
                reader->header_have == header_size(reader->header, reader->header_have)) {
                reader->header_have = 0;
                header_end(reader, reader->header);
            }
            continue;
        }
        size_t piece = (size_t)(end - bytes) < reader->left ? (size_t)(end - bytes) : (size_t)reader->left;
        if (piece > 0)
            payload(reader, bytes, piece);
        bytes += piece;
        reader->left -= piece;
        if (reader->left == 0) {
            reader->in_payload = false;
            if ((reader->header[0] & 0xF) == CLOSE)
                closed(reader);
            if (reader->data && reader->header[0] & FIN) {
                message_end(reader);
                messages++;
            }
        }
    }
    return messages;
}
