/*
 * tls.c: TLS by OpenSSL 1.1 or later, as a library of its own (tls.h).
 *
 * Nothing here is called back by OpenSSL, and nothing here raises an error: PostgreSQL's errors jump,
 * and OpenSSL's functions must return.
 */
#include "postgres.h"

#include "fmgr.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tls.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT const TlsMethods *tinydancer_tls(void);

struct TlsStream
{
	SSL_CTX    *context;
	SSL		   *ssl;
	bool		broken;			/* no more is to be sent over it */
	char		fault[256];
};

/* Says why the last call failed, and empties OpenSSL's queue of errors. */
static void
explain(char *fault, size_t size)
{
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_reason_error_string(code);

	if (code == 0)
		strlcpy(fault, strerror(errno), size);
#ifdef ERR_SYSTEM_ERROR
	else if (ERR_SYSTEM_ERROR(code))
		strlcpy(fault, strerror(ERR_GET_REASON(code)), size);
#endif
	else if (reason != NULL)
		strlcpy(fault, reason, size);
	else
		snprintf(fault, size, "OpenSSL error %lx", code);
	ERR_clear_error();
}

static void
tls_close(TlsStream *stream)
{
	/* Says goodbye, and waits for no answer to it. */
	if (stream->ssl != NULL && !stream->broken && SSL_is_init_finished(stream->ssl))
		(void) SSL_shutdown(stream->ssl);
	SSL_free(stream->ssl);
	SSL_CTX_free(stream->context);
	ERR_clear_error();
	free(stream);
}

/* The name or address that the server's certificate must be for. */
static bool
expect_host(SSL *ssl, const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static bool
set_up(TlsStream *stream, int socket, const char *host, const char *sslrootcert)
{
	stream->context = SSL_CTX_new(TLS_client_method());
	if (stream->context == NULL ||
		SSL_CTX_set_min_proto_version(stream->context, TLS1_2_VERSION) != 1 ||
		SSL_CTX_load_verify_locations(stream->context, sslrootcert, NULL) != 1)
		return false;
	SSL_CTX_set_verify(stream->context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(stream->context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	stream->ssl = SSL_new(stream->context);
	if (stream->ssl == NULL || !expect_host(stream->ssl, host) ||
		SSL_set_fd(stream->ssl, socket) != 1)
		return false;
	SSL_set_connect_state(stream->ssl);
	return true;
}

static TlsStream *
tls_open(int socket, const char *host, const char *sslrootcert, char *fault, size_t fault_size)
{
	TlsStream  *stream = calloc(1, sizeof(TlsStream));

	ERR_clear_error();
	if (stream == NULL)
		strlcpy(fault, strerror(errno), fault_size);
	else if (!set_up(stream, socket, host, sslrootcert))
	{
		explain(fault, fault_size);
		tls_close(stream);
		stream = NULL;
	}
	return stream;
}

/* What a call that has not succeeded means. */
static int
result(TlsStream *stream, int returned)
{
	long		verified;

	switch (SSL_get_error(stream->ssl, returned))
	{
		case SSL_ERROR_WANT_READ:
			return TLS_WANT_READ;
		case SSL_ERROR_WANT_WRITE:
			return TLS_WANT_WRITE;
		case SSL_ERROR_ZERO_RETURN:
			return TLS_CLOSED;
		case SSL_ERROR_SYSCALL:
			stream->broken = true;
			if (errno == 0 || errno == ECONNRESET || errno == EPIPE)
				return TLS_CLOSED;
			break;
		default:
			stream->broken = true;
	}
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
	/* A frame says itself whether it is whole, so that it matters little how the stream ended. */
	if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
	{
		ERR_clear_error();
		return TLS_CLOSED;
	}
#endif
	explain(stream->fault, sizeof(stream->fault));
	verified = SSL_get_verify_result(stream->ssl);
	if (verified != X509_V_OK)
		snprintf(stream->fault, sizeof(stream->fault), "certificate verify failed: %s",
				 X509_verify_cert_error_string(verified));
	return TLS_FAILED;
}

static int
tls_handshake(TlsStream *stream)
{
	int			returned;

	ERR_clear_error();
	errno = 0;
	returned = SSL_do_handshake(stream->ssl);
	return returned == 1 ? TLS_DONE : result(stream, returned);
}

static ssize_t
tls_receive(TlsStream *stream, void *data, size_t length)
{
	int			received;

	ERR_clear_error();
	errno = 0;
	received = SSL_read(stream->ssl, data, (int) Min(length, INT_MAX));
	return received > 0 ? received : result(stream, received);
}

static ssize_t
tls_send(TlsStream *stream, const void *data, size_t length)
{
	int			sent;

	ERR_clear_error();
	errno = 0;
	sent = SSL_write(stream->ssl, data, (int) Min(length, INT_MAX));
	return sent > 0 ? sent : result(stream, sent);
}

static const char *
tls_fault(TlsStream *stream)
{
	return stream->fault;
}

const TlsMethods *
tinydancer_tls(void)
{
	static const TlsMethods methods = {
		.interface = TLS_INTERFACE,
		.open = tls_open,
		.handshake = tls_handshake,
		.receive = tls_receive,
		.send = tls_send,
		.fault = tls_fault,
		.close = tls_close,
	};

	return &methods;
}
