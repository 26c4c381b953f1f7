/*
 * batched_join.c: runs a join that sends its outer values to the engine in batches.
 *
 * A batch: read some outer rows, collect their distinct values, ask for all of them at once, file
 * the answer's rows under the value that each echoes, then go through the outer rows in their order
 * and emit each with its rows. All clauses of the join are checked, on rows of both sides put side
 * by side.
 *
 * A question has one value for each input but the key. Where others come from the outer side, a
 * batch is a question for each combination of their values.
 */
#include "tinydancer_fdw.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#include "batched_join.h"

/* Bytes of values or of answers beyond which a batch does not grow. */
#define BATCH_BYTES (4 * 1024 * 1024)
#define ANSWER_BYTES (16 * 1024 * 1024)

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

/* What is asked for the outer rows of a batch that agree in all inputs but the key. */
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
	Question	   *question;			/* NULL where an input is NULL: it joins nothing */
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
	Question	   *questions;
	int			at;				/* the outer row being joined */
	bool		loaded;			/* it is in the scan tuple */
	bool		matched;
	AnswerRow  *next;			/* its next row of the answer */
} BatchedJoin;

/* ---- one batch ---- */

/* Puts an outer row into the scan tuple, with nothing beside it. */
static void
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

/* The question that the outer row in the scan tuple belongs to; NULL where an input is NULL. */
static Question *
question_of_row(BatchedJoin *join)
{
	Datum	   *inputs = MemoryContextAlloc(join->batch,
											sizeof(Datum) * (size_t) (join->nvarying + 1));
	Question	   *question;

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
		if (i == join->nvarying)
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
		row->question = null ? NULL : question_of_row(join);
		ResetExprContext(join->css.ss.ps.ps_ExprContext);
		if (row->question == NULL)
			continue;
		row->value = DatumGetTextP(value);
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
static bool
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

/* ---- joined rows ---- */

/* The next row of both sides that the join's clauses let through, or NULL. */
static TupleTableSlot *
next_joined(BatchedJoin *join)
{
	TupleTableSlot *slot = join->css.ss.ss_ScanTupleSlot;
	ExprContext *context = join->css.ss.ps.ps_ExprContext;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (join->at >= join->nrows && !next_batch(join))
			return NULL;
		if (!join->loaded)
		{
			OuterRow   *row = &join->rows[join->at];

			load_outer(join, ExecStoreMinimalTuple(row->tuple, join->outer_slot, false));
			join->next = row->question == NULL ? NULL
				: values_lookup(row->question->values, row->value)->first;
			join->matched = false;
			join->loaded = true;
		}
		context->ecxt_scantuple = slot;
		while (join->next != NULL)
		{
			AnswerRow  *row = join->next;

			join->next = row->next;
			ExecClearTuple(slot);
			memcpy(slot->tts_values + join->nouter, row->values,
				   sizeof(Datum) * (size_t) join->ninner);
			memcpy(slot->tts_isnull + join->nouter, row->nulls,
				   sizeof(bool) * (size_t) join->ninner);
			ExecStoreVirtualTuple(slot);
			ResetExprContext(context);
			if (ExecQual(join->joining, context))
			{
				join->matched = true;
				return slot;
			}
		}
		join->at++;
		join->loaded = false;
		if (join->left && !join->matched)
		{
			memset(slot->tts_isnull + join->nouter, true, sizeof(bool) * (size_t) join->ninner);
			return slot;
		}
	}
}

static TupleTableSlot *
exec_join(CustomScanState *node)
{
	ExprContext *context = node->ss.ps.ps_ExprContext;
	ProjectionInfo *projection = node->ss.ps.ps_ProjInfo;

	for (;;)
	{
		TupleTableSlot *slot;

		ResetExprContext(context);
		slot = next_joined((BatchedJoin *) node);
		if (slot == NULL)
			return projection != NULL ? ExecClearTuple(projection->pi_state.resultslot) : NULL;
		if (ExecQual(node->ss.ps.qual, context))
			return projection != NULL ? ExecProject(projection) : slot;
		InstrCountFiltered1(node, 1);
	}
}

/* ---- the node ---- */

static void
begin_join(CustomScanState *node, EState *estate, int eflags)
{
	BatchedJoin *join = (BatchedJoin *) node;
	CustomScan *custom = (CustomScan *) node->ss.ps.plan;
	ScanPlan	plan = scan_plan_from_list(linitial(custom->custom_private));
	List	   *numbers = lsecond(custom->custom_private);
	PlanState  *outer = ExecInitNode(linitial(custom->custom_plans), estate, eflags);
	ListCell   *cell;

	node->custom_ps = list_make1(outer);
	join->left = linitial_int(numbers) == JOIN_LEFT;
	join->key = lsecond_int(numbers);
	join->scan = scan_create(plan, estate);
	join->inputs = palloc(sizeof(ExprState *) * (size_t) list_length(plan.inputs));
	foreach(cell, (List *) linitial(custom->custom_exprs))
		join->inputs[join->ninputs++] = ExecInitExpr(lfirst(cell), &node->ss.ps);
	join->input_values = palloc(sizeof(Datum) * (size_t) join->ninputs);
	join->input_nulls = palloc(sizeof(bool) * (size_t) join->ninputs);
	join->constant = palloc(sizeof(bool) * (size_t) join->ninputs);
	memset(join->constant, true, sizeof(bool) * (size_t) join->ninputs);
	join->varying = palloc(sizeof(VaryingInput) * (size_t) join->ninputs);
	foreach(cell, (List *) lthird(custom->custom_private))
	{
		VaryingInput *varying = &join->varying[join->nvarying++];

		varying->input = lfirst_int(cell);
		join->constant[varying->input] = false;
		get_typlenbyval(exprType(list_nth(linitial(custom->custom_exprs), varying->input)),
						&varying->length, &varying->by_value);
	}
	join->joining = ExecInitQual(lsecond(custom->custom_exprs), &node->ss.ps);
	join->columns = palloc(sizeof(AttrNumber) * (size_t) list_length(plan.columns));
	foreach(cell, plan.columns)
	{
		if (lfirst_int(cell) == lthird_int(numbers))
			join->key_column = join->ninner;
		join->columns[join->ninner++] = (AttrNumber) lfirst_int(cell);
	}
	if (lfourth_int(numbers))
	{
		join->whole = lookup_rowtype_tupdesc_copy(get_rel_type_id(plan.relid), -1);
		join->ninner++;
	}
	join->nouter = list_length(custom->custom_scan_tlist) - join->ninner;
	join->outer_slot = ExecInitExtraTupleSlot(estate, ExecGetResultType(outer),
											  &TTSOpsMinimalTuple);
	join->batch = AllocSetContextCreate(estate->es_query_cxt, "Tiny Dancer batch",
										ALLOCSET_DEFAULT_SIZES);
	join->size = 1;
}

static void
rescan_join(CustomScanState *node)
{
	BatchedJoin *join = (BatchedJoin *) node;
	PlanState  *outer = linitial(node->custom_ps);

	scan_stop(join->scan);
	join->size = 1;
	join->exhausted = false;
	join->at = join->nrows = 0;
	if (node->ss.ps.chgParam != NULL)
		UpdateChangedParamSet(outer, node->ss.ps.chgParam);
	/* Where its parameters have changed, it is scanned again when it is asked for a row. */
	if (outer->chgParam == NULL)
		ExecReScan(outer);
}

static void
end_join(CustomScanState *node)
{
	scan_stop(((BatchedJoin *) node)->scan);
	ExecEndNode(linitial(node->custom_ps));
}

static void
explain_join(CustomScanState *node, List *ancestors, ExplainState *es)
{
	BatchedJoin *join = (BatchedJoin *) node;
	CustomScan *custom = (CustomScan *) node->ss.ps.plan;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, (Plan *) custom, ancestors);
	Node	   *clauses = (Node *) make_ands_explicit(lsecond(custom->custom_exprs));

	ExplainPropertyText("Join Type", join->left ? "Left" : "Inner", es);
	ExplainPropertyText("Join Cond", deparse_expression(clauses, context, true, false), es);
	scan_explain(join->scan, linitial(custom->custom_exprs), context, es);
}

static const CustomExecMethods exec_methods = {
	.CustomName = BATCHED_JOIN_NAME,
	.BeginCustomScan = begin_join,
	.ExecCustomScan = exec_join,
	.EndCustomScan = end_join,
	.ReScanCustomScan = rescan_join,
	.ExplainCustomScan = explain_join,
};

static Node *
create_state(CustomScan *plan)
{
	BatchedJoin *join = (BatchedJoin *) newNode(sizeof(BatchedJoin), T_CustomScanState);

	join->css.methods = &exec_methods;
	return (Node *) join;
}

const CustomScanMethods batched_join_methods = {
	.CustomName = BATCHED_JOIN_NAME,
	.CreateCustomScanState = create_state,
};
