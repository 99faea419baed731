/* Opens and closes connections, both with their handshakes, as fast as the server lets it, `width` at a time. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "socket.h"

#define PATIENCE_NS (20 * (int64_t)1000000000)

/* 1000, under the mask of zeros. */
static const char close_frame[] = "\x88\x82\x00\x00\x00\x00\x03\xe8";

enum state { CONNECTING, SHAKING_HANDS, CLOSING };

struct connection {
    int fd;
    enum state state;
    size_t have;
    char head[2048];
};

static int poller, port;
static uint32_t opened;

static void open_one(struct connection *connection) {
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    connection->state = CONNECTING;
    connection->have = 0;
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    /* From many addresses, because a closed connection's port rests for a minute. */
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + opened++ % 200);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(connection->fd, (struct sockaddr *)&from, sizeof from) != 0)
        FAIL("bind: %s", strerror(errno));
    if (connect(connection->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        FAIL("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
}

static void send_all(struct connection *connection, const char *bytes, size_t size) {
    if (send(connection->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
        FAIL("send: %s", strerror(errno));
}

/* Whether the connection was closed in good order. */
static int advance(struct connection *connection) {
    if (connection->state == CONNECTING) {
        char request[1024];
        send_all(connection, request, handshake_request(request, sizeof request, "/", false));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
        connection->state = SHAKING_HANDS;
        return 0;
    }
    ssize_t count = recv(connection->fd, connection->head + connection->have,
                         sizeof connection->head - 1 - connection->have, 0);
    if (count < 0 && errno == EAGAIN)
        return 0;
    if (count < 0)
        FAIL("recv: %s", strerror(errno));
    if (count > 0)
        connection->have += (size_t)count;
    if (connection->state == SHAKING_HANDS) {
        struct agreed agreed;
        if (count == 0)
            FAIL("the server closed a connection instead of a handshake");
        if (handshake_response(connection->head, connection->have, &agreed) == 0)
            return 0;
        send_all(connection, close_frame, sizeof close_frame - 1);
        connection->have = 0;
        connection->state = CLOSING;
        return 0;
    }
    /* RFC 6455 section 7.1.1: it is the server that closes the TCP connection. */
    if (count > 0)
        return 0;
    if (connection->have < 2 || (unsigned char)connection->head[0] != 0x88)
        FAIL("the server closed a connection without a close frame");
    close(connection->fd);
    return 1;
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},   {"pid", 1, 0, 'P'},     {"width", 1, 0, 'c'},
        {"warmup", 1, 0, 'w'}, {"seconds", 1, 0, 's'}, {0, 0, 0, 0},
    };
    int width = 32;
    pid_t pid = 0;
    double warmup = 0.5, seconds = 2;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'P': pid = atoi(optarg); break;
        case 'c': width = atoi(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        default: exit(2);
        }
    }
    allow_many_descriptors();
    clockid_t server_clock = cpu_clock_of(pid);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct connection *connections = allocate((size_t)width, sizeof *connections);
    for (int i = 0; i < width; i++)
        open_one(&connections[i]);

    int64_t begin = now_ns() + (int64_t)(warmup * 1e9), end = 0, server_begin = 0, own_begin = 0, now, last = now_ns();
    uint64_t closed = 0;
    while ((now = now_ns()) < begin || end == 0 || now < end) {
        if (end == 0 && now >= begin) {
            begin = now;
            end = now + (int64_t)(seconds * 1e9);
            closed = 0;
            server_begin = clock_ns(server_clock);
            own_begin = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        }
        struct epoll_event events[64];
        int count = epoll_wait(poller, events, 64, 0);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (advance(connection)) {
                closed++;
                last = now;
                open_one(connection);
            }
        }
        if (now - last > PATIENCE_NS)
            FAIL("no connection was closed for %d s", (int)(PATIENCE_NS / 1000000000));
    }
    if (closed == 0)
        FAIL("no connection was closed within the measured time");
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"server_cpu\": %.6f, \"load_cpu_share\": %.3f}\n",
           (unsigned long long)closed, (double)(now - begin) / 1e9,
           (double)(clock_ns(server_clock) - server_begin) / 1e9,
           (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_begin) / (double)(now - begin));
    return 0;
}
