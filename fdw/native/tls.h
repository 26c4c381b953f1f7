/*
 * tls.h: TLS over a socket that does not block, as wire.c uses it and tls.c makes it with OpenSSL.
 *
 * tls.c is a library of its own, loaded with the first connection that needs it: the front door works
 * where there is no OpenSSL, and a backend that speaks over a Unix socket does not wait for it.
 */
#ifndef TINYDANCER_TLS_H
#define TINYDANCER_TLS_H

#include <stddef.h>
#include <sys/types.h>

#define TLS_LIBRARY "tinydancer_tls.so"
#define TLS_FUNCTION "tinydancer_tls"	/* returns a const TlsMethods * */
#define TLS_INTERFACE 1			/* changes with the structure below */

typedef struct TlsStream TlsStream;

/* What a method returns that can't go on. */
enum TlsResult
{
	TLS_DONE = 0,				/* of a handshake */
	TLS_WANT_READ = -1,			/* wait until the socket is readable, then call it again */
	TLS_WANT_WRITE = -2,
	TLS_CLOSED = -3,			/* the other end has closed */
	TLS_FAILED = -4				/* `fault` says why */
};

/* None of them leaves by an error, or waits. */
typedef struct TlsMethods
{
	int			interface;

	/*
	 * A client's stream, whose server must show a certificate for `host` that one of the file
	 * `sslrootcert` vouches for; NULL where that can't be set up, with the reason in `fault`.
	 */
	TlsStream  *(*open) (int socket, const char *host, const char *sslrootcert, char *fault,
						 size_t fault_size);
	int			(*handshake) (TlsStream *stream);
	ssize_t		(*receive) (TlsStream *stream, void *data, size_t length);
	ssize_t		(*send) (TlsStream *stream, const void *data, size_t length);
	const char *(*fault) (TlsStream *stream);
	void		(*close) (TlsStream *stream);
} TlsMethods;

#endif							/* TINYDANCER_TLS_H */
