/* Sockets that never block, by the names that the native engine calls them: POSIX, or Winsock on Windows. */
#ifndef TORNADO_WS_SOCKETS_H
#define TORNADO_WS_SOCKETS_H

#ifdef _WIN32

#include <winsock2.h>
#include <Python.h>

/* Every socket of a stream is set not to block. A handle has 32 bits that matter, so it is an int here as in Tornado. */
#define MSG_DONTWAIT 0
#define MSG_NOSIGNAL 0
#define TWS_WOULD_BLOCK WSAEWOULDBLOCK
#define TWS_INTERRUPTED WSAEINTR
#define tws_socket_error() WSAGetLastError()

/* What one call is given at most; the rest is offered again. */
static inline int tws_piece(size_t size) {
    return size > 0x3FFFFFFF ? 0x3FFFFFFF : (int)size;
}

static inline Py_ssize_t tws_recv(int fd, void *data, size_t size, int flags) {
    return recv((SOCKET)fd, (char *)data, tws_piece(size), flags);
}

static inline Py_ssize_t tws_send(int fd, const void *data, size_t size, int flags) {
    return send((SOCKET)fd, (const char *)data, tws_piece(size), flags);
}

/* Send two pieces of memory with one call. */
static inline Py_ssize_t tws_send2(int fd, const void *head, size_t head_size, const void *rest, size_t rest_size) {
    WSABUF pieces[2];
    DWORD count = 0;
    pieces[0].buf = (char *)head;
    pieces[0].len = (ULONG)tws_piece(head_size);
    pieces[1].buf = (char *)rest;
    pieces[1].len = (ULONG)tws_piece(rest_size);
    if (WSASend((SOCKET)fd, pieces, head_size > pieces[0].len ? 1 : 2, &count, 0, NULL, NULL) != 0)
        return -1;
    return (Py_ssize_t)count;
}

/* Seconds of a clock that never goes back. */
static inline double tws_now(void) {
    LARGE_INTEGER now, frequency;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

#else

#include <Python.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef MSG_NOSIGNAL
/* Python has SIGPIPE ignored. */
#define MSG_NOSIGNAL 0
#endif
#define TWS_WOULD_BLOCK EAGAIN
#define TWS_INTERRUPTED EINTR
#define tws_socket_error() errno
#define tws_recv recv
#define tws_send send

/* Send two pieces of memory with one call. */
static inline Py_ssize_t tws_send2(int fd, const void *head, size_t head_size, const void *rest, size_t rest_size) {
    struct iovec pieces[2];
    struct msghdr message;
    memset(&message, 0, sizeof message);
    pieces[0].iov_base = (void *)head;
    pieces[0].iov_len = head_size;
    pieces[1].iov_base = (void *)rest;
    pieces[1].iov_len = rest_size;
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Seconds of a clock that never goes back. */
static inline double tws_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif

#ifdef __linux__
#include <sys/epoll.h>

/* The descriptors that are ready, `most` at most; the caller looks each of them up, so one closed meanwhile does no harm. */
static inline int tws_epoll_wait(int epfd, int *ready, int most) {
    struct epoll_event events[256];
    int i, count = epoll_wait(epfd, events, most < 256 ? most : 256, 0);
    for (i = 0; i < count; i++)
        ready[i] = events[i].data.fd;
    return count;
}
#else
static inline int tws_epoll_wait(int epfd, int *ready, int most) {
    (void)epfd, (void)ready, (void)most;
    return -1;
}
#endif

#endif
