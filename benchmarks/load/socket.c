#define _GNU_SOURCE
#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

#define PATIENCE_MS 20000

/* The key and its answer of RFC 6455 section 1.3: no need of SHA-1 here. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

size_t handshake_request(char *into, size_t size, const char *path, bool offer_deflate) {
    /* The offer is the one that browsers make. */
    return (size_t)snprintf(into, size,
                            "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                            path,
                            offer_deflate
                                ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
                                : "");
}

static void parse_extensions(const char *head, struct agreed *agreed) {
    const char *extensions = strcasestr(head, "\nsec-websocket-extensions:");
    agreed->deflate = false;
    agreed->client_bits = 15;
    agreed->client_takeover = agreed->server_takeover = true;
    if (extensions == NULL)
        return;
    char line[512];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(extensions + 1, "\r\n"), extensions + 1);
    agreed->deflate = strstr(line, "permessage-deflate") != NULL;
    const char *bits = strstr(line, "client_max_window_bits=");
    if (bits != NULL) {
        bits += strlen("client_max_window_bits=");
        agreed->client_bits = atoi(*bits == '"' ? bits + 1 : bits);
    }
    agreed->client_takeover = strstr(line, "client_no_context_takeover") == NULL;
    agreed->server_takeover = strstr(line, "server_no_context_takeover") == NULL;
}

size_t handshake_response(char *head, size_t size, struct agreed *agreed) {
    head[size] = '\0';
    const char *end = strstr(head, "\r\n\r\n");
    if (end == NULL)
        return 0;
    if (strncmp(head, "HTTP/1.1 101", 12) != 0 || strstr(head, ACCEPT) == NULL)
        FAIL("the server refused the handshake: %.*s", (int)strcspn(head, "\r\n"), head);
    parse_extensions(head, agreed);
    return (size_t)(end + 4 - head);
}

void channel_wait(const struct channel *channel, short events) {
    struct pollfd ready = {.fd = channel->fd, .events = events};
    if (poll(&ready, 1, PATIENCE_MS) <= 0)
        FAIL("the server keeps silent for %d s", PATIENCE_MS / 1000);
}

#ifdef WITH_TLS
static void *tls_open(int fd) {
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    SSL *tls = SSL_new(context);
    SSL_set_fd(tls, fd);
    if (SSL_connect(tls) != 1)
        FAIL("the TLS handshake failed");
    return tls;
}

static ssize_t tls_result(SSL *tls, int result) {
    if (result > 0)
        return result;
    int error = SSL_get_error(tls, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return -1;
    FAIL("the server closed a TLS connection (error %d)", error);
}
#endif

ssize_t channel_read(struct channel *channel, void *into, size_t size) {
#ifdef WITH_TLS
    if (channel->tls != NULL)
        return tls_result(channel->tls, SSL_read(channel->tls, into, (int)size));
#endif
    ssize_t count = recv(channel->fd, into, size, 0);
    if (count == 0)
        FAIL("the server closed a connection");
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        FAIL("recv: %s", strerror(errno));
    return count;
}

ssize_t channel_write(struct channel *channel, const void *from, size_t size) {
#ifdef WITH_TLS
    if (channel->tls != NULL)
        return tls_result(channel->tls, SSL_write(channel->tls, from, (int)(size < 1 << 30 ? size : 1 << 30)));
#endif
    ssize_t count = send(channel->fd, from, size, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        FAIL("send: %s", strerror(errno));
    return count;
}

bool channel_pending(const struct channel *channel) {
#ifdef WITH_TLS
    return channel->tls != NULL && SSL_pending(channel->tls) > 0;
#else
    (void)channel;
    return false;
#endif
}

static void shake_hands(struct channel *channel, bool offer_deflate, struct agreed *agreed) {
    char head[4096];
    size_t size = handshake_request(head, sizeof head, "/", offer_deflate);
    if (channel_write(channel, head, size) != (ssize_t)size)
        FAIL("cannot send a handshake");
    size_t have = 0, head_size = 0;
    while (head_size == 0) {
        channel_wait(channel, POLLIN);
        ssize_t count = channel_read(channel, head + have, sizeof head - 1 - have);
        if (count > 0)
            have += (size_t)count;
        head_size = handshake_response(head, have, agreed);
        if (head_size == 0 && have == sizeof head - 1)
            FAIL("the head of the response is too long");
    }
    if (have != head_size)
        FAIL("the server sent something of its own after the handshake");
}

struct channel channel_open(int port, bool tls, bool handshake, bool offer_deflate, struct agreed *agreed) {
    struct channel channel = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .tls = NULL};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    int on = 1;
    if (channel.fd < 0)
        FAIL("socket: %s", strerror(errno));
    setsockopt(channel.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(channel.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(channel.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(channel.fd, (struct sockaddr *)&address, sizeof address) != 0)
        FAIL("connect: %s", strerror(errno));
#ifdef WITH_TLS
    if (tls)
        channel.tls = tls_open(channel.fd);
#else
    if (tls)
        FAIL("built without TLS");
#endif
    fcntl(channel.fd, F_SETFL, fcntl(channel.fd, F_GETFL) | O_NONBLOCK);
    if (handshake)
        shake_hands(&channel, offer_deflate, agreed);
    return channel;
}
