/* The floor: an echo server that does what the kernel and the protocol ask for, and nothing else.

   epoll, one recv, unmask, one send for all that a recv gave. A message that does not fit what was received is
   received straight into a buffer of its own, unmasked as its pieces come and sent when it is whole, because a server
   that hands out messages cannot answer before. No limits, no fragments, no extensions. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "sha1.h"

#define BUFFER_SIZE (256 * 1024)
#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
/* Ends by itself, whatever becomes of whoever started it. */
#define LIFETIME_S 900

enum { PING = 0x9, PONG = 0xA, CLOSE = 0x8 };

struct connection {
    int fd;
    uint32_t index;
    bool open, closing;
    /* The beginning of a header (or of the opening handshake) that was torn. */
    char *torn;
    size_t torn_size;
    /* A large message: its answer, header first, of which `have` bytes have come and been unmasked. The memory is kept,
       since fresh pages from the kernel would cost more than all the rest. */
    char *message;
    size_t room, size, have, sent, payload_begin;
    unsigned char mask[4];
    enum { SMALL, RECEIVING, ANSWERING } state;
    /* What the kernel did not take. */
    char *backlog;
    size_t backlog_size, backlog_sent;
};

static int poller, listener;
static bool broadcasting;
static struct connection **connections;
static uint32_t connection_count, connection_room;
static char in[BUFFER_SIZE], out[BUFFER_SIZE];

static void watch(struct connection *connection, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(poller, operation, connection->fd, &event);
}

static void add_connection(int fd) {
    struct connection *connection = allocate(1, sizeof *connection);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->fd = fd;
    if (connection_count == connection_room) {
        connection_room = connection_room ? connection_room * 2 : 64;
        connections = realloc(connections, connection_room * sizeof *connections);
        if (connections == NULL)
            FAIL("out of memory");
    }
    connection->index = connection_count;
    connections[connection_count++] = connection;
    watch(connection, EPOLLIN, EPOLL_CTL_ADD);
}

static void drop(struct connection *connection) {
    connections[connection->index] = connections[--connection_count];
    connections[connection->index]->index = connection->index;
    close(connection->fd);
    free(connection->torn);
    free(connection->message);
    free(connection->backlog);
    free(connection);
}

typedef uint64_t wide __attribute__((vector_size(32)));

static void unmask(char *to, const char *from, size_t size, const unsigned char mask[4], size_t offset) {
    unsigned char turned[sizeof(wide)];
    wide key, piece;
    for (size_t i = 0; i < sizeof turned; i++)
        turned[i] = mask[(offset + i) & 3];
    memcpy(&key, turned, sizeof key);
    size_t i = 0;
    for (; i + sizeof piece <= size; i += sizeof piece) {
        memcpy(&piece, from + i, sizeof piece);
        piece ^= key;
        memcpy(to + i, &piece, sizeof piece);
    }
    for (; i < size; i++)
        to[i] = (char)(from[i] ^ turned[i & 3]);
}

static void send_bytes(struct connection *connection, const char *bytes, size_t size) {
    size_t sent = 0;
    if (connection->backlog == NULL) {
        ssize_t count = send(connection->fd, bytes, size, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN)
            return;
        sent = count > 0 ? (size_t)count : 0;
        if (sent == size)
            return;
        /* No more is read until the peer has taken its answers. */
        watch(connection, EPOLLOUT, EPOLL_CTL_MOD);
    }
    connection->backlog = realloc(connection->backlog, connection->backlog_size + size - sent);
    if (connection->backlog == NULL)
        FAIL("out of memory");
    memcpy(connection->backlog + connection->backlog_size, bytes + sent, size - sent);
    connection->backlog_size += size - sent;
}

static void flush(struct connection *connection) {
    ssize_t count = send(connection->fd, connection->backlog + connection->backlog_sent,
                         connection->backlog_size - connection->backlog_sent, MSG_NOSIGNAL);
    if (count < 0)
        return;
    connection->backlog_sent += (size_t)count;
    if (connection->backlog_sent == connection->backlog_size) {
        free(connection->backlog);
        connection->backlog = NULL;
        connection->backlog_size = connection->backlog_sent = 0;
        watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static size_t put_header(char *to, unsigned char first, uint64_t length) {
    to[0] = (char)((first & 0xF) == PING ? (first & 0xF0) | PONG : first);
    if (length < 126) {
        to[1] = (char)length;
        return 2;
    }
    int bytes = length <= 0xFFFF ? 2 : 8;
    to[1] = bytes == 2 ? 126 : 127;
    for (int i = 0; i < bytes; i++)
        to[2 + i] = (char)(length >> (8 * (bytes - 1 - i)));
    return 2 + (size_t)bytes;
}

static void answer(struct connection *connection, const char *bytes, size_t size) {
    if (!broadcasting) {
        send_bytes(connection, bytes, size);
        return;
    }
    for (uint32_t i = 0; i < connection_count; i++)
        if (connections[i]->open)
            send_bytes(connections[i], bytes, size);
}

static void keep_torn(struct connection *connection, const char *bytes, size_t size) {
    if (size == 0)
        return;
    connection->torn = allocate(size, 1);
    memcpy(connection->torn, bytes, size);
    connection->torn_size = size;
}

static void begin_large(struct connection *connection, size_t header, size_t length) {
    connection->payload_begin = header;
    connection->size = header + length;
    connection->state = RECEIVING;
    if (connection->room < connection->size) {
        free(connection->message);
        connection->message = allocate(connection->size, 1);
        connection->room = connection->size;
    }
}

/* What the kernel does not take at once goes out from where it is. */
static void answer_large(struct connection *connection) {
    ssize_t count = send(connection->fd, connection->message + connection->sent, connection->size - connection->sent,
                         MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN)
        return;
    connection->sent += count > 0 ? (size_t)count : 0;
    bool done = connection->sent == connection->size;
    if (done == (connection->state == ANSWERING))
        watch(connection, done ? EPOLLIN : EPOLLOUT, EPOLL_CTL_MOD);
    connection->state = done ? SMALL : ANSWERING;
    if (done)
        connection->sent = 0;
}

static void receive_large(struct connection *connection, size_t count) {
    char *piece = connection->message + connection->have;
    unmask(piece, piece, count, connection->mask, connection->have - connection->payload_begin);
    connection->have += count;
    if (connection->have < connection->size)
        return;
    if (!broadcasting) {
        answer_large(connection);
    } else {
        connection->state = SMALL;
        answer(connection, connection->message, connection->size);
    }
}

/* Returns the bytes used of `size`; what is left is the beginning of a header. */
static size_t frames(struct connection *connection, const char *bytes, size_t size) {
    size_t pos = 0, out_size = 0;
    while (size - pos >= 2) {
        const unsigned char *frame = (const unsigned char *)bytes + pos;
        uint64_t length = frame[1] & 0x7F;
        size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0, header = 2 + extended + 4;
        if (!(frame[1] & 0x80))
            FAIL("a frame from a client without a mask");
        if (size - pos < header)
            break;
        if (extended) {
            length = 0;
            for (size_t i = 0; i < extended; i++)
                length = length << 8 | frame[2 + i];
        }
        const unsigned char *mask = frame + 2 + extended;
        if (size - pos - header < length) {
            begin_large(connection, header - 4, length);
            put_header(connection->message, frame[0], length);
            memcpy(connection->mask, mask, 4);
            size_t piece = size - pos - header;
            unmask(connection->message + header - 4, bytes + pos + header, piece, mask, 0);
            connection->have = header - 4 + piece;
            pos = size;
            break;
        }
        out_size += put_header(out + out_size, frame[0], length);
        unmask(out + out_size, bytes + pos + header, length, mask, 0);
        out_size += length;
        pos += header + length;
        if ((frame[0] & 0xF) == CLOSE)
            connection->closing = true;
    }
    if (out_size > 0)
        answer(connection, out, out_size);
    return pos;
}

static size_t handshake(struct connection *connection, char *bytes, size_t size) {
    char text[128], accept[29], response[256];
    unsigned char digest[20];
    char *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    *end = '\0';
    const char *key = strcasestr(bytes, "\nsec-websocket-key:");
    if (key == NULL)
        FAIL("a handshake without a key");
    key += strlen("\nsec-websocket-key:");
    key += strspn(key, " ");
    int text_size = snprintf(text, sizeof text, "%.24s" GUID, key);
    sha1(text, (size_t)text_size, digest);
    base64_digest(digest, accept);
    int response_size = snprintf(response, sizeof response,
                                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: %s\r\n\r\n",
                                 accept);
    send_bytes(connection, response, (size_t)response_size);
    connection->open = true;
    return (size_t)(end + 4 - bytes);
}

/* False when the connection is over. */
static bool receive(struct connection *connection) {
    if (connection->state == RECEIVING) {
        size_t missing = connection->size - connection->have;
        ssize_t count = recv(connection->fd, connection->message + connection->have, missing, 0);
        if (count > 0)
            receive_large(connection, (size_t)count);
        return count > 0 || (count < 0 && errno == EAGAIN);
    }
    size_t torn = connection->torn_size;
    if (torn > 0) {
        memcpy(in, connection->torn, torn);
        free(connection->torn);
        connection->torn = NULL;
        connection->torn_size = 0;
    }
    ssize_t count = recv(connection->fd, in + torn, sizeof in - torn, 0);
    if (count <= 0)
        return count < 0 && errno == EAGAIN;
    size_t size = torn + (size_t)count, used = 0;
    if (!connection->open)
        used = handshake(connection, in, size);
    if (connection->open)
        used += frames(connection, in + used, size - used);
    keep_torn(connection, in + used, size - used);
    return !connection->closing;
}

static void listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 4096) != 0)
        FAIL("cannot listen: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
}

static bool input_has_ended(void) {
    char ignored[64];
    return read(0, ignored, sizeof ignored) <= 0;
}

/* --spin: polls without sleeping, for measuring a client. --broadcast: sends every message to everybody. */
int main(int argc, char **argv) {
    int timeout = -1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--spin") == 0)
            timeout = 0;
        else if (strcmp(argv[i], "--broadcast") == 0)
            broadcasting = true;
        else
            FAIL("unknown option %s", argv[i]);
    }
    alarm(LIFETIME_S);
    allow_many_descriptors();
    poller = epoll_create1(EPOLL_CLOEXEC);
    listen_on_loopback();
    struct connection input = {.fd = 0}, new = {.fd = listener};
    watch(&new, EPOLLIN, EPOLL_CTL_ADD);
    watch(&input, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poller, events, 256, timeout);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == &input) {
                if (input_has_ended())
                    return 0;
            } else if (connection == &new) {
                for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;)
                    add_connection(fd);
            } else if (connection->state == ANSWERING) {
                answer_large(connection);
            } else if (connection->backlog != NULL) {
                flush(connection);
            } else if (!receive(connection)) {
                drop(connection);
            }
        }
    }
}
