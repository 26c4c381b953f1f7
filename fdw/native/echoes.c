/*
 * echoes.c: the set of values that a scan has asked for, to hold the rows' echoes against.
 *
 * The executor would check `request = ANY ($1)` row by row, comparing with one element after the
 * other: 10,000 requests would be 50 million comparisons. Such a clause is left out of the plan, and
 * each echo is looked up here, as the bytes that went over the wire.
 */
#include "tinydancer_fdw.h"

#include "common/hashfn.h"

/* A value asked for: its bytes, in memory that outlives the set. */
typedef struct Asked
{
	FrameText	value;
	char		status;			/* of the hash table */
} Asked;

static inline bool
same_bytes(FrameText a, FrameText b)
{
	return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

#define SH_PREFIX asked
#define SH_ELEMENT_TYPE Asked
#define SH_KEY_TYPE FrameText
#define SH_KEY value
#define SH_HASH_KEY(tb, key) hash_bytes((key).data, (int) (key).length)
#define SH_EQUAL(tb, a, b) same_bytes(a, b)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct EchoSet
{
	asked_hash *hash;
};

/* A set of the values of an encoded array: u32 n, then n values, as in a SCAN frame. */
EchoSet *
echoes_of_array(MemoryContext memory, FrameReader array)
{
	EchoSet    *set = MemoryContextAlloc(memory, sizeof(EchoSet));
	uint32		count = frame_u32(&array);

	set->hash = asked_create(memory, count, NULL);
	while (count-- > 0)
	{
		bool		found;

		if (frame_u8(&array) != 0)
			(void) asked_insert(set->hash, frame_string(&array), &found);
	}
	return set;
}

bool
echo_was_asked(EchoSet *set, FrameText echo)
{
	return asked_lookup(set->hash, echo) != NULL;
}
