/*
 * connection.c: the connections of a backend to its engines, and the frames that come over them.
 *
 * A connection belongs to one open scan from its question to the end of its answer, then goes back
 * to the pool and is used again, by later statements and transactions too. A scan that is left in
 * the middle of an answer closes its connection: the next scan never sees bytes of an old answer.
 */
#include "connection.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define FRONT_DOOR "native"
#define BUFFER_KEPT (1024 * 1024)	/* a larger buffer is given back after its scan */
#define IDLE_KEPT 8

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
	wire_close(connection);
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
	if (!wire_fill(connection, FRAME_HEADER))
		wire_lost(connection);
	fault = frame_header(connection->buffer + connection->start, &kind, &length);
	if (fault != NULL)
		connection_violated(holder, fault);
	if (!wire_fill(connection, FRAME_HEADER + (size_t) length))
		wire_lost(connection);
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
	char	   *copy;

	/* Checked before it is copied: a copy ends at a NUL, which the check refuses. */
	if (payload->fault == NULL &&
		!pg_verify_mbstr(PG_UTF8, (const char *) text.data, (int) text.length, true))
		payload->fault = "its text is not valid UTF-8";
	if (payload->fault != NULL)
		return NULL;
	copy = pnstrdup((const char *) text.data, text.length);
	return pg_any_to_server(copy, (int) text.length, PG_UTF8);
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
	appendBinaryStringInfo(&hello, "TD\002\001", 4);
	number = pg_hton32(payload);
	appendBinaryStringInfo(&hello, (char *) &number, 4);
	number = pg_hton32(token_length);
	appendBinaryStringInfo(&hello, (char *) &number, 4);
	appendBinaryStringInfo(&hello, token, (int) token_length);
	number = pg_hton32((uint32) strlen(door));
	appendBinaryStringInfo(&hello, (char *) &number, 4);
	appendStringInfoString(&hello, door);
	return wire_send(connection, hello.data, (size_t) hello.len);
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
			if (!wire_quiet(connection))
			{
				connection_close(connection);
				*holder = NULL;
				continue;
			}
		}
		else
		{
			connection = create(holder, target);
			wire_connect(connection, &target->options);
			sent = greet(connection, target->options.token);
		}
		if (sent)
			(void) wire_send(connection, question->data, (size_t) question->len);

		/* Even where sending failed there may be an answer: why the engine closed. */
		if (wire_fill(connection, 1))
			break;
		if (!connection->kept)
			wire_lost(connection);
		connection_close(connection);
		*holder = NULL;
		again = true;
	}
	if (!(*holder)->welcomed)
		read_welcome(holder);
}
