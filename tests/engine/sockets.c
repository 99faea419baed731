/* What native/sockets.h says of sockets, tried on two that are connected. Prints what is wrong; exits with 0 if nothing is. */
#include "sockets.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32
#include <ws2tcpip.h>
#define close closesocket
#else
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>
#endif

static int faults;

#define CHECK(condition) \
    if (!(condition)) { \
        printf("line %d: %s; error %d\n", __LINE__, #condition, (int)tws_socket_error()); \
        faults++; \
    }

static void never_block(int fd) {
#ifdef _WIN32
    u_long yes = 1;
    ioctlsocket((SOCKET)fd, FIONBIO, &yes);
#else
    fcntl(fd, F_SETFL, O_NONBLOCK);
#endif
}

static Py_ssize_t receive(int fd, char *data, size_t size) {
    Py_ssize_t count, total = 0;
    double until = tws_now() + 10;
    while ((size_t)total < size && tws_now() < until) {
        count = tws_recv(fd, data + total, size - (size_t)total, MSG_DONTWAIT);
        if (count == 0 || (count < 0 && tws_socket_error() != TWS_WOULD_BLOCK))
            return count;
        total += count > 0 ? count : 0;
    }
    return total;
}

int main(void) {
    static char large[1 << 22], data[64];
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    struct linger reset = {1, 0};
    int listener, ours, theirs;
    Py_ssize_t count;
    double before = tws_now();
#ifdef _WIN32
    WSADATA about;
    WSAStartup(MAKEWORD(2, 2), &about);
#endif
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = (int)socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0)
    CHECK(listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&address, &size) == 0)
    ours = (int)socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(ours, (struct sockaddr *)&address, sizeof address) == 0)
    theirs = (int)accept(listener, NULL, NULL);
    never_block(ours);
    never_block(theirs);

    CHECK(tws_recv(ours, data, sizeof data, MSG_DONTWAIT) == -1 && tws_socket_error() == TWS_WOULD_BLOCK)
    CHECK(tws_send(theirs, "ab", 2, MSG_DONTWAIT | MSG_NOSIGNAL) == 2)
    CHECK(tws_send2(theirs, "cd", 2, "efg", 3) == 5)
    CHECK(receive(ours, data, 7) == 7 && memcmp(data, "abcdefg", 7) == 0)

    while ((count = tws_send(theirs, large, sizeof large, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
        ;
    CHECK(count == -1 && tws_socket_error() == TWS_WOULD_BLOCK)
    CHECK(tws_send2(theirs, "a", 1, "b", 1) == -1 && tws_socket_error() == TWS_WOULD_BLOCK)

    setsockopt(ours, SOL_SOCKET, SO_LINGER, (const char *)&reset, sizeof reset);
    close(ours);
    count = receive(theirs, data, 1);
    /* Wine tells a reset as an end. */
    CHECK(count == 0 || (count == -1 && tws_socket_error() != TWS_WOULD_BLOCK))
    CHECK(tws_now() >= before && tws_now() - before < 60)
    return faults != 0;
}
