/* Opens N connections, lets each carry one message each way if asked to, and holds them until its input ends. */
#include <getopt.h>
#include <poll.h>
#include <unistd.h>

#include "common.h"
#include "reply.h"
#include "ring.h"
#include "socket.h"

static void exchange_one(struct channel *channel, const struct ring *ring, bool server_takeover) {
    static char buffer[65536];
    struct reader reader;
    reader_init(&reader, ring, 1, server_takeover);
    if (channel_write(channel, ring->frames, ring->begin[1]) != (ssize_t)ring->begin[1])
        FAIL("cannot send a message");
    for (uint32_t messages = 0; messages == 0;) {
        channel_wait(channel, POLLIN);
        ssize_t count = channel_read(channel, buffer, sizeof buffer);
        if (count > 0)
            messages = reader_feed(&reader, buffer, (size_t)count);
    }
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'}, {"connections", 1, 0, 'c'}, {"deflate", 0, 0, 'z'}, {"ring", 1, 0, 'r'}, {0, 0, 0, 0},
    };
    int port = 0, connections = 1;
    bool deflate = false;
    const char *prefix = NULL;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 'z': deflate = true; break;
        case 'r': prefix = optarg; break;
        default: exit(2);
        }
    }
    allow_many_descriptors();
    struct ring ring = {0};
    for (int i = 0; i < connections; i++) {
        struct agreed agreed = {0};
        struct channel channel = channel_open(port, false, true, deflate, &agreed);
        if (deflate && !agreed.deflate)
            FAIL("the server declined permessage-deflate");
        if (prefix == NULL)
            continue;
        if (i == 0) {
            char path[1024] = "";
            const char *form = agreed.client_takeover ? "" : "n";
            if (deflate)
                snprintf(path, sizeof path, "%s.z%d%s", prefix, agreed.client_bits, form);
            else
                snprintf(path, sizeof path, "%s.plain", prefix);
            ring_load(&ring, path, 1);
        }
        exchange_one(&channel, &ring, agreed.server_takeover);
    }
    puts("ready");
    fflush(stdout);
    char ignored[64];
    while (read(0, ignored, sizeof ignored) > 0)
        ;
    return 0;
}
