/* zlib and zlib-ng, called without the Python modules that hold them: those make a new object where one could go on, and
 * do not tell where a block ends. The functions are found in what the module has loaded, so nothing is linked. */
#ifndef TORNADO_WS_ZLIB_H
#define TORNADO_WS_ZLIB_H

#include <Python.h>
#ifndef _WIN32
#include <dlfcn.h>
#endif
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* z_stream of zlib.h, the same in every zlib 1 and, so far as it is used here, in zlib-ng where long is as wide as size_t. */
typedef struct {
    const uint8_t *next_in;
    unsigned int avail_in;
    unsigned long total_in;
    uint8_t *next_out;
    unsigned int avail_out;
    unsigned long total_out;
    const char *msg;
    void *state;
    void *(*zalloc)(void *, unsigned int, unsigned int);
    void (*zfree)(void *, void *);
    void *opaque;
    int data_type;
    unsigned long adler, reserved;
} tws_zstream;

enum {
    TWS_Z_SYNC_FLUSH = 2,
    TWS_Z_FULL_FLUSH = 3,
    TWS_Z_OK = 0,
    TWS_Z_STREAM_END = 1,
    TWS_Z_DATA_ERROR = -3,
    TWS_Z_BUF_ERROR = -5,
    TWS_Z_DEFLATED = 8,
    /* In data_type: the last block is at its end, and the next has not begun. */
    TWS_Z_BETWEEN_BLOCKS = 128,
};

typedef struct {
    /* zlib's own name for an init takes its version and the size of a stream too; zlib-ng's does not. */
    const char *(*version)(void);
    union {
        int (*of_zlib)(tws_zstream *, int level, int method, int wbits, int mem_level, int strategy, const char *, int);
        int (*of_zlib_ng)(tws_zstream *, int level, int method, int wbits, int mem_level, int strategy);
    } deflate_init;
    union {
        int (*of_zlib)(tws_zstream *, int wbits, const char *, int);
        int (*of_zlib_ng)(tws_zstream *, int wbits);
    } inflate_init;
    int (*deflate)(tws_zstream *, int flush);
    int (*inflate)(tws_zstream *, int flush);
    int (*deflate_end)(tws_zstream *);
    int (*inflate_end)(tws_zstream *);
    int (*deflate_set_dictionary)(tws_zstream *, const uint8_t *, unsigned int);
    int (*inflate_set_dictionary)(tws_zstream *, const uint8_t *, unsigned int);
    int (*deflate_get_dictionary)(tws_zstream *, uint8_t *, unsigned int *);
    int (*inflate_get_dictionary)(tws_zstream *, uint8_t *, unsigned int *);
    /* As inflateReset, with the window kept. */
    int (*inflate_reset_keep)(tws_zstream *);
} tws_zlib;

#ifdef _WIN32
/* Python has its zlib within itself there, and shows none of it. */
static int tws_zlib_open(tws_zlib *zlib, const char *file, const char *prefix) {
    (void)zlib, (void)file, (void)prefix;
    return 0;
}
#else
/* Find the functions in the shared library `file` of a loaded module, "" for one that is part of the program; 0 where one
 * is missing. Their names begin with `prefix`, "zng_" for zlib-ng. */
static int tws_zlib_open(tws_zlib *zlib, const char *file, const char *prefix) {
    /* Never unloaded: the module goes on to hold it. */
    void *library = dlopen(*file ? file : NULL, RTLD_LAZY | RTLD_LOCAL);
    char symbol[64];
    if (library == NULL)
        return 0;
#define TWS_FIND(field, name) \
    snprintf(symbol, sizeof symbol, "%s%s", prefix, name); \
    if ((*(void **)&zlib->field = dlsym(library, symbol)) == NULL) \
        return 0;
    if (*prefix == 0) {
        TWS_FIND(version, "zlibVersion")
        TWS_FIND(deflate_init, "deflateInit2_")
        TWS_FIND(inflate_init, "inflateInit2_")
    } else {
        TWS_FIND(deflate_init, "deflateInit2")
        TWS_FIND(inflate_init, "inflateInit2")
    }
    TWS_FIND(deflate, "deflate")
    TWS_FIND(inflate, "inflate")
    TWS_FIND(deflate_end, "deflateEnd")
    TWS_FIND(inflate_end, "inflateEnd")
    TWS_FIND(deflate_set_dictionary, "deflateSetDictionary")
    TWS_FIND(inflate_set_dictionary, "inflateSetDictionary")
    TWS_FIND(deflate_get_dictionary, "deflateGetDictionary")
    TWS_FIND(inflate_get_dictionary, "inflateGetDictionary")
    TWS_FIND(inflate_reset_keep, "inflateResetKeep")
#undef TWS_FIND
    return 1;
}
#endif

/* As the zlib module does, so that tracemalloc sees it. */
static void *tws_zalloc(void *opaque, unsigned int items, unsigned int size) {
    (void)opaque;
    return PyMem_RawMalloc((size_t)items * size);
}

static void tws_zfree(void *opaque, void *pointer) {
    (void)opaque;
    PyMem_RawFree(pointer);
}

static void tws_zstream_clear(tws_zstream *stream) {
    memset(stream, 0, sizeof *stream);
    stream->zalloc = tws_zalloc;
    stream->zfree = tws_zfree;
}

static int tws_deflate_init(const tws_zlib *zlib, tws_zstream *stream, int level, int wbits, int mem_level, int strategy) {
    tws_zstream_clear(stream);
    if (zlib->version == NULL)
        return zlib->deflate_init.of_zlib_ng(stream, level, TWS_Z_DEFLATED, -wbits, mem_level, strategy);
    return zlib->deflate_init.of_zlib(stream, level, TWS_Z_DEFLATED, -wbits, mem_level, strategy, zlib->version(),
                                      (int)sizeof *stream);
}

static int tws_inflate_init(const tws_zlib *zlib, tws_zstream *stream, int wbits) {
    tws_zstream_clear(stream);
    if (zlib->version == NULL)
        return zlib->inflate_init.of_zlib_ng(stream, -wbits);
    return zlib->inflate_init.of_zlib(stream, -wbits, zlib->version(), (int)sizeof *stream);
}

#endif
