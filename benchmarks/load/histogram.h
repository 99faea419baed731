/* Latencies, counted in buckets that are at most 1.6 % wide. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

#define SUB_BITS 6
#define SUB (1 << SUB_BITS)

struct histogram {
    uint64_t total;
    uint64_t buckets[40 * SUB];
};

static inline void histogram_add(struct histogram *histogram, int64_t ns) {
    uint64_t value = ns < SUB ? SUB : (uint64_t)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    uint64_t bucket = (uint64_t)shift * SUB + ((value >> shift) - SUB);
    uint64_t last = sizeof histogram->buckets / sizeof *histogram->buckets - 1;
    histogram->buckets[bucket < last ? bucket : last]++;
    histogram->total++;
}

/* In microseconds, the middle of the bucket. */
static inline double histogram_quantile(const struct histogram *histogram, double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)histogram->total), seen = 0;
    for (uint64_t i = 0; i < sizeof histogram->buckets / sizeof *histogram->buckets; i++) {
        seen += histogram->buckets[i];
        if (seen > wanted) {
            double width = (double)(1ull << (i / SUB));
            return ((double)(i % SUB + SUB) + 0.5) * width / 1000.0;
        }
    }
    return 0;
}

#endif
