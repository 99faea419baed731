/* Keeps `depth` messages in flight on each of N connections and measures a server that sends them back.

   It never sleeps: a server that has to wait for a load that was woken up looks faster than it is, and a load that is
   slower than the server measures itself. So it polls, sends all that a connection is short of in one call, copies
   nothing, and says how much of the time it had nothing to do. The server's CPU time is read at both ends of the
   measured window. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common.h"
#include "histogram.h"
#include "reply.h"
#include "ring.h"
#include "socket.h"

#define PATIENCE_NS (20 * (int64_t)1000000000)
#define BUFFER_SIZE (512 * 1024)

struct connection {
    struct channel channel;
    struct reader reader;
    uint32_t next;
    uint64_t unsent_begin, unsent;
    bool waits_for_room;
    int64_t *sent_at;
    uint32_t sent_head, sent_tail;
};

struct counters {
    uint64_t messages, bytes_in, bytes_out;
    int64_t server_cpu, own_cpu, wall, idle;
};

static struct {
    int port, connections, depth, burst;
    pid_t pid;
    double warmup, seconds;
    const char *ring;
    bool deflate, tls, raw, broadcast, all_to_all;
} options = {.connections = 1, .depth = 1, .burst = 1, .warmup = 0.5, .seconds = 2};

static struct connection *connections;
static struct ring ring;
static struct counters counters;
static struct histogram latencies;
static bool measuring;
static int poller;
static char buffer[BUFFER_SIZE];

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"pid", 1, 0, 'P'},     {"ring", 1, 0, 'r'}, {"connections", 1, 0, 'c'},
        {"depth", 1, 0, 'd'},   {"warmup", 1, 0, 'w'},  {"deflate", 0, 0, 'z'}, {"seconds", 1, 0, 's'},
        {"tls", 0, 0, 't'},     {"raw", 0, 0, 'R'},     {"broadcast", 0, 0, 'b'},
        {"burst", 1, 0, 'B'},   {"all-to-all", 0, 0, 'a'}, {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'P': options.pid = atoi(optarg); break;
        case 'r': options.ring = optarg; break;
        case 'c': options.connections = atoi(optarg); break;
        case 'd': options.depth = atoi(optarg); break;
        case 'w': options.warmup = atof(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'z': options.deflate = true; break;
        case 't': options.tls = true; break;
        case 'R': options.raw = true; break;
        case 'b': options.broadcast = true; break;
        case 'a': options.all_to_all = true; break;
        case 'B': options.burst = atoi(optarg); break;
        default: exit(2);
        }
    }
    if (options.port == 0 || options.ring == NULL || options.connections < 1 || options.depth < 1 ||
        options.burst < 1)
        FAIL("usage: load --port N --ring PREFIX [--pid N] [--connections N] [--depth N] [--warmup S] [--seconds S] "
             "[--deflate] [--tls] [--raw] [--broadcast [--burst N] | --all-to-all]");
    /* In which order those of several senders come nobody knows. */
    if (options.all_to_all && (options.depth > 1 || options.burst > 1))
        FAIL("--all-to-all is of one message each");
}

/* Who sends a message that all connections get. */
static int senders(void) { return options.all_to_all ? options.connections : 1; }

static bool one_to_many(void) { return options.broadcast || options.all_to_all; }

static void open_connections(void) {
    struct agreed agreed = {.server_takeover = true};
    connections = allocate((size_t)options.connections, sizeof *connections);
    for (int i = 0; i < options.connections; i++)
        connections[i].channel = channel_open(options.port, options.tls, !options.raw, options.deflate, &agreed);

    char path[1024];
    if (options.deflate && !agreed.deflate)
        FAIL("the server declined permessage-deflate");
    if (agreed.deflate)
        snprintf(path, sizeof path, "%s.z%d%s", options.ring, agreed.client_bits, agreed.client_takeover ? "" : "n");
    else
        snprintf(path, sizeof path, "%s.%s", options.ring, options.raw ? "raw" : "plain");
    ring_load(&ring, path, (uint32_t)options.depth);

    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < options.connections; i++) {
        struct connection *connection = &connections[i];
        reader_init(&connection->reader, &ring, (uint32_t)options.depth, agreed.server_takeover);
        if (one_to_many()) {
            connection->reader.repeats = (uint32_t)(options.burst * senders());
            connection->reader.to_verify *= connection->reader.repeats;
        }
        connection->sent_at = allocate((size_t)options.depth, sizeof *connection->sent_at);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_ADD, connection->channel.fd, &event);
    }
}

static void flush(struct connection *connection) {
    ssize_t count;
    /* More than once, because TLS takes one record at a time. */
    do {
        count = channel_write(&connection->channel, ring.frames + connection->unsent_begin, connection->unsent);
        if (count > 0) {
            counters.bytes_out += (uint64_t)count;
            connection->unsent -= (uint64_t)count;
            connection->unsent_begin += (uint64_t)count;
            /* The frames repeat after the last one. */
            connection->unsent_begin %= ring.begin[ring.count];
        }
    } while (count > 0 && connection->unsent > 0);
    bool waits = connection->unsent > 0;
    if (waits != connection->waits_for_room) {
        connection->waits_for_room = waits;
        struct epoll_event event = {.events = waits ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_MOD, connection->channel.fd, &event);
    }
}

static void send_messages(struct connection *connection, uint32_t count, int64_t now) {
    for (uint32_t i = 0; i < count; i++) {
        connection->sent_at[connection->sent_head] = now;
        connection->sent_head = connection->sent_head + 1 == (uint32_t)options.depth ? 0 : connection->sent_head + 1;
        connection->unsent += ring.begin[connection->next + 1] - ring.begin[connection->next];
        connection->next = connection->next + 1 == ring.count ? 0 : connection->next + 1;
    }
    if (!connection->waits_for_room)
        flush(connection);
}

static uint32_t receive(struct connection *connection) {
    uint32_t messages = 0;
    do {
        ssize_t count = channel_read(&connection->channel, buffer, sizeof buffer);
        if (count < 0)
            break;
        counters.bytes_in += (uint64_t)count;
        messages += reader_feed(&connection->reader, buffer, (size_t)count);
        /* A TLS connection gives one record at a time. */
    } while (channel_pending(&connection->channel));
    counters.messages += messages;
    return messages;
}

static void count_latencies(struct connection *connection, uint32_t messages, int64_t now) {
    for (uint32_t i = 0; i < messages; i++) {
        if (measuring)
            histogram_add(&latencies, now - connection->sent_at[connection->sent_tail]);
        connection->sent_tail = connection->sent_tail + 1 == (uint32_t)options.depth ? 0 : connection->sent_tail + 1;
    }
}

/* Messages of the round that have not come: each sender has sent, and all connections are to get it, `burst` times. */
static uint64_t missing;

static void begin_round(int64_t now) {
    missing = (uint64_t)options.connections * (uint64_t)(options.depth * options.burst * senders());
    for (int i = 0; i < senders(); i++)
        send_messages(&connections[i], (uint32_t)options.depth, now);
}

static void count_in_round(uint32_t messages, int64_t now) {
    if (messages > missing)
        FAIL("more messages came than were sent");
    missing -= messages;
    for (uint32_t i = 0; i < messages && measuring; i++)
        histogram_add(&latencies, now - connections[0].sent_at[0]);
}

static void turn(void) {
    static int64_t last, last_reply;
    struct epoll_event events[256];
    if (one_to_many() && missing == 0)
        begin_round(last = now_ns());
    int count = epoll_wait(poller, events, 256, 0);
    int64_t now = now_ns();
    if (count == 0) {
        if (last != 0)
            counters.idle += now - last;
        last = now;
        if (last_reply != 0 && now - last_reply > PATIENCE_NS)
            FAIL("no reply for %d s", (int)(PATIENCE_NS / 1000000000));
        return;
    }
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            flush(connection);
        if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
            continue;
        uint32_t messages = receive(connection);
        now = now_ns();
        if (one_to_many()) {
            count_in_round(messages, now);
        } else if (messages > 0) {
            count_latencies(connection, messages, now);
            send_messages(connection, messages, now);
        }
    }
    last = last_reply = now;
}

/* A round that was measured in part would have its beginning's costs, or its end's. */
static void run_until(int64_t end) {
    while (now_ns() < end || missing > 0)
        turn();
}

static struct counters snapshot(clockid_t server_clock) {
    counters.own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    counters.wall = now_ns();
    counters.server_cpu = options.pid ? clock_ns(server_clock) : 0;
    return counters;
}

static void report(const struct counters *begin, const struct counters *end) {
    double wall = (double)(end->wall - begin->wall);
    uint64_t messages = end->messages - begin->messages;
    if (messages == 0)
        FAIL("no message came back within the measured time");
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"server_cpu\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"load_cpu_share\": %.3f, \"load_work_share\": %.3f, \"wire_in\": %llu, \"wire_out\": %llu}\n",
           (unsigned long long)messages, wall / 1e9, (double)(end->server_cpu - begin->server_cpu) / 1e9,
           histogram_quantile(&latencies, 0.5), histogram_quantile(&latencies, 0.99),
           (double)(end->own_cpu - begin->own_cpu) / wall, 1 - (double)(end->idle - begin->idle) / wall,
           (unsigned long long)(end->bytes_in - begin->bytes_in),
           (unsigned long long)(end->bytes_out - begin->bytes_out));
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    allow_many_descriptors();
    clockid_t server_clock = cpu_clock_of(options.pid);
    open_connections();

    if (one_to_many()) {
        /* A server may hear of its last connection a little after the load has its answer. */
        usleep(100 * 1000);
    } else {
        for (int i = 0; i < options.connections; i++)
            send_messages(&connections[i], (uint32_t)options.depth, now_ns());
    }
    int64_t begin = now_ns() + (int64_t)(options.warmup * 1e9);
    run_until(begin);
    struct counters first = snapshot(server_clock);
    measuring = true;
    int64_t end = first.wall + (int64_t)(options.seconds * 1e9);
    run_until(end);
    struct counters last = snapshot(server_clock);
    report(&first, &last);
    return 0;
}
