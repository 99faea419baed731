/* What all programs here share: failing, and the time. */
#ifndef COMMON_H
#define COMMON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define FAIL(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))

static inline int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0)
        FAIL("cannot read clock %d", (int)clock);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* CPU time, user and system, of all threads of a process. Unlike /proc/PID/stat it does not count in ticks of 10 ms. */
static inline clockid_t cpu_clock_of(pid_t pid) {
    clockid_t clock;
    if (pid == 0)
        return CLOCK_PROCESS_CPUTIME_ID;
    if (clock_getcpuclockid(pid, &clock) != 0)
        FAIL("no CPU clock of process %d", (int)pid);
    return clock;
}

static inline void allow_many_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL)
        FAIL("out of memory");
    return memory;
}

#endif
