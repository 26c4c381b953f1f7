/*
 * batched_join.c: runs a join that sends its outer values to the engine in batches.
 *
 * A batch: read some outer rows, collect their distinct values, ask for all of them at once, file
 * the answer's rows under the value that each echoes, then go through the outer rows in their order
 * and emit each with its rows. All clauses of the join are checked, on rows of both sides put side
 * by side.
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
#include "utils/array.h"
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

/* An outer row of a batch. */
typedef struct OuterRow
{
	MinimalTuple tuple;
	text	   *value;			/* NULL joins nothing */
} OuterRow;

typedef struct BatchedJoin
{
	CustomScanState css;		/* must be first */
	EngineScan *scan;
	bool		left;			/* rows without a match are emitted too */
	int			key;			/* which of the inputs is the key */
	int			key_column;		/* which of the columns received echoes it */
	int			ninputs;
	ExprState **inputs;
	Datum	   *input_values;
	bool	   *input_nulls;
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
	values_hash *values;
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

/* Reads outer rows and their distinct values. */
static void
read_outer_rows(BatchedJoin *join)
{
	PlanState  *outer = linitial(join->css.custom_ps);
	ExprContext *context = join->css.ss.ps.ps_ExprContext;
	size_t		bytes = 0;

	join->nrows = 0;
	while (join->nrows < join->size && bytes < BATCH_BYTES)
	{
		TupleTableSlot *slot = ExecProcNode(outer);
		MemoryContext before;
		OuterRow   *row;
		Datum		value;
		bool		null;

		if (TupIsNull(slot))
		{
			join->exhausted = true;
			break;
		}
		load_outer(join, slot);
		value = ExecEvalExprSwitchContext(join->inputs[join->key], context, &null);
		before = MemoryContextSwitchTo(join->batch);
		row = &join->rows[join->nrows++];
		row->tuple = ExecCopySlotMinimalTuple(slot);
		row->value = NULL;
		if (!null)
		{
			text	   *copy = DatumGetTextPCopy(value);
			bool		found;
			BatchValue *entry = values_insert(join->values, copy, &found);

			if (!found)
			{
				entry->first = entry->last = NULL;
				bytes += VARSIZE_ANY_EXHDR(copy);
			}
			row->value = copy;
		}
		MemoryContextSwitchTo(before);
		ResetExprContext(context);
	}
}

/* The values of a batch as text[]. */
static Datum
values_array(BatchedJoin *join)
{
	Datum	   *elements = palloc(sizeof(Datum) * join->values->members);
	int			count = 0;
	BatchValue *entry;

	/* In the order of the outer rows: engines answer in the order of the question. */
	for (int i = 0; i < join->nrows; i++)
	{
		if (join->rows[i].value == NULL)
			continue;
		entry = values_lookup(join->values, join->rows[i].value);
		if (entry->value == join->rows[i].value)
			elements[count++] = PointerGetDatum(entry->value);
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

/* Asks for the batch's values, and files the rows of the answer. */
static void
ask(BatchedJoin *join)
{
	ExprContext *context = join->css.ss.ps.ps_ExprContext;
	MemoryContext before = MemoryContextSwitchTo(join->batch);

	for (int i = 0; i < join->ninputs; i++)
	{
		if (i == join->key)
		{
			join->input_values[i] = values_array(join);
			join->input_nulls[i] = false;
		}
		else
			join->input_values[i] = ExecEvalExprSwitchContext(join->inputs[i], context,
															  &join->input_nulls[i]);
	}
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
				entry = values_lookup(join->values,
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
	join->rows = palloc(sizeof(OuterRow) * (size_t) join->size);
	join->values = values_create(join->batch, (uint32) join->size, NULL);
	MemoryContextSwitchTo(before);

	read_outer_rows(join);
	join->at = 0;
	join->loaded = false;
	if (join->nrows == 0)
		return false;
	if (join->values->members > 0)
		ask(join);
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
			join->next = row->value == NULL ? NULL : values_lookup(join->values, row->value)->first;
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
