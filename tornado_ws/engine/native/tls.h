/* TLS for a channel: the session of an ssl.SSLSocket, fed from and emptied into memory of ours.
 *
 * Python's SSLSocket reads the header and the body of each record with a recv of its own, and sends each record with a
 * send of its own. Here the session gets a BIO that takes what one recv has brought and gathers what one send is to
 * take. Nothing is linked: the functions are those of the OpenSSL that Python's _ssl module has loaded, and where they
 * are not found, are not of the library that made the session, or the session is not where CPython 3.10 to 3.14 keep it,
 * tws_tls_open says so by returning NULL; so it does on Windows, which has no dladdr. */
#ifndef TORNADO_WS_TLS_H
#define TORNADO_WS_TLS_H

#ifndef _GNU_SOURCE
/* For dladdr. */
#define _GNU_SOURCE
#endif
#include "sockets.h"

#include <Python.h>
#ifndef _WIN32
#include <dlfcn.h>
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The most that one record adds to its payload (RFC 5246 section 6.2.3), its header included, and the most that it has. */
#define TWS_RECORD_OVERHEAD 2053
#define TWS_RECORD_PAYLOAD 16384

enum { TWS_TLS_WANTS_MORE = 0, TWS_TLS_ENDED = -1, TWS_TLS_FAILED = -2 };

typedef struct {
    void *ssl, *bio;
    int fd;
    /* What was received and not yet read by the session. */
    const uint8_t *in;
    size_t in_size;
    /* Where records are gathered; NULL while none of our calls is under way. */
    uint8_t *out;
    size_t out_size, out_room;
} tws_tls;

static struct {
    int tried;
    void *method;
    unsigned long (*version_num)(void);
    const void *(*ssl_get_ssl_method)(const void *);
    int (*ssl_read)(void *, void *, int);
    int (*ssl_write)(void *, const void *, int);
    int (*ssl_pending)(const void *);
    int (*ssl_get_error)(const void *, int);
    void (*ssl_set_bio)(void *, void *, void *);
    void *(*bio_meth_new)(int, const char *);
    int (*bio_meth_set_read)(void *, int (*)(void *, char *, int));
    int (*bio_meth_set_write)(void *, int (*)(void *, const char *, int));
    int (*bio_meth_set_ctrl)(void *, long (*)(void *, int, long, void *));
    int (*bio_meth_set_destroy)(void *, int (*)(void *));
    void *(*bio_new)(const void *);
    void (*bio_set_data)(void *, void *);
    void *(*bio_get_data)(void *);
    void (*bio_set_init)(void *, int);
    void (*bio_set_flags)(void *, int);
    void (*bio_clear_flags)(void *, int);
    void (*err_clear_error)(void);
    unsigned long (*err_peek_last_error)(void);
    void (*err_error_string_n)(unsigned long, char *, size_t);
} tws_openssl;

/* BIO_FLAGS_READ, _WRITE and _SHOULD_RETRY of openssl/bio.h, and three of its commands. */
enum { TWS_BIO_READ = 1, TWS_BIO_WRITE = 2, TWS_BIO_RETRY = 8, TWS_BIO_FLUSH = 11, TWS_BIO_GET_FD = 105 };
#define TWS_BIO_SOURCE_SINK 0x0400

static int tws_bio_wait(void *bio, int flags) {
    tws_openssl.bio_set_flags(bio, flags | TWS_BIO_RETRY);
    return -1;
}

static int tws_bio_read(void *bio, char *data, int size) {
    tws_tls *tls = tws_openssl.bio_get_data(bio);
    size_t count = (size_t)size;
    tws_openssl.bio_clear_flags(bio, TWS_BIO_READ | TWS_BIO_WRITE | TWS_BIO_RETRY);
    if (tls == NULL || size <= 0)
        return -1;
    if (tls->in_size == 0)
        return tws_bio_wait(bio, TWS_BIO_READ);
    if (count > tls->in_size)
        count = tls->in_size;
    memcpy(data, tls->in, count);
    tls->in += count;
    tls->in_size -= count;
    return (int)count;
}

static int tws_bio_write(void *bio, const char *data, int size) {
    tws_tls *tls = tws_openssl.bio_get_data(bio);
    Py_ssize_t count;
    tws_openssl.bio_clear_flags(bio, TWS_BIO_READ | TWS_BIO_WRITE | TWS_BIO_RETRY);
    if (tls == NULL || size <= 0)
        return -1;
    if (tls->out != NULL) {
        if (tls->out_room - tls->out_size < (size_t)size)
            return -1;
        memcpy(tls->out + tls->out_size, data, (size_t)size);
        tls->out_size += (size_t)size;
        return size;
    }
    /* Somebody uses the SSLSocket behind our back: as its own BIO would. */
    count = tws_send(tls->fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && (tws_socket_error() == TWS_WOULD_BLOCK || tws_socket_error() == TWS_INTERRUPTED))
        return tws_bio_wait(bio, TWS_BIO_WRITE);
    return (int)count;
}

static long tws_bio_ctrl(void *bio, int command, long number, void *pointer) {
    tws_tls *tls = tws_openssl.bio_get_data(bio);
    (void)number;
    if (command == TWS_BIO_FLUSH)
        return 1;
    if (command == TWS_BIO_GET_FD && tls != NULL) {
        if (pointer != NULL)
            *(int *)pointer = tls->fd;
        return tls->fd;
    }
    return 0;
}

static int tws_bio_destroy(void *bio) {
    tws_tls *tls = tws_openssl.bio_get_data(bio);
    if (tls != NULL) {
        tls->bio = tls->ssl = NULL;
        tws_openssl.bio_set_data(bio, NULL);
    }
    return 1;
}

#ifdef _WIN32
static void tws_tls_load(const char *file) {
    (void)file;
    tws_openssl.tried = 1;
}

static int tws_tls_is_ours(const void *ssl, unsigned long version) {
    (void)ssl, (void)version;
    return 0;
}
#else
/* Find the functions in the file of the _ssl module and what it depends on; "" where _ssl is part of Python itself. */
static void tws_tls_load(const char *file) {
    void *library = dlopen(*file ? file : NULL, RTLD_LAZY | RTLD_LOCAL), *method;
    tws_openssl.tried = 1;
    if (library == NULL)
        return;
#define TWS_FIND(field, name) \
    if ((*(void **)&tws_openssl.field = dlsym(library, name)) == NULL) \
        return;
    TWS_FIND(version_num, "OpenSSL_version_num")
    TWS_FIND(ssl_get_ssl_method, "SSL_get_ssl_method")
    TWS_FIND(ssl_read, "SSL_read")
    TWS_FIND(ssl_write, "SSL_write")
    TWS_FIND(ssl_pending, "SSL_pending")
    TWS_FIND(ssl_get_error, "SSL_get_error")
    TWS_FIND(ssl_set_bio, "SSL_set_bio")
    TWS_FIND(bio_meth_new, "BIO_meth_new")
    TWS_FIND(bio_meth_set_read, "BIO_meth_set_read")
    TWS_FIND(bio_meth_set_write, "BIO_meth_set_write")
    TWS_FIND(bio_meth_set_ctrl, "BIO_meth_set_ctrl")
    TWS_FIND(bio_meth_set_destroy, "BIO_meth_set_destroy")
    TWS_FIND(bio_new, "BIO_new")
    TWS_FIND(bio_set_data, "BIO_set_data")
    TWS_FIND(bio_get_data, "BIO_get_data")
    TWS_FIND(bio_set_init, "BIO_set_init")
    TWS_FIND(bio_set_flags, "BIO_set_flags")
    TWS_FIND(bio_clear_flags, "BIO_clear_flags")
    TWS_FIND(err_clear_error, "ERR_clear_error")
    TWS_FIND(err_peek_last_error, "ERR_peek_last_error")
    TWS_FIND(err_error_string_n, "ERR_error_string_n")
#undef TWS_FIND
    method = tws_openssl.bio_meth_new(TWS_BIO_SOURCE_SINK | 0x7F, "tornado_ws");
    if (method == NULL)
        return;
    tws_openssl.bio_meth_set_read(method, tws_bio_read);
    tws_openssl.bio_meth_set_write(method, tws_bio_write);
    tws_openssl.bio_meth_set_ctrl(method, tws_bio_ctrl);
    tws_openssl.bio_meth_set_destroy(method, tws_bio_destroy);
    tws_openssl.method = method;
}

/* Whether the functions that were found are those of the library that made ``ssl``: a process may have several, and one
 * that works on a session of another's writes where it should not. The version says whether they may look at it, and
 * then the session tells by its method, which is a table in its library. */
static int tws_tls_is_ours(const void *ssl, unsigned long version) {
    Dl_info made_by, found;
    return tws_openssl.version_num() == version && dladdr(tws_openssl.ssl_get_ssl_method(ssl), &made_by) &&
           dladdr(*(void **)&tws_openssl.ssl_read, &found) && made_by.dli_fbase == found.dli_fbase;
}
#endif

/* The session of an _ssl._SSLSocket, which CPython keeps between the socket and the context. That the context is where
 * it should be says that the session is too. */
static void *tws_ssl_of(PyObject *sslobj, PyObject *context) {
    struct layout {
        PyObject_HEAD
        PyObject *socket;
        void *ssl;
        PyObject *context;
    } *object = (struct layout *)sslobj;
    if (Py_TYPE(sslobj)->tp_basicsize < (Py_ssize_t)sizeof *object || object->context != context)
        return NULL;
    return object->ssl;
}

/* Take over the session of ``sslobj``, of the ssl module's OpenSSL with that ``version`` and in the file ``ssl_file``.
 * It has to outlive what is returned, which tws_tls_close frees. */
static tws_tls *tws_tls_open(PyObject *sslobj, PyObject *context, const char *ssl_file, unsigned long version, int fd) {
    void *ssl = tws_ssl_of(sslobj, context);
    tws_tls *tls;
    if (!tws_openssl.tried)
        tws_tls_load(ssl_file);
    if (ssl == NULL || tws_openssl.method == NULL || !tws_tls_is_ours(ssl, version) ||
        (tls = PyMem_RawCalloc(1, sizeof *tls)) == NULL)
        return NULL;
    tls->ssl = ssl;
    tls->fd = fd;
    tls->bio = tws_openssl.bio_new(tws_openssl.method);
    if (tls->bio == NULL) {
        PyMem_RawFree(tls);
        return NULL;
    }
    tws_openssl.bio_set_data(tls->bio, tls);
    tws_openssl.bio_set_init(tls->bio, 1);
    tws_openssl.ssl_set_bio(ssl, tls->bio, tls->bio);
    return tls;
}

static void tws_tls_close(tws_tls *tls) {
    if (tls->bio != NULL)
        tws_openssl.bio_set_data(tls->bio, NULL);
    PyMem_RawFree(tls);
}

static int tws_tls_pending(const tws_tls *tls) {
    return tls->ssl == NULL ? 0 : tws_openssl.ssl_pending(tls->ssl);
}

static Py_ssize_t tws_tls_result(tws_tls *tls, int count) {
    int error = tws_openssl.ssl_get_error(tls->ssl, count);
    /* SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN */
    return error == 2 || error == 3 ? TWS_TLS_WANTS_MORE : error == 6 ? TWS_TLS_ENDED : TWS_TLS_FAILED;
}

/* Decrypt what was received, all of it if there is room: the bytes in ``plain``, and in ``state`` why there are no more. */
static size_t tws_tls_decrypt(tws_tls *tls, uint8_t *plain, size_t room, Py_ssize_t *state) {
    size_t total = 0;
    int count;
    *state = tls->ssl == NULL ? TWS_TLS_FAILED : TWS_TLS_WANTS_MORE;
    while (tls->ssl != NULL && total < room) {
        tws_openssl.err_clear_error();
        count = tws_openssl.ssl_read(tls->ssl, plain + total, (int)(room - total));
        if (count <= 0) {
            *state = tws_tls_result(tls, count);
            break;
        }
        total += (size_t)count;
    }
    return total;
}

/* Encrypt up to one record; how many bytes it took, or a state. */
static Py_ssize_t tws_tls_encrypt(tws_tls *tls, const uint8_t *plain, size_t size) {
    int count;
    if (tls->ssl == NULL)
        return TWS_TLS_FAILED;
    tws_openssl.err_clear_error();
    count = tws_openssl.ssl_write(tls->ssl, plain, (int)(size < TWS_RECORD_PAYLOAD ? size : TWS_RECORD_PAYLOAD));
    return count > 0 ? count : tws_tls_result(tls, count);
}

/* Say what went wrong, and forget it, so that it is not taken for somebody else's error. */
static void tws_tls_error(char *text, size_t size) {
    tws_openssl.err_error_string_n(tws_openssl.err_peek_last_error(), text, size);
    tws_openssl.err_clear_error();
}

#endif
