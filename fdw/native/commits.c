/*
 * commits.c: how far the server has come: who knows this place knows whether anybody has committed.
 *
 * The engine compares the place for equality only. It is the server (its identifier and when it was
 * started) and the number of transactions with changes that have ended since: the number that lets
 * PostgreSQL itself use a snapshot again (GetSnapshotDataReuse in procarray.c).
 */
#include "tinydancer_fdw.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM < 170000
#define TransamVariables ShmemVariableCache
#endif

/* Writes the place into a buffer; returns its length. */
int
commits_so_far(char *place, size_t size)
{
	uint64		count;

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	count = TransamVariables->xactCompletionCount;
	LWLockRelease(ProcArrayLock);
	return snprintf(place, size, INT64_FORMAT "/" INT64_FORMAT "/" UINT64_FORMAT,
					(int64) GetSystemIdentifier(), (int64) PgStartTime, count);
}
