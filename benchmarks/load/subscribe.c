/* Clients of servers that hand on what somebody else publishes: counts messages, and measures how long they took.

   A message has the time at which it was published, as "@" and 19 digits: nanoseconds of CLOCK_MONOTONIC, which all
   processes of a machine share. Whatever else is around it is the framing of a library. All clients of the servers are
   here, on one core with the broker and the publisher, so this program sleeps where nothing is ready.

   The publisher is asked by a byte: for a batch, and for the next when all clients have it; or once, for messages at a
   rate of its own. With --resume nobody is asked: each client has missed messages, and all come back at once. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "histogram.h"
#include "socket.h"

#define PATIENCE_NS (20 * (int64_t)1000000000)
#define BUFFER_SIZE (1024 * 1024)
#define MOST_SERVERS 16
#define STAMP_DIGITS 19
/* Before the first batch, in microseconds: a server may be subscribed at the broker after it has told its client so. */
#define SETTLE_US 300000

enum { FIN = 0x80, TEXT = 0x1, CLOSE = 0x8 };

struct connection {
    struct channel channel;
    bool open, ready;
    /* The beginning of a head or a frame. */
    char *torn;
    size_t torn_size;
    uint64_t got;
    int64_t last_stamp;
};

static struct {
    int ports[MOST_SERVERS], servers, connections, topics, publisher;
    pid_t pids[MOST_SERVERS];
    int processes;
    const char *path, *greeting, *ready;
    uint64_t each;
    double warmup, seconds;
    bool resume, at_rate;
} options = {.connections = 1, .topics = 1, .path = "/?topic=t%d", .greeting = "", .ready = "ready", .each = 1,
             .warmup = 0.5, .seconds = 2};

static struct connection *connections;
static struct histogram latencies;
/* Those of a batch that have not come. */
static uint64_t messages, missing;
static int ready, poller, publisher = -1;
static bool measuring;
static int64_t begun, last_message;
static char buffer[BUFFER_SIZE];

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},     {"pid", 1, 0, 'P'},   {"connections", 1, 0, 'c'}, {"topics", 1, 0, 't'},
        {"path", 1, 0, 'u'},     {"ready", 1, 0, 'r'}, {"greeting", 1, 0, 'g'},    {"publisher", 1, 0, 'f'},
        {"each", 1, 0, 'e'},     {"resume", 0, 0, 'R'}, {"at-rate", 0, 0, 'a'},    {"warmup", 1, 0, 'w'},
        {"seconds", 1, 0, 's'},  {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if ((option == 'p' && options.servers == MOST_SERVERS) || (option == 'P' && options.processes == MOST_SERVERS))
            FAIL("more than %d servers", MOST_SERVERS);
        switch (option) {
        case 'p': options.ports[options.servers++] = atoi(optarg); break;
        case 'P': options.pids[options.processes++] = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 't': options.topics = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 'r': options.ready = optarg; break;
        case 'g': options.greeting = optarg; break;
        case 'f': options.publisher = atoi(optarg); break;
        case 'e': options.each = strtoull(optarg, NULL, 10); break;
        case 'R': options.resume = true; break;
        case 'a': options.at_rate = true; break;
        case 'w': options.warmup = atof(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        default: exit(2);
        }
    }
    if (options.servers == 0 || options.connections < 1 || options.topics < 1 || options.each < 1 ||
        (options.publisher == 0 && !options.resume))
        FAIL("usage: subscribe --port N ... [--pid N ...] [--connections N] [--topics N] [--path FORMAT] "
             "[--greeting TEXT] [--ready PREFIX] [--each N] (--publisher PORT [--at-rate] | --resume) [--warmup S] "
             "[--seconds S]");
}

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        FAIL("connect: %s", strerror(errno));
    return fd;
}

/* Servers take turns, and so do the topics of each of them. */
static void open_connection(int number) {
    struct connection *connection = &connections[number];
    char path[512], request[1024];
    connection->channel.fd = connect_to(options.ports[number % options.servers]);
    fcntl(connection->channel.fd, F_SETFL, fcntl(connection->channel.fd, F_GETFL) | O_NONBLOCK);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(path, sizeof path, options.path, number / options.servers % options.topics);
#pragma GCC diagnostic pop
    size_t size = handshake_request(request, sizeof request, path, false);
    if (channel_write(&connection->channel, request, size) != (ssize_t)size)
        FAIL("cannot send a handshake");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->channel.fd, &event);
}

static void greet(struct connection *connection) {
    /* A mask of zeros changes nothing. */
    char frame[2 + 4 + 125] = {(char)(FIN | TEXT)};
    size_t size = strlen(options.greeting);
    if (size == 0)
        return;
    if (size > 125)
        FAIL("a greeting of more than 125 bytes");
    frame[1] = (char)(0x80 | size);
    memcpy(frame + 6, options.greeting, size);
    if (channel_write(&connection->channel, frame, 6 + size) != (ssize_t)(6 + size))
        FAIL("cannot send a greeting");
}

static void ask_publisher(void) {
    missing = options.at_rate ? 0 : options.each * (uint64_t)options.connections;
    if (send(publisher, "+", 1, MSG_NOSIGNAL) != 1)
        FAIL("the publisher is gone");
}

static int64_t stamp_of(const char *at, const char *end) {
    int64_t stamp = 0;
    if (end - at < STAMP_DIGITS)
        FAIL("a message without a time");
    for (int i = 0; i < STAMP_DIGITS; i++) {
        if (at[i] < '0' || at[i] > '9')
            FAIL("a message without a time");
        stamp = stamp * 10 + (at[i] - '0');
    }
    return stamp;
}

static void message(struct connection *connection, const char *payload, size_t size, int64_t now) {
    size_t prefix = strlen(options.ready);
    if (!connection->ready) {
        connection->ready = size >= prefix && memcmp(payload, options.ready, prefix) == 0;
        ready += connection->ready;
        return;
    }
    const char *at = memchr(payload, '@', size);
    /* A heartbeat of the library's. */
    if (at == NULL)
        return;
    int64_t stamp = stamp_of(at + 1, payload + size);
    if (stamp < connection->last_stamp)
        FAIL("a message came behind a newer one");
    connection->last_stamp = stamp;
    messages++;
    connection->got++;
    last_message = now;
    if (options.resume) {
        if (connection->got > options.each)
            FAIL("a client got more than it had missed");
        if (connection->got == options.each)
            histogram_add(&latencies, now - begun);
        return;
    }
    if (measuring)
        histogram_add(&latencies, now - stamp);
    if (options.at_rate)
        return;
    if (missing == 0)
        FAIL("more messages came than were published");
    missing--;
}

/* Returns the bytes used of `size`; what is left is the beginning of a frame. */
static size_t frames(struct connection *connection, const char *bytes, size_t size, int64_t now) {
    size_t pos = 0;
    while (size - pos >= 2) {
        const unsigned char *frame = (const unsigned char *)bytes + pos;
        uint64_t length = frame[1] & 0x7F;
        size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0, header = 2 + extended;
        if (size - pos < header)
            break;
        if (extended) {
            length = 0;
            for (size_t i = 0; i < extended; i++)
                length = length << 8 | frame[2 + i];
        }
        if (size - pos - header < length)
            break;
        if (!(frame[0] & FIN))
            FAIL("the server sent a message in fragments");
        if ((frame[0] & 0xF) == CLOSE)
            FAIL("the server closed a connection: %.*s", length < 2 ? 0 : (int)length - 2,
                 (const char *)frame + header + 2);
        if ((frame[0] & 0xF) < CLOSE)
            message(connection, (const char *)frame + header, length, now);
        pos += header + length;
    }
    return pos;
}

static void receive(struct connection *connection) {
    size_t size = connection->torn_size, used = 0;
    if (size > 0)
        memcpy(buffer, connection->torn, size);
    ssize_t count = channel_read(&connection->channel, buffer + size, sizeof buffer - 1 - size);
    if (count < 0)
        return;
    int64_t now = now_ns();
    size += (size_t)count;
    if (!connection->open) {
        struct agreed agreed;
        used = handshake_response(buffer, size, &agreed);
        connection->open = used > 0;
        if (connection->open)
            greet(connection);
        /* A client that resumes gets what it has missed, and nothing else. */
        connection->ready = connection->open && options.resume;
    }
    if (connection->open)
        used += frames(connection, buffer + used, size - used, now);
    free(connection->torn);
    connection->torn = NULL;
    connection->torn_size = size - used;
    if (connection->torn_size == sizeof buffer - 1)
        FAIL("the server sent a message of more than %d bytes", BUFFER_SIZE);
    if (connection->torn_size > 0) {
        connection->torn = allocate(connection->torn_size, 1);
        memcpy(connection->torn, buffer + used, connection->torn_size);
    }
}

static void turn(void) {
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, 100);
    for (int i = 0; i < count; i++)
        receive(events[i].data.ptr);
    if (now_ns() - last_message > PATIENCE_NS)
        FAIL("no message for %d s", (int)(PATIENCE_NS / 1000000000));
}

/* A batch that was measured in part would have its beginning's costs, or its end's. */
static void run_until(int64_t end) {
    while (now_ns() < end || missing > 0) {
        if (missing == 0 && !options.at_rate)
            ask_publisher();
        turn();
    }
}

static int64_t server_cpu(void) {
    int64_t sum = 0;
    for (int i = 0; i < options.processes; i++)
        sum += clock_ns(cpu_clock_of(options.pids[i]));
    return sum;
}

static void report(uint64_t count, int64_t wall, int64_t cpu) {
    if (count == 0)
        FAIL("no message came within the measured time");
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"server_cpu\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)count, (double)wall / 1e9, (double)cpu / 1e9, histogram_quantile(&latencies, 0.5),
           histogram_quantile(&latencies, 0.99));
}

static void resume(void) {
    int64_t cpu = server_cpu();
    begun = now_ns();
    for (int i = 0; i < options.connections; i++)
        open_connection(i);
    while (messages < options.each * (uint64_t)options.connections)
        turn();
    report(messages, now_ns() - begun, server_cpu() - cpu);
}

static void follow(void) {
    for (int i = 0; i < options.connections; i++)
        open_connection(i);
    while (ready < options.connections)
        turn();
    usleep(SETTLE_US);
    publisher = connect_to(options.publisher);
    if (options.at_rate)
        ask_publisher();
    last_message = now_ns();
    run_until(now_ns() + (int64_t)(options.warmup * 1e9));
    uint64_t before = messages;
    int64_t cpu = server_cpu(), wall = now_ns();
    measuring = true;
    run_until(wall + (int64_t)(options.seconds * 1e9));
    report(messages - before, now_ns() - wall, server_cpu() - cpu);
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    allow_many_descriptors();
    connections = allocate((size_t)options.connections, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    last_message = now_ns();
    if (options.resume)
        resume();
    else
        follow();
    return 0;
}
