/*
 * wire.c: the bytes between a backend and an engine, and every wait for them.
 *
 * The socket does not block, and each wait is also a wait for the latch, so that a cancel or a
 * statement_timeout takes effect at once.
 */
#include "connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"

/* Not every system has these; a backend ignores SIGPIPE anyway, and starts no other program. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef SOCK_CLOEXEC
#define SOCK_CLOEXEC 0
#endif

#define START_HINT "Start it with \"tinydancer up\", or with \"tinydancer serve\" for an engine alone."

static void
not_reached(Connection *connection, int error)
{
	errno = error;
	ereport(ERROR,
			errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			errmsg("could not connect to the Tiny Dancer engine at %s: %m", connection->where),
			errhint(START_HINT));
}

void
wire_lost(Connection *connection)
{
	ereport(ERROR,
			errcode(ERRCODE_CONNECTION_FAILURE),
			errmsg("the Tiny Dancer engine at %s closed the connection before its answer was whole",
				   connection->where),
			errhint(START_HINT));
}

/*
 * Waits for an event of the socket. Returns false when `timeout` milliseconds have passed without
 * it; leaves by an error when the query is cancelled.
 */
static bool
wait_for(Connection *connection, uint32 event, int timeout)
{
	instr_time	began;
	long		left = timeout;

	INSTR_TIME_SET_ZERO(began);
	if (connection->awaited != event)
	{
		ModifyWaitEvent(connection->waits, 2, event, NULL);
		connection->awaited = event;
	}
	for (;;)
	{
		WaitEvent	occurred;
		instr_time	passed;

		if (WaitEventSetWait(connection->waits, left, &occurred, 1, PG_WAIT_EXTENSION) == 0)
			return false;
		if (occurred.events & event)
			return true;
		if (occurred.events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		INSTR_TIME_SET_CURRENT(passed);
		if (INSTR_TIME_IS_ZERO(began))
			began = passed;
		INSTR_TIME_SUBTRACT(passed, began);
		left = timeout - (long) INSTR_TIME_GET_MILLISEC(passed);
		if (left <= 0)
			return false;
	}
}

/* ---- opening ---- */

/*
 * The address of the engine. Without TLS a token and the requests would cross a network in the
 * clear, so that TCP goes to this machine only.
 */
static socklen_t
engine_address(const EngineOptions *options, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *) address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) address;
	const char *host;

	memset(address, 0, sizeof(*address));
	if (options->socket != NULL)
	{
		struct sockaddr_un *local = (struct sockaddr_un *) address;

		local->sun_family = AF_UNIX;
		strlcpy(local->sun_path, options->socket, sizeof(local->sun_path));
		return sizeof(*local);
	}
	host = strcmp(options->host, "localhost") == 0 ? "127.0.0.1" : options->host;
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1 && ntohl(v4->sin_addr.s_addr) >> 24 == 127)
	{
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16) atoi(options->port));
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr))
	{
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16) atoi(options->port));
		return sizeof(*v6);
	}
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("the native front door does not reach an engine on another host (\"%s\")",
				   options->host),
			errdetail("It does not speak TLS, without which requests would cross the network in the clear."),
			errhint("Use option socket, or host 127.0.0.1; a TLS client such as stunnel can lead either to another host."));
}

static void
add_waits(Connection *connection)
{
#if PG_VERSION_NUM >= 170000
	connection->waits = CreateWaitEventSet(NULL, 3);
#else
	connection->waits = CreateWaitEventSet(connection->context, 3);
#endif
	AddWaitEventToSet(connection->waits, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(connection->waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(connection->waits, WL_SOCKET_WRITEABLE, connection->socket, NULL, NULL);
	connection->awaited = WL_SOCKET_WRITEABLE;
}

void
wire_connect(Connection *connection, const EngineOptions *options)
{
	struct sockaddr_storage address;
	socklen_t	length = engine_address(options, &address);
	int			waited = 0;
	int			error = 0;
	socklen_t	error_size = sizeof(error);
	int			no_delay = 1;

	if (!AcquireExternalFD())
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				errmsg("too many open files to connect to the Tiny Dancer engine"));
	connection->counted = true;
	connection->socket = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection->socket == PGINVALID_SOCKET || !pg_set_noblock(connection->socket))
		not_reached(connection, errno);
	add_waits(connection);

	while (connect(connection->socket, (struct sockaddr *) &address, length) != 0)
	{
		if (errno == EINPROGRESS)
		{
			if (!wait_for(connection, WL_SOCKET_WRITEABLE, options->connect_timeout))
				not_reached(connection, ETIMEDOUT);
			break;
		}
		/* A Unix socket whose queue is full says EAGAIN, and tells nobody when there is room. */
		if (errno != EAGAIN && errno != EINTR)
			not_reached(connection, errno);
		if (waited >= options->connect_timeout)
			not_reached(connection, ETIMEDOUT);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		waited += 2;
	}
	if (getsockopt(connection->socket, SOL_SOCKET, SO_ERROR, &error, &error_size) != 0)
		error = errno;
	if (error != 0)
		not_reached(connection, error);
	if (address.ss_family != AF_UNIX)
		(void) setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof(no_delay));
}

/* ---- bytes ---- */

/* Sends bytes; returns false where the engine has closed its end. */
bool
wire_send(Connection *connection, const char *data, size_t length)
{
	while (length > 0)
	{
		ssize_t		sent = send(connection->socket, data, length, MSG_NOSIGNAL);

		if (sent > 0)
		{
			data += sent;
			length -= (size_t) sent;
		}
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (!wait_for(connection, WL_SOCKET_WRITEABLE, connection->timeout))
				ereport(ERROR,
						errcode(ERRCODE_CONNECTION_FAILURE),
						errmsg("the Tiny Dancer engine at %s took nothing for %d ms",
							   connection->where, connection->timeout));
		}
		else if (errno != EINTR)
			return false;
	}
	return true;
}

/* Makes room for `bytes` bytes from `start`, in steps, as they arrive: a length is only a claim. */
static void
make_room(Connection *connection, size_t bytes)
{
	size_t		used = connection->end - connection->start;
	size_t		wanted = Min(bytes, Max(used * 2, BUFFER_BYTES));

	if (connection->start + wanted <= connection->capacity)
		return;
	memmove(connection->buffer, connection->buffer + connection->start, used);
	connection->start = 0;
	connection->end = used;
	if (wanted > connection->capacity)
	{
		connection->buffer = repalloc(connection->buffer, wanted + 1);
		connection->capacity = wanted;
	}
}

/* Receives what is there, up to the buffer's size: 1 received, 0 nothing yet, -1 closed. */
static int
receive(Connection *connection)
{
	for (;;)
	{
		ssize_t		got = recv(connection->socket, connection->buffer + connection->end,
							   connection->capacity - connection->end, 0);

		if (got > 0)
		{
			connection->end += (size_t) got;
			return 1;
		}
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (got == 0 || errno != EINTR)
			return -1;
	}
}

/* Waits until `bytes` bytes are in the buffer; returns false where the engine closed before. */
bool
wire_fill(Connection *connection, size_t bytes)
{
	while (connection->end - connection->start < bytes)
	{
		int			got;

		make_room(connection, bytes);
		got = receive(connection);
		if (got < 0)
			return false;
		if (got == 0 && !wait_for(connection, WL_SOCKET_READABLE, connection->timeout))
			ereport(ERROR,
					errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("the Tiny Dancer engine at %s sent nothing for %d ms",
						   connection->where, connection->timeout),
					errhint("Raise option timeout of the foreign table or its server, or ask for less at once."));
	}
	return true;
}

void
wire_close(Connection *connection)
{
	if (connection->waits != NULL)
		FreeWaitEventSet(connection->waits);
	if (connection->socket != PGINVALID_SOCKET)
		closesocket(connection->socket);
	if (connection->counted)
		ReleaseExternalFD();
}
