/* Loaded in front of libc (LD_PRELOAD): makes chosen system calls and allocations of one thread fail.
 *
 * Counted is what the armed thread does with descriptors that were not open at faults_spare_open(). Of each function
 * the calls are numbered from 1 on; a plan says which of them fail, and how. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* In the order of FUNCTIONS in shim.py. */
enum { RECV, SEND, SENDMSG, PEEK, EPOLL_CTL, EPOLL_CREATE, DUP, ACCEPT, SOCKET, ALLOC, FUNCTIONS };
enum { DESCRIPTORS = 65536, DOMAINS = 3, RANGES = 16, NEAR = 16 };

static struct {
    int function;
    long first, last;
    /* An errno, or 0 where the call is to move `most` bytes at most. */
    int error;
    size_t most;
} plan = {.function = -1};

/* Not 0: receiving and sending fails at random, in ways that no application may notice. */
static uint64_t storm;
static long counts[FUNCTIONS], hits;
static uint8_t spared[DESCRIPTORS];
static __thread int armed;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static int is_spared(int fd) {
    return fd < 0 || fd >= DESCRIPTORS || spared[fd];
}

static uint64_t next_random(void) {
    storm ^= storm << 13;
    storm ^= storm >> 7;
    storm ^= storm << 17;
    return storm >> 11;
}

/* Count a call; whether it fails, with errno set. `size` is how much it is asked to move, and becomes how much it may. */
static int fails(int function, size_t *size) {
    long number = ++counts[function];
    if (storm && function <= SENDMSG) {
        switch (next_random() % 6) {
        case 0:
            errno = EAGAIN;
            return ++hits, 1;
        case 1:
            errno = EINTR;
            return ++hits, 1;
        case 2:
            if (*size > 1)
                *size = 1 + next_random() % (*size < 64 ? *size : next_random() % 2 ? 64 : *size);
            return ++hits, 0;
        }
        return 0;
    }
    if (plan.function != function || number < plan.first || number > plan.last)
        return 0;
    hits++;
    if (plan.error) {
        errno = plan.error;
        return 1;
    }
    if (size != NULL && *size > plan.most)
        *size = plan.most;
    return 0;
}

/* The interface of shim.py */

void faults_spare_open(void) {
    int fd;
    for (fd = 0; fd < DESCRIPTORS; fd++)
        spared[fd] = fd < 3 || fcntl(fd, F_GETFD) != -1;
}

void faults_plan(int function, long first, long last, int error, size_t most) {
    memset(counts, 0, sizeof counts);
    hits = 0;
    storm = 0;
    plan.function = function;
    plan.first = first;
    plan.last = last;
    plan.error = error;
    plan.most = most;
}

void faults_storm(uint64_t seed) {
    faults_plan(-1, 0, 0, 0, 0);
    storm = seed * 0x9E3779B97F4A7C15ULL | 1;
}

void faults_arm(int on) {
    armed = on;
}

long faults_count(int function) {
    return counts[function];
}

long faults_hits(void) {
    return hits;
}

/* Receiving and sending */

ssize_t recv(int fd, void *data, size_t size, int flags) {
    REAL(recv);
    if (armed && !is_spared(fd) && fails(flags & MSG_PEEK ? PEEK : RECV, &size))
        return -1;
    return real(fd, data, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send);
    if (armed && !is_spared(fd) && fails(SEND, &size))
        return -1;
    return real(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    struct msghdr part;
    struct iovec pieces[16];
    size_t size = 0, whole, i;
    REAL(sendmsg);
    if (!armed || is_spared(fd))
        return real(fd, message, flags);
    for (i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    whole = size;
    if (fails(SENDMSG, &size))
        return -1;
    if (size == whole || message->msg_iovlen > 16)
        return real(fd, message, flags);
    part = *message;
    part.msg_iov = pieces;
    for (i = 0; i < message->msg_iovlen && size; i++) {
        pieces[i] = message->msg_iov[i];
        if (pieces[i].iov_len > size)
            pieces[i].iov_len = size;
        size -= pieces[i].iov_len;
    }
    part.msg_iovlen = i;
    return real(fd, &part, flags);
}

static int is_socket(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode);
}

/* OpenSSL's own way to a socket. */
ssize_t read(int fd, void *data, size_t size) {
    REAL(read);
    if (armed && !is_spared(fd) && is_socket(fd) && fails(RECV, &size))
        return -1;
    return real(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (armed && !is_spared(fd) && is_socket(fd) && fails(SEND, &size))
        return -1;
    return real(fd, data, size);
}

/* Descriptors, and watching them */

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    REAL(epoll_ctl);
    /* To take something out needs nothing that can be lacking. */
    if (armed && operation != EPOLL_CTL_DEL && !(is_spared(epoll) && is_spared(fd)) && fails(EPOLL_CTL, NULL))
        return -1;
    return real(epoll, operation, fd, event);
}

int epoll_create1(int flags) {
    REAL(epoll_create1);
    return armed && fails(EPOLL_CREATE, NULL) ? -1 : real(flags);
}

int dup(int fd) {
    REAL(dup);
    return armed && fails(DUP, NULL) ? -1 : real(fd);
}

int fcntl64(int fd, int command, ...) {
    va_list arguments;
    void *argument;
    REAL(fcntl64);
    va_start(arguments, command);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (armed && (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && fails(DUP, NULL))
        return -1;
    return real(fd, command, argument);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    REAL(accept4);
    return armed && fails(ACCEPT, NULL) ? -1 : real(fd, address, size, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *size) {
    REAL(accept);
    return armed && fails(ACCEPT, NULL) ? -1 : real(fd, address, size);
}

int socket(int family, int type, int protocol) {
    REAL(socket);
    return armed && fails(SOCKET, NULL) ? -1 : real(family, type, protocol);
}

/* Allocations of CPython's, where compiled code that faults_add_range() has named asks for them: directly, or by way of
 * C functions of the interpreter, but not where Python code runs in between. */

struct allocator {
    void *context;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
};

struct range {
    uintptr_t start, end;
};

static struct allocator allocators[DOMAINS];
static struct range ours[RANGES], evaluating, making_variable;
static int ranges;

static int is_in(const struct range *range, const void *address) {
    return (uintptr_t)address >= range->start && (uintptr_t)address < range->end;
}

static int is_ours(void) {
    void *frames[NEAR];
    int depth = backtrace(frames, NEAR), frame, range;
    for (frame = 0; frame < depth; frame++) {
        /* CPython 3.11 drops an exception for which it cannot make a frame object, and code that handles it crashes. */
        if (is_in(&evaluating, frames[frame]) || is_in(&making_variable, frames[frame]))
            return 0;
        for (range = 0; range < ranges; range++)
            if (is_in(&ours[range], frames[frame]))
                return 1;
    }
    return 0;
}

static int allocation_fails(void) {
    int result;
    if (!armed)
        return 0;
    /* The first backtrace() allocates. */
    armed = 0;
    result = is_ours() && fails(ALLOC, NULL);
    armed = 1;
    return result;
}

static void *failing_malloc(void *context, size_t size) {
    struct allocator *real = context;
    return allocation_fails() ? NULL : real->malloc(real->context, size);
}

static void *failing_calloc(void *context, size_t count, size_t size) {
    struct allocator *real = context;
    return allocation_fails() ? NULL : real->calloc(real->context, count, size);
}

static void *failing_realloc(void *context, void *before, size_t size) {
    struct allocator *real = context;
    return allocation_fails() ? NULL : real->realloc(real->context, before, size);
}

static void freeing(void *context, void *memory) {
    struct allocator *real = context;
    real->free(real->context, memory);
}

static void find(const char *name, struct range *range) {
    void *function = dlsym(RTLD_DEFAULT, name), *symbol = NULL;
    Dl_info info;
    if (function != NULL && dladdr1(function, &info, &symbol, RTLD_DL_SYMENT) && symbol != NULL) {
        range->start = (uintptr_t)function;
        range->end = range->start + ((const ElfW(Sym) *)symbol)->st_size;
    }
}

static void wrap_allocators(void) {
    void (*get)(int, struct allocator *) = (void (*)(int, struct allocator *))dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    void (*set)(int, struct allocator *) = (void (*)(int, struct allocator *))dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    int domain;
    find("_PyEval_EvalFrameDefault", &evaluating);
    find("_PyObject_GC_NewVar", &making_variable);
    for (domain = 0; domain < DOMAINS; domain++) {
        struct allocator wrapped = {&allocators[domain], failing_malloc, failing_calloc, failing_realloc, freeing};
        get(domain, &allocators[domain]);
        set(domain, &wrapped);
    }
}

/* Returns 0 where there is no room for one more. */
int faults_add_range(uintptr_t start, uintptr_t end) {
    if (ranges == RANGES)
        return 0;
    if (!ranges)
        wrap_allocators();
    ours[ranges].start = start;
    ours[ranges++].end = end;
    return 1;
}
