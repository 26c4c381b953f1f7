/*
 * connection.h: a connection, as its pool (connection.c), its beginning (opening.c) and its
 * bytes (wire.c) see it.
 */
#ifndef TINYDANCER_CONNECTION_H
#define TINYDANCER_CONNECTION_H

#include "tinydancer_fdw.h"

#include "lib/ilist.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#else
#include "storage/latch.h"
#endif

#include "tls.h"

#pragma GCC visibility push(hidden)

#define BUFFER_BYTES (16 * 1024)

struct Connection
{
	dlist_node	node;
	MemoryContext context;		/* holds all of it */
	Oid			serverid;
	Oid			mapping;		/* the user mapping it was opened with, or 0 */
	uint32		server_hash;	/* of the catalog rows, to notice that they changed */
	uint32		mapping_hash;
	bool		busy;			/* a scan owns it */
	bool		stale;			/* its options have changed: not to be used again */
	bool		kept;			/* it has answered a scan before this one */
	bool		welcomed;		/* the engine has said WELCOME */
	int			timeout;
	char	   *where;			/* the engine's address, for messages */
	pgsocket	socket;
	TlsStream  *tls;			/* over the socket, or NULL */
	bool		counted;		/* the socket is among the server's open files */
	WaitEventSet *waits;		/* latch, postmaster and socket */
	uint32		awaited;		/* the socket events that `waits` is set to */
	unsigned char *buffer;
	size_t		capacity;		/* of the buffer, without the byte that readers may put after it */
	size_t		start;			/* first byte not consumed */
	size_t		end;			/* first byte not received */
	size_t		frame;			/* length of the frame handed out last, at `start` */
};

#define ACCESS_HINT \
	"The server's account may not open it. A Unix socket is open to the group that " \
	"\"tinydancer serve --group\" names, in a directory that it may enter."
#define START_HINT "Start it with \"tinydancer up\", or with \"tinydancer serve\" for an engine alone."

/* ---- opening.c ---- */

extern void wire_connect(Connection *connection, const EngineOptions *options);
extern void wire_close(Connection *connection);

/* ---- wire.c ---- */

extern bool wire_wait(Connection *connection, uint32 event, int timeout);
extern bool wire_send(Connection *connection, const char *data, size_t length);
extern bool wire_quiet(Connection *connection);
extern bool wire_fill(Connection *connection, size_t bytes);
extern void wire_lost(Connection *connection) __attribute__((noreturn));

#pragma GCC visibility pop

#endif							/* TINYDANCER_CONNECTION_H */
