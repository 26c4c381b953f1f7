/*
 * batched_join.h: what the parts of a batched join share: its plans (batched_path.c for a join,
 * batched_calls.c for calls in a select list), its node (batched_join.c), its batches (batch.c).
 */
#ifndef TINYDANCER_BATCHED_JOIN_H
#define TINYDANCER_BATCHED_JOIN_H

#include "tinydancer_fdw.h"

#include "nodes/extensible.h"

#pragma GCC visibility push(hidden)

#define BATCHED_JOIN_NAME "Tiny Dancer Batched Join"
#define BATCHED_CALLS_NAME "Tiny Dancer Batched Calls"
/* The first batch is one row, so that a LIMIT 1 asks for one; each is this much larger. */
#define BATCH_GROWTH 4

extern int	batched_join_size;
extern const CustomScanMethods batched_join_methods;
extern const CustomScanMethods batched_calls_methods;
extern double batches_of(double rows);
extern List *outer_tlist(Plan *outer);

/* A row of the answer; rows of one value are linked. */
typedef struct AnswerRow
{
	struct AnswerRow *next;
	Datum	   *values;
	bool	   *nulls;
} AnswerRow;

/* A distinct value of a batch, and the rows that echo it. */
typedef struct BatchValue
{
	text	   *value;
	AnswerRow  *first;
	AnswerRow  *last;
	char		status;			/* of the hash table */
} BatchValue;

typedef struct values_hash values_hash;

/*
 * What is asked for outer rows of a batch that agree in all inputs but the key. Where each is to have
 * an answer of its own, a value that repeats is asked in another question.
 */
typedef struct Question
{
	struct Question *next;
	Datum	   *inputs;			/* of the inputs that vary, in their order */
	values_hash *values;
} Question;

/* An outer row of a batch. */
typedef struct OuterRow
{
	MinimalTuple tuple;
	Question   *question;			/* NULL where an input is NULL: it joins nothing */
	text	   *value;
} OuterRow;

/* An input other than the key that comes from the outer side. */
typedef struct VaryingInput
{
	int			input;			/* which of the inputs */
	int16		length;			/* of its type */
	bool		by_value;
} VaryingInput;

typedef struct BatchedJoin
{
	CustomScanState css;		/* must be first */
	EngineScan *scan;
	bool		left;			/* rows without a match are emitted too */
	int			key;			/* which of the inputs is the key */
	int			key_column;		/* which of the columns received echoes it */
	bool		apart;			/* each outer row has an answer of its own */
	int			ninputs;
	int			nvarying;
	VaryingInput *varying;
	ExprState **inputs;
	Datum	   *input_values;
	bool	   *input_nulls;
	bool	   *constant;		/* inputs that are the same for all outer rows */
	ExprState  *joining;		/* the join's clauses */
	int			nouter;			/* columns of an outer row; in a scan tuple the others follow */
	int			ninner;
	TupleDesc	whole;			/* of the row that is the last column, or NULL */
	AttrNumber *columns;		/* attnos of the other columns, for that row */
	TupleTableSlot *outer_slot;
	int			size;			/* rows of the next batch */
	bool		exhausted;		/* the outer plan has no more rows */
	MemoryContext batch;		/* all of a batch, reset for the next */
	OuterRow   *rows;
	int			nrows;
	Question   *questions;
	int			at;				/* the outer row being joined */
	bool		loaded;			/* it is in the scan tuple */
	bool		matched;
	AnswerRow  *next;			/* its next row of the answer */
} BatchedJoin;

extern void load_outer(BatchedJoin *join, TupleTableSlot *outer);
extern bool next_batch(BatchedJoin *join);
extern AnswerRow *answers_to(OuterRow *row);

#pragma GCC visibility pop

#endif							/* TINYDANCER_BATCHED_JOIN_H */
