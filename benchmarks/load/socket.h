/* A connection to the server under test: TCP, TLS when built for it, and the opening handshake. */
#ifndef SOCKET_H
#define SOCKET_H

#include <stdbool.h>
#include <sys/types.h>

struct agreed {
    bool deflate;
    int client_bits;
    bool client_takeover;
    bool server_takeover;
};

struct channel {
    int fd;
    void *tls;
};

/* Parts of an opening handshake, for programs that do it without blocking. */
size_t handshake_request(char *into, size_t size, const char *path, bool offer_deflate);
/* The length of the response's head, 0 while it is not complete. Ends the program unless it is a valid 101. */
size_t handshake_response(char *head, size_t size, struct agreed *agreed);

/* Blocking; the socket does not block any more when it returns. */
struct channel channel_open(int port, bool tls, bool handshake, bool offer_deflate, struct agreed *agreed);
/* As recv and send of a socket that does not block: -1 for "not now". Any error ends the program. */
ssize_t channel_read(struct channel *channel, void *into, size_t size);
ssize_t channel_write(struct channel *channel, const void *from, size_t size);
/* Whether bytes wait that the descriptor does not tell of. */
bool channel_pending(const struct channel *channel);
void channel_wait(const struct channel *channel, short events);

#endif
