/*
 * opening.c: opens connections to an engine, by a Unix socket, by TCP, by TLS over TCP; and closes them.
 */
#include "connection.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"

/* Not every system has it; a backend starts no other program. */
#ifndef SOCK_CLOEXEC
#define SOCK_CLOEXEC 0
#endif

static void
not_reached(Connection *connection, int error)
{
	errno = error;
	ereport(ERROR,
			errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			errmsg("could not connect to the Tiny Dancer engine at %s: %m", connection->where),
			errhint(error == EACCES ? ACCESS_HINT : START_HINT));
}

/* ---- addresses ---- */

#define MOST_ADDRESSES 16

typedef struct Address
{
	struct sockaddr_storage address;
	socklen_t	length;
} Address;

/* Puts the address of a Unix socket into `found`; returns how many that are. */
static int
socket_address(const EngineOptions *options, Address *found)
{
	struct sockaddr_un *local = (struct sockaddr_un *) &found->address;

	memset(found, 0, sizeof(*found));
	local->sun_family = AF_UNIX;
	strlcpy(local->sun_path, options->socket, sizeof(local->sun_path));
	found->length = sizeof(*local);
	return 1;
}

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 &&
		IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
}

/*
 * Puts the addresses of a host into `found`, MOST_ADDRESSES at most; returns how many there are.
 * Without TLS a token and the requests would cross a network in the clear, so that this is for this
 * machine only.
 *
 * A name that is not in /etc/hosts is asked of a name server, and that wait can't be cancelled.
 */
static int
host_addresses(Connection *connection, const EngineOptions *options, Address *found)
{
	struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	bool		local = true;
	int			count = 0;
	int			fault = getaddrinfo(options->host, options->port, &wanted, &list);

	if (fault != 0)
		ereport(ERROR,
				errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				errmsg("could not find the Tiny Dancer engine at %s: %s",
					   connection->where, gai_strerror(fault)));
	for (struct addrinfo *each = list; each != NULL && count < MOST_ADDRESSES; each = each->ai_next)
	{
		memcpy(&found[count].address, each->ai_addr, each->ai_addrlen);
		found[count++].length = each->ai_addrlen;
		local = local && is_loopback(each->ai_addr);
	}
	freeaddrinfo(list);
	if (!local && options->sslrootcert == NULL)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("an engine on another host (\"%s\") is reached by TLS only", options->host),
				errdetail("Without it, requests and the token would cross the network in the clear."),
				errhint("Add option sslrootcert, the file of certificates to trust; or use a Unix socket."));
	return count;
}

/* ---- sockets ---- */

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

/* Milliseconds of a timeout that are left. */
static int
time_left(instr_time began, int timeout)
{
	instr_time	passed;

	INSTR_TIME_SET_CURRENT(passed);
	INSTR_TIME_SUBTRACT(passed, began);
	return Max(timeout - (int) INSTR_TIME_GET_MILLISEC(passed), 0);
}

/* Connects the socket; returns 0, or what went wrong. */
static int
try_address(Connection *connection, const Address *address, instr_time began, int timeout)
{
	int			error = 0;
	socklen_t	error_size = sizeof(error);
	int			no_delay = 1;

	connection->socket = socket(address->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection->socket == PGINVALID_SOCKET || !pg_set_noblock(connection->socket))
		return errno;
	add_waits(connection);
	while (connect(connection->socket, (const struct sockaddr *) &address->address,
				   address->length) != 0)
	{
		if (errno == EINPROGRESS)
		{
			if (!wire_wait(connection, WL_SOCKET_WRITEABLE, time_left(began, timeout)))
				return ETIMEDOUT;
			break;
		}
		/* A Unix socket whose queue is full says EAGAIN, and tells nobody when there is room. */
		if (errno != EAGAIN && errno != EINTR)
			return errno;
		if (time_left(began, timeout) == 0)
			return ETIMEDOUT;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (getsockopt(connection->socket, SOL_SOCKET, SO_ERROR, &error, &error_size) != 0)
		return errno;
	if (error == 0 && address->address.ss_family != AF_UNIX)
		(void) setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof(no_delay));
	return error;
}

static void
close_socket(Connection *connection)
{
	if (connection->waits != NULL)
		FreeWaitEventSet(connection->waits);
	connection->waits = NULL;
	if (connection->socket != PGINVALID_SOCKET)
		closesocket(connection->socket);
	connection->socket = PGINVALID_SOCKET;
}

/* ---- TLS ---- */

/* What tls.c has, loaded when it is first needed. Leaves by an error where it was not built. */
const TlsMethods *
tls_methods(void)
{
	static const TlsMethods *methods = NULL;
	Dl_info		own;
	struct stat there;
	char	   *path;
	const TlsMethods *(*get) (void);

	if (methods != NULL)
		return methods;
	/* It is beside this library, wherever that was loaded from. */
	if (dladdr(&methods, &own) == 0)
		own.dli_fname = "";
	path = pstrdup(own.dli_fname);
	get_parent_directory(path);
	path = psprintf("%s/" TLS_LIBRARY, path);
	if (stat(path, &there) != 0)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("the native front door was built without TLS"),
				errdetail("There is no \"%s\".", path),
				errhint("Build it where OpenSSL's headers are (Debian: libssl-dev), or use a Unix socket."));
	get = (const TlsMethods *(*) (void)) load_external_function(path, TLS_FUNCTION, true, NULL);
	if (get()->interface != TLS_INTERFACE)
		ereport(ERROR,
				errcode(ERRCODE_FDW_ERROR),
				errmsg("\"%s\" is of another version than the native front door", path),
				errhint("Install both libraries of one build, and connect again."));
	methods = get();
	return methods;
}

static void
not_secured(Connection *connection, const char *fault, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			errmsg("could not connect to the Tiny Dancer engine at %s by TLS: %s",
				   connection->where, fault),
			errhint("%s", hint));
}

/* Puts TLS over the connected socket; nothing of ours has been sent before it stands. */
static void
secure(Connection *connection, const EngineOptions *options, instr_time began)
{
	const TlsMethods *tls = tls_methods();
	char		fault[256];
	int			result;

	connection->tls = tls->open(connection->socket, options->host, options->sslrootcert, fault,
								sizeof(fault));
	if (connection->tls == NULL)
		not_secured(connection, fault,
					psprintf("Option sslrootcert is \"%s\": can the server read it, and has it certificates?",
							 options->sslrootcert));
	while ((result = tls->handshake(connection->tls)) != TLS_DONE)
	{
		if (result == TLS_FAILED)
			not_secured(connection, tls->fault(connection->tls),
						"The engine needs options --tls-certificate and --tls-key, with a certificate "
						"for this host that option sslrootcert vouches for.");
		if (result == TLS_CLOSED)
			not_secured(connection, "it closed the connection", START_HINT);
		if (!wire_wait(connection,
					  result == TLS_WANT_READ ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE,
					  time_left(began, options->connect_timeout)))
			not_reached(connection, ETIMEDOUT);
	}
}

void
wire_connect(Connection *connection, const EngineOptions *options)
{
	Address		addresses[MOST_ADDRESSES];
	int			count = options->socket != NULL ? socket_address(options, addresses)
		: host_addresses(connection, options, addresses);
	instr_time	began;
	int			error = EADDRNOTAVAIL;

	if (!AcquireExternalFD())
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				errmsg("too many open files to connect to the Tiny Dancer engine"));
	connection->counted = true;
	INSTR_TIME_SET_CURRENT(began);
	for (int i = 0; i < count && error != 0; i++)
	{
		close_socket(connection);
		error = try_address(connection, &addresses[i], began, options->connect_timeout);
	}
	if (error != 0)
		not_reached(connection, error);
	if (options->host != NULL && options->sslrootcert != NULL)
		secure(connection, options, began);
}

void
wire_close(Connection *connection)
{
	if (connection->tls != NULL)
		tls_methods()->close(connection->tls);
	close_socket(connection);
	if (connection->counted)
		ReleaseExternalFD();
}
