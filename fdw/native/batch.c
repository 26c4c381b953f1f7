/*
 * batch.c: one batch of a batched join: outer rows, the questions they make, the answers to these.
 *
 * A question has one value for each input but the key. Where others come from the outer side, a
 * batch is a question for each combination of their values.
 */
#include "batched_join.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/memutils.h"

/* Bytes of values or of answers beyond which a batch does not grow. */
#define BATCH_BYTES (4 * 1024 * 1024)
#define ANSWER_BYTES (16 * 1024 * 1024)

static inline bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

#define SH_PREFIX values
#define SH_ELEMENT_TYPE BatchValue
#define SH_KEY_TYPE text *
#define SH_KEY value
#define SH_HASH_KEY(tb, key) \
	hash_bytes((const unsigned char *) VARDATA_ANY(key), (int) VARSIZE_ANY_EXHDR(key))
#define SH_EQUAL(tb, a, b) same_text(a, b)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Puts an outer row into the scan tuple, with nothing beside it. */
void
load_outer(BatchedJoin *join, TupleTableSlot *outer)
{
	TupleTableSlot *slot = join->css.ss.ss_ScanTupleSlot;

	slot_getallattrs(outer);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, outer->tts_values, sizeof(Datum) * (size_t) join->nouter);
	memcpy(slot->tts_isnull, outer->tts_isnull, sizeof(bool) * (size_t) join->nouter);
	memset(slot->tts_isnull + join->nouter, true, sizeof(bool) * (size_t) join->ninner);
	ExecStoreVirtualTuple(slot);
	join->css.ss.ps.ps_ExprContext->ecxt_scantuple = slot;
}

/* The value of an input for the outer row in the scan tuple, copied into the batch. */
static Datum
input_value(BatchedJoin *join, int input, int16 length, bool by_value, bool *null)
{
	Datum		value = ExecEvalExprSwitchContext(join->inputs[input],
												  join->css.ss.ps.ps_ExprContext, null);
	MemoryContext before = MemoryContextSwitchTo(join->batch);

	/* Detoasted, so that equal values have equal bytes. */
	if (!*null && length == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	else if (!*null)
		value = datumCopy(value, by_value, length);
	MemoryContextSwitchTo(before);
	return value;
}

/* Whether a question may take up a row of this value. */
static inline bool
takes(BatchedJoin *join, Question *question, text *value)
{
	return !join->apart || values_lookup(question->values, value) == NULL;
}

/*
 * The question that the outer row in the scan tuple, of this value, belongs to; NULL where an input
 * is NULL.
 */
static Question *
question_of_row(BatchedJoin *join, text *value)
{
	Datum	   *inputs = MemoryContextAlloc(join->batch,
											sizeof(Datum) * (size_t) (join->nvarying + 1));
	Question   *question;

	for (int i = 0; i < join->nvarying; i++)
	{
		VaryingInput *varying = &join->varying[i];
		bool		null;

		inputs[i] = input_value(join, varying->input, varying->length, varying->by_value, &null);
		if (null)
			return NULL;
	}
	for (question = join->questions; question != NULL; question = question->next)
	{
		int			i = 0;

		while (i < join->nvarying &&
			   datumIsEqual(question->inputs[i], inputs[i], join->varying[i].by_value,
							join->varying[i].length))
			i++;
		if (i == join->nvarying && takes(join, question, value))
			return question;
	}
	question = MemoryContextAlloc(join->batch, sizeof(Question));
	question->inputs = inputs;
	question->values = values_create(join->batch, 64, NULL);
	question->next = join->questions;
	join->questions = question;
	return question;
}

/* Reads outer rows and what is to be asked for them. */
static void
read_outer_rows(BatchedJoin *join)
{
	PlanState  *outer = linitial(join->css.custom_ps);
	size_t		bytes = 0;

	join->nrows = 0;
	join->questions = NULL;
	while (join->nrows < join->size && bytes < BATCH_BYTES)
	{
		TupleTableSlot *slot = ExecProcNode(outer);
		MemoryContext before;
		OuterRow   *row;
		BatchValue *entry;
		Datum		value;
		bool		null;
		bool		found;

		if (TupIsNull(slot))
		{
			join->exhausted = true;
			break;
		}
		row = &join->rows[join->nrows++];
		before = MemoryContextSwitchTo(join->batch);
		row->tuple = ExecCopySlotMinimalTuple(slot);
		MemoryContextSwitchTo(before);
		load_outer(join, slot);
		value = input_value(join, join->key, -1, false, &null);
		row->value = null ? NULL : DatumGetTextP(value);
		row->question = null ? NULL : question_of_row(join, row->value);
		ResetExprContext(join->css.ss.ps.ps_ExprContext);
		if (row->question == NULL)
			continue;
		entry = values_insert(row->question->values, row->value, &found);
		if (!found)
		{
			entry->first = entry->last = NULL;
			bytes += VARSIZE_ANY_EXHDR(row->value);
		}
	}
}

/* The values of a question as text[], in the order of the outer rows. */
static Datum
values_array(BatchedJoin *join, Question *question)
{
	Datum	   *elements = palloc(sizeof(Datum) * question->values->members);
	int			count = 0;

	for (int i = 0; i < join->nrows; i++)
	{
		OuterRow   *row = &join->rows[i];

		/* The first row of a value has lent it to the table. */
		if (row->question == question && values_lookup(question->values, row->value)->value == row->value)
			elements[count++] = PointerGetDatum(row->value);
	}
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* The row as a whole, of the columns that the engine sent. */
static Datum
whole_row(BatchedJoin *join, AnswerRow *row)
{
	Datum	   *values = palloc0(sizeof(Datum) * (size_t) join->whole->natts);
	bool	   *nulls = palloc(sizeof(bool) * (size_t) join->whole->natts);

	memset(nulls, true, sizeof(bool) * (size_t) join->whole->natts);
	for (int i = 0; i < join->ninner - 1; i++)
	{
		values[join->columns[i] - 1] = row->values[i];
		nulls[join->columns[i] - 1] = row->nulls[i];
	}
	return HeapTupleGetDatum(heap_form_tuple(join->whole, values, nulls));
}

/* Asks a question, and files the rows of the answer. */
static void
ask(BatchedJoin *join, Question *question)
{
	ExprContext *context = join->css.ss.ps.ps_ExprContext;
	MemoryContext before = MemoryContextSwitchTo(join->batch);

	for (int i = 0; i < join->ninputs; i++)
	{
		join->input_nulls[i] = false;
		if (i == join->key)
			join->input_values[i] = values_array(join, question);
		else if (join->constant[i])
			join->input_values[i] = ExecEvalExprSwitchContext(join->inputs[i], context,
															  &join->input_nulls[i]);
	}
	for (int i = 0; i < join->nvarying; i++)
		join->input_values[join->varying[i].input] = question->inputs[i];
	if (scan_start(join->scan, join->input_values, join->input_nulls))
		for (;;)
		{
			AnswerRow  *row = palloc(sizeof(AnswerRow));
			BatchValue *entry = NULL;

			row->next = NULL;
			row->values = palloc(sizeof(Datum) * (size_t) join->ninner);
			row->nulls = palloc(sizeof(bool) * (size_t) join->ninner);
			if (!scan_next(join->scan, row->values, row->nulls))
				break;
			if (join->whole != NULL)
			{
				row->values[join->ninner - 1] = whole_row(join, row);
				row->nulls[join->ninner - 1] = false;
			}
			if (!row->nulls[join->key_column])
				entry = values_lookup(question->values,
									  DatumGetTextPP(row->values[join->key_column]));
			if (entry == NULL)
				ereport(ERROR,
						errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("the engine sent a wrong frame: it answers a request that it was not asked"));
			if (entry->last == NULL)
				entry->first = row;
			else
				entry->last->next = row;
			entry->last = row;
		}
	MemoryContextSwitchTo(before);
	ResetExprContext(context);
}

/* Reads and asks for the next batch; false where there are no more outer rows. */
bool
next_batch(BatchedJoin *join)
{
	MemoryContext before;

	if (join->exhausted)
		return false;
	ExecClearTuple(join->outer_slot);
	ExecClearTuple(join->css.ss.ss_ScanTupleSlot);
	MemoryContextReset(join->batch);
	before = MemoryContextSwitchTo(join->batch);
	join->rows = palloc0(sizeof(OuterRow) * (size_t) join->size);
	MemoryContextSwitchTo(before);

	read_outer_rows(join);
	join->at = 0;
	join->loaded = false;
	if (join->nrows == 0)
		return false;
	for (Question *question = join->questions; question != NULL; question = question->next)
		ask(join, question);
	if (MemoryContextMemAllocated(join->batch, true) > ANSWER_BYTES)
		join->size = Max(join->size / BATCH_GROWTH, 1);
	else
		join->size = Min(join->size * BATCH_GROWTH, batched_join_size);
	return true;
}

/* The rows that answer an outer row's question. */
AnswerRow *
answers_to(OuterRow *row)
{
	return row->question == NULL ? NULL : values_lookup(row->question->values, row->value)->first;
}
