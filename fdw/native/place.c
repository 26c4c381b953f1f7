/*
 * place.c: where this backend is and how far its server has come, as a question says it.
 *
 * The engine holds the server's identifier and start and the database's OID against those of the
 * database that it serves: a copied database brings its foreign servers along, and they lead to
 * another's engine.
 *
 * Who knows the server's start and the number of transactions with changes that have ended since
 * knows whether anybody has committed: it is the number that lets PostgreSQL itself use a snapshot
 * again (GetSnapshotDataReuse in procarray.c).
 */
#include "tinydancer_fdw.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM < 170000
#define TransamVariables ShmemVariableCache
#endif

#define NUMBERS_LENGTH 48		/* two numbers with a slash after each */

/* Adds the place, a string of the frame; `engine_database` is the option's, or NULL. */
void
send_place(StringInfo question, const char *engine_database)
{
	const char *name = engine_database == NULL ? ""
		: pg_server_to_any(engine_database, (int) strlen(engine_database), PG_UTF8);
	char		commits[NUMBERS_LENGTH] = "/";
	char		numbers[2 * NUMBERS_LENGTH];
	int			length;

	/* What commits on a standby is its primary's, of which this server can't tell how far it is. */
	if (!RecoveryInProgress())
	{
		uint64		count;

		LWLockAcquire(ProcArrayLock, LW_SHARED);
		count = TransamVariables->xactCompletionCount;
		LWLockRelease(ProcArrayLock);
		snprintf(commits, sizeof(commits), INT64_FORMAT "/" UINT64_FORMAT,
				 (int64) PgStartTime, count);
	}
	length = snprintf(numbers, sizeof(numbers), INT64_FORMAT "/%s/%u/",
					  (int64) GetSystemIdentifier(), commits, MyDatabaseId);
	pq_sendint32(question, (uint32) (length + strlen(name)));
	appendBinaryStringInfo(question, numbers, length);
	appendBinaryStringInfo(question, name, (int) strlen(name));
}
