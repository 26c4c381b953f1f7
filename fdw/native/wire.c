/*
 * wire.c: the bytes between a backend and an engine, and every wait for them.
 *
 * The socket does not block, and each wait is also a wait for the latch, so that a cancel or a
 * statement_timeout takes effect at once.
 */
#include "connection.h"

#include <sys/socket.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"

/* Not every system has it; a backend ignores SIGPIPE anyway, and starts no other program. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

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
bool
wire_wait(Connection *connection, uint32 event, int timeout)
{
	instr_time	began;
	long		left = timeout;

	INSTR_TIME_SET_CURRENT(began);
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
		INSTR_TIME_SUBTRACT(passed, began);
		left = timeout - (long) INSTR_TIME_GET_MILLISEC(passed);
		if (left <= 0)
			return false;
	}
}

/* ---- bytes ---- */

/* What moving bytes came to, where none were moved. */
enum Moved
{
	MOVED_CLOSED = -1,			/* the engine has closed its end */
	MOVED_WANT_READ = -2,		/* the socket must be waited for */
	MOVED_WANT_WRITE = -3
};

/* The same of a TLS stream. */
static ssize_t
moved_by_tls(Connection *connection, ssize_t moved)
{
	switch (moved)
	{
		case TLS_WANT_READ:
			return MOVED_WANT_READ;
		case TLS_WANT_WRITE:
			return MOVED_WANT_WRITE;
		case TLS_FAILED:
			ereport(ERROR,
					errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("the TLS connection to the Tiny Dancer engine at %s broke: %s",
						   connection->where, tls_methods()->fault(connection->tls)));
		case TLS_CLOSED:
			return MOVED_CLOSED;
		default:
			return moved;
	}
}

/* Sends some bytes: how many, or an enum Moved. */
static ssize_t
send_some(Connection *connection, const char *data, size_t length)
{
	ssize_t		sent;

	if (connection->tls != NULL)
		return moved_by_tls(connection, tls_methods()->send(connection->tls, data, length));
	do
		sent = send(connection->socket, data, length, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return sent;
	return errno == EAGAIN || errno == EWOULDBLOCK ? MOVED_WANT_WRITE : MOVED_CLOSED;
}

/* Receives what is there, up to the buffer's size: how many bytes, or an enum Moved. */
static ssize_t
receive_some(Connection *connection)
{
	unsigned char *place = connection->buffer + connection->end;
	size_t		room = connection->capacity - connection->end;
	ssize_t		got;

	if (connection->tls != NULL)
		return moved_by_tls(connection, tls_methods()->receive(connection->tls, place, room));
	do
		got = recv(connection->socket, place, room, 0);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		return got;
	return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? MOVED_WANT_READ : MOVED_CLOSED;
}

static uint32
event_of(ssize_t moved)
{
	return moved == MOVED_WANT_READ ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
}

/* Sends bytes; returns false where the engine has closed its end. */
bool
wire_send(Connection *connection, const char *data, size_t length)
{
	while (length > 0)
	{
		ssize_t		sent = send_some(connection, data, length);

		if (sent >= 0)
		{
			data += sent;
			length -= (size_t) sent;
		}
		else if (sent == MOVED_CLOSED)
			return false;
		else if (!wire_wait(connection, event_of(sent), connection->timeout))
			ereport(ERROR,
					errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("the Tiny Dancer engine at %s took nothing for %d ms",
						   connection->where, connection->timeout));
	}
	return true;
}

/*
 * Whether a connection between two scans is as the first left it: open, and nothing has come over it.
 * What has would be taken for the next answer.
 */
bool
wire_quiet(Connection *connection)
{
	ssize_t		moved = receive_some(connection);

	return moved == MOVED_WANT_READ || moved == MOVED_WANT_WRITE;
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

/* Waits until `bytes` bytes are in the buffer; returns false where the engine closed before. */
bool
wire_fill(Connection *connection, size_t bytes)
{
	while (connection->end - connection->start < bytes)
	{
		ssize_t		got;

		make_room(connection, bytes);
		got = receive_some(connection);
		if (got > 0)
			connection->end += (size_t) got;
		else if (got == MOVED_CLOSED)
			return false;
		else if (!wire_wait(connection, event_of(got), connection->timeout))
			ereport(ERROR,
					errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("the Tiny Dancer engine at %s sent nothing for %d ms",
						   connection->where, connection->timeout),
					errhint("See whether it hangs (tinydancer ping). If not, raise option timeout of the foreign table or its server, or ask for less at once."));
	}
	return true;
}
