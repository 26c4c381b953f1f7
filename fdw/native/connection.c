/*
 * connection.c: sockets to the engine, every wait on them, and the pool of a backend.
 *
 * A connection belongs to one open scan from its question to the end of its answer, then goes back
 * to the pool and is used again, by later statements and transactions too. A scan that is left in
 * the middle of an answer closes its connection: the next scan never sees bytes of an old answer.
 *
 * The socket does not block, and each wait is also a wait for the latch, so that a cancel or a
 * statement_timeout takes effect at once.
 */
#include "tinydancer_fdw.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#define FRONT_DOOR "native"
#define BUFFER_BYTES (16 * 1024)
#define BUFFER_KEPT (1024 * 1024)	/* a larger buffer is given back after its scan */
#define IDLE_KEPT 8
#define START_HINT "Start it with \"tinydancer up\", or with \"tinydancer serve\" for an engine alone."

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
	bool		counted;		/* the socket is among the server's open files */
	WaitEventSet *waits;		/* latch, postmaster and socket */
	uint32		awaited;		/* the socket events that `waits` is set to */
	unsigned char *buffer;
	size_t		capacity;		/* of the buffer, without the byte that readers may put after it */
	size_t		start;			/* first byte not consumed */
	size_t		end;			/* first byte not received */
	size_t		frame;			/* length of the frame handed out last, at `start` */
};

static dlist_head connections = DLIST_STATIC_INIT(connections);

/* ALTER SERVER or USER MAPPING: connections made with the old options serve no more scans. */
static void
invalidate(Datum arg, int cache, uint32 hash)
{
	dlist_iter	iter;

	dlist_foreach(iter, &connections)
	{
		Connection *connection = dlist_container(Connection, node, iter.cur);

		if (hash == 0 ||
			(cache == FOREIGNSERVEROID && connection->server_hash == hash) ||
			(cache == USERMAPPINGOID && connection->mapping_hash == hash))
			connection->stale = true;
	}
}

static void
watch_catalogs(void)
{
	static bool watching = false;

	if (watching)
		return;
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate, (Datum) 0);
	watching = true;
}

void
connection_close(Connection *connection)
{
	dlist_delete(&connection->node);
	if (connection->waits != NULL)
		FreeWaitEventSet(connection->waits);
	if (connection->socket != PGINVALID_SOCKET)
		closesocket(connection->socket);
	if (connection->counted)
		ReleaseExternalFD();
	MemoryContextDelete(connection->context);
}

/* Drops the frame handed out last. */
static void
consume(Connection *connection)
{
	connection->start += connection->frame;
	connection->frame = 0;
	if (connection->start == connection->end)
		connection->start = connection->end = 0;
}

/* Gives a connection back after the whole of an answer has been read. */
void
connection_release(Connection **holder)
{
	Connection *connection = *holder;
	int			idle = 0;
	dlist_iter	iter;

	*holder = NULL;
	consume(connection);
	dlist_foreach(iter, &connections)
		if (!dlist_container(Connection, node, iter.cur)->busy)
			idle++;
	/* Bytes after the answer are nobody's: such an engine is not to be trusted with another scan. */
	if (connection->stale || idle >= IDLE_KEPT || connection->start != connection->end)
	{
		connection_close(connection);
		return;
	}
	connection->busy = false;
	connection->kept = true;
	if (connection->capacity > BUFFER_KEPT)
	{
		connection->buffer = repalloc(connection->buffer, BUFFER_BYTES + 1);
		connection->capacity = BUFFER_BYTES;
	}
}

static void
not_reached(Connection *connection, int error)
{
	errno = error;
	ereport(ERROR,
			errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			errmsg("could not connect to the Tiny Dancer engine at %s: %m", connection->where),
			errhint(START_HINT));
}

static void
lost(Connection *connection)
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

static void
connect_socket(Connection *connection, const EngineOptions *options)
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

/* A connection that is not connected yet, in the list and owned by *holder. */
static Connection *
create(Connection **holder, const EngineTarget *target)
{
	const EngineOptions *options = &target->options;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "Tiny Dancer connection",
												  ALLOCSET_SMALL_SIZES);
	Connection *connection = MemoryContextAllocZero(context, sizeof(Connection));

	connection->context = context;
	connection->serverid = target->serverid;
	connection->server_hash = GetSysCacheHashValue1(FOREIGNSERVEROID,
													ObjectIdGetDatum(target->serverid));
	connection->mapping = target->mapping;
	if (OidIsValid(target->mapping))
		connection->mapping_hash = GetSysCacheHashValue1(USERMAPPINGOID,
														 ObjectIdGetDatum(target->mapping));
	connection->busy = true;
	connection->socket = PGINVALID_SOCKET;
	connection->timeout = options->timeout;
	connection->where = options->socket != NULL
		? MemoryContextStrdup(context, psprintf("socket \"%s\"", options->socket))
		: MemoryContextStrdup(context, psprintf("%s, port %s", options->host, options->port));
	connection->capacity = BUFFER_BYTES;
	connection->buffer = MemoryContextAlloc(context, BUFFER_BYTES + 1);
	dlist_push_head(&connections, &connection->node);
	*holder = connection;
	return connection;
}

/* ---- bytes ---- */

/* Sends bytes; returns false where the engine has closed its end. */
static bool
send_all(Connection *connection, const char *data, size_t length)
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
static bool
fill(Connection *connection, size_t bytes)
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

/* ---- frames ---- */

/* Whether the next frame is in the buffer as a whole, so that to read it does not wait. */
bool
connection_frame_buffered(Connection *connection)
{
	const unsigned char *next = connection->buffer + connection->start + connection->frame;
	size_t		left = connection->end - connection->start - connection->frame;
	int			kind;
	uint32		length;

	return left >= FRAME_HEADER &&
		frame_header(next, &kind, &length) == NULL &&
		left - FRAME_HEADER >= length;
}

/*
 * Waits for the next frame and returns its kind. Its payload stays in the connection's buffer until
 * the next call. Leaves by an error where there is none.
 */
int
connection_frame(Connection **holder, FrameReader *payload)
{
	Connection *connection = *holder;
	int			kind;
	uint32		length;
	const char *fault;

	CHECK_FOR_INTERRUPTS();
	consume(connection);
	if (!fill(connection, FRAME_HEADER))
		lost(connection);
	fault = frame_header(connection->buffer + connection->start, &kind, &length);
	if (fault != NULL)
		connection_violated(holder, fault);
	if (!fill(connection, FRAME_HEADER + (size_t) length))
		lost(connection);
	connection->frame = FRAME_HEADER + (size_t) length;
	*payload = frame_reader(connection->buffer + connection->start + FRAME_HEADER, length);
	return kind;
}

/* Reports a frame that is none, and closes its connection. */
void
connection_violated(Connection **holder, const char *fault)
{
	char	   *where = pstrdup((*holder)->where);

	connection_close(*holder);
	*holder = NULL;
	ereport(ERROR,
			errcode(ERRCODE_PROTOCOL_VIOLATION),
			errmsg("the engine at %s sent a wrong frame: %s", where, fault),
			errhint("Is the engine there of the same version of Tiny Dancer as the front door?"));
}

/* A string of an ERROR frame, in the server's encoding. */
static char *
error_text(FrameReader *payload)
{
	FrameText	text = frame_string(payload);
	char	   *copy = pnstrdup(text.data != NULL ? (const char *) text.data : "", text.length);

	if (payload->fault == NULL && !pg_verify_mbstr(PG_UTF8, copy, (int) text.length, true))
		payload->fault = "its text is not valid UTF-8";
	if (payload->fault != NULL)
		return NULL;
	return pg_any_to_server(copy, (int) strlen(copy), PG_UTF8);
}

/* An error's code; an engine can't pass off a success or a warning as one. */
static int
error_code(const char *sqlstate)
{
	if (strlen(sqlstate) != 5 || strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5 ||
		(sqlstate[0] == '0' && sqlstate[1] >= '0' && sqlstate[1] <= '2'))
		return ERRCODE_FDW_ERROR;
	return MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]);
}

/* Reports the error that the engine answered with; the connection has served its scan. */
void
connection_raise(Connection **holder, FrameReader *payload)
{
	Connection *connection = *holder;
	char	   *sqlstate = error_text(payload);
	char	   *message = error_text(payload);
	char	   *detail = error_text(payload);
	char	   *hint = error_text(payload);

	frame_end(payload);
	if (payload->fault != NULL)
		connection_violated(holder, payload->fault);
	if (connection->welcomed)
		connection_release(holder);
	else
	{
		connection_close(connection);
		*holder = NULL;
	}
	ereport(ERROR,
			errcode(error_code(sqlstate)),
			errmsg_internal("%s", message),
			detail[0] != '\0' ? errdetail_internal("%s", detail) : 0,
			hint[0] != '\0' ? errhint("%s", hint) : 0);
}

/* ---- asking ---- */

/*
 * Where the engine of a foreign table is, for a user. Only a token needs a user mapping, so that one
 * may be missing.
 */
EngineTarget
engine_target(Oid relid, Oid userid)
{
	ForeignTable *table = GetForeignTable(relid);
	UserMapping *mapping = NULL;
	EngineTarget target;

	watch_catalogs();
	target.serverid = table->serverid;
	if (SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							  ObjectIdGetDatum(table->serverid)) ||
		SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							  ObjectIdGetDatum(table->serverid)))
		mapping = GetUserMapping(userid, table->serverid);
	target.mapping = mapping != NULL ? mapping->umid : InvalidOid;
	target.options = engine_options(GetForeignServer(table->serverid), mapping, table);
	return target;
}

/*
 * An idle connection to this target, or NULL. Closes those whose options have changed;
 * with `none`, closes them all.
 */
static Connection *
idle_connection(const EngineTarget *target, bool none)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &connections)
	{
		Connection *connection = dlist_container(Connection, node, iter.cur);

		if (connection->busy)
			continue;
		if (connection->stale)
			connection_close(connection);
		else if (connection->serverid == target->serverid &&
				 connection->mapping == target->mapping)
		{
			if (!none)
				return connection;
			connection_close(connection);
		}
	}
	return NULL;
}

/* Sends HELLO without waiting for the WELCOME: the question follows at once. */
static bool
greet(Connection *connection, const char *token)
{
	static const char door[] = FRONT_DOOR;
	StringInfoData hello;
	uint32		token_length = (uint32) strlen(token);
	uint32		payload = 4 + token_length + 4 + (uint32) strlen(door);
	uint32		number;

	initStringInfo(&hello);
	appendBinaryStringInfo(&hello, "TD\001\001", 4);
	number = pg_hton32(payload);
	appendBinaryStringInfo(&hello, (char *) &number, 4);
	number = pg_hton32(token_length);
	appendBinaryStringInfo(&hello, (char *) &number, 4);
	appendBinaryStringInfo(&hello, token, (int) token_length);
	number = pg_hton32((uint32) strlen(door));
	appendBinaryStringInfo(&hello, (char *) &number, 4);
	appendStringInfoString(&hello, door);
	return send_all(connection, hello.data, (size_t) hello.len);
}

/* Reads the WELCOME of a new connection; an ERROR in its place is raised. */
static void
read_welcome(Connection **holder)
{
	FrameReader payload;
	int			kind = connection_frame(holder, &payload);

	if (kind == FRAME_ERROR)
		connection_raise(holder, &payload);
	if (kind != FRAME_WELCOME)
		connection_violated(holder, "it is not the WELCOME that a connection begins with");
	(void) frame_string(&payload);
	frame_end(&payload);
	if (payload.fault != NULL)
		connection_violated(holder, payload.fault);
	(*holder)->welcomed = true;
}

/*
 * Sends a question (a whole SCAN frame) and waits for the first bytes of its answer. *holder owns
 * the connection from its first moment, so that whoever cleans up after an error finds it there.
 *
 * A kept connection may have lost its engine since its last scan: where it breaks before any byte
 * of the answer, a new one is opened, once.
 */
void
connection_ask(Connection **holder, const EngineTarget *target, const StringInfoData *question)
{
	bool		again = false;

	for (;;)
	{
		Connection *connection = idle_connection(target, again);
		bool		sent = true;

		if (connection != NULL)
		{
			connection->busy = true;
			connection->timeout = target->options.timeout;
			*holder = connection;
		}
		else
		{
			connection = create(holder, target);
			connect_socket(connection, &target->options);
			sent = greet(connection, target->options.token);
		}
		if (sent)
			(void) send_all(connection, question->data, (size_t) question->len);

		/* Even where sending failed there may be an answer: why the engine closed. */
		if (fill(connection, 1))
			break;
		if (!connection->kept)
			lost(connection);
		connection_close(connection);
		*holder = NULL;
		again = true;
	}
	if (!(*holder)->welcomed)
		read_welcome(holder);
}
