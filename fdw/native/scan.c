/*
 * scan.c: one question to the engine, and the rows of its answer.
 *
 * Used by the foreign scan (one question a rescan) and by the batched join (one question a batch).
 */
#include "scan.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* ---- statements ---- */

/*
 * The number of an executor run: all its scans and rescans carry it, so that the engine answers
 * them from one snapshot. It is remembered for as long as the run's memory lives, since an EState
 * of a later run may get the same address.
 */
typedef struct Statement
{
	struct Statement *next;
	EState	   *estate;
	uint64		number;
	MemoryContextCallback cleanup;
} Statement;

static Statement *statements = NULL;

static void
forget_statement(void *arg)
{
	Statement **link = &statements;

	while (*link != arg)
		link = &(*link)->next;
	*link = (*link)->next;
}

static uint64
statement_number(EState *estate)
{
	static uint64 last = 0;
	Statement  *statement;

	for (statement = statements; statement != NULL; statement = statement->next)
		if (statement->estate == estate)
			return statement->number;

	/* Numbers of two backends should differ: they start at random. 0 means no statement. */
	if (last == 0 && !pg_strong_random(&last, sizeof(last)))
		last = (uint64) MyProcPid << 32;
	if (++last == 0)
		last = 1;
	statement = MemoryContextAllocZero(estate->es_query_cxt, sizeof(Statement));
	statement->estate = estate;
	statement->number = last;
	statement->next = statements;
	statements = statement;
	statement->cleanup.func = forget_statement;
	statement->cleanup.arg = statement;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &statement->cleanup);
	return last;
}

/* ---- preparing ---- */

/* After an error nobody ends the scan; its memory goes, and the connection goes with it. */
static void
close_scan(void *arg)
{
	EngineScan *scan = arg;

	if (scan->connection != NULL)
		connection_close(scan->connection);
	scan->connection = NULL;
}

static void
prepare_output(OutputColumn *output, Form_pg_attribute attribute)
{
	Oid			function;

	output->name = pstrdup(NameStr(attribute->attname));
	output->type = attribute->atttypid;
	output->typmod = attribute->atttypmod;
	getTypeInputInfo(attribute->atttypid, &function, &output->ioparam);
	fmgr_info(function, &output->input);
}

/* Finds where the echo is that this scan checks in a clause's stead, if any. */
static void
prepare_echo(EngineScan *scan)
{
	ListCell   *cell;

	scan->echo_input = -1;
	if (scan->plan.echoed == 0)
		return;
	foreach(cell, scan->plan.inputs)
		if (lfirst_int(cell) == scan->plan.echoed)
			scan->echo_input = foreach_current_index(cell);
	foreach(cell, scan->plan.columns)
		if (lfirst_int(cell) == scan->plan.echoed)
			scan->echo_output = foreach_current_index(cell);
	scan->echo_memory = AllocSetContextCreate(CurrentMemoryContext, "Tiny Dancer echoes",
											  ALLOCSET_DEFAULT_SIZES);
}

/* The scan of a plan, in the memory of its executor run. Nothing is sent yet. */
EngineScan *
scan_create(ScanPlan plan, EState *estate)
{
	MemoryContext before = MemoryContextSwitchTo(estate->es_query_cxt);
	EngineScan *scan = palloc0(sizeof(EngineScan));
	Relation	relation = table_open(plan.relid, NoLock);	/* the executor holds the lock */
	TupleDesc	attributes = RelationGetDescr(relation);
	RelationInputs *inputs = relation_inputs(plan.relid);
	ListCell   *attno;
	ListCell   *match;

	scan->plan = plan;
	scan->table = inputs->table;
	scan->statement = statement_number(estate);
	scan->outputs = palloc0(sizeof(OutputColumn) * list_length(plan.columns));
	foreach(attno, plan.columns)
		prepare_output(&scan->outputs[scan->noutputs++],
					   TupleDescAttr(attributes, lfirst_int(attno) - 1));
	scan->inputs = palloc0(sizeof(InputColumn) * list_length(plan.inputs));
	forboth(attno, plan.inputs, match, plan.matches)
		prepare_input(&scan->inputs[scan->ninputs++],
					  TupleDescAttr(attributes, lfirst_int(attno) - 1), lfirst_int(match));
	if (inputs->key != 0 && !list_member_int(plan.inputs, inputs->key))
		scan->missing = inputs->columns[inputs->key - 1]->name;
	if (plan.unmet != 0)
		scan->unmet = inputs->columns[plan.unmet - 1]->name;
	if (plan.compared != 0)
		scan->compared = inputs->columns[plan.compared - 1]->name;
	table_close(relation, NoLock);

	initStringInfo(&scan->question);
	prepare_echo(scan);
	scan->cleanup.func = close_scan;
	scan->cleanup.arg = scan;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &scan->cleanup);
	MemoryContextSwitchTo(before);
	return scan;
}

/* ---- asking ---- */

/* Asks the engine; `values` are those of the plan's inputs, in order. False: no row can match. */
bool
scan_start(EngineScan *scan, const Datum *values, const bool *nulls)
{
	scan_stop(scan);
	if (scan->missing != NULL)
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s needs a value for %s", scan->table->name, scan->missing),
				errhint("Say WHERE %s = '...', %s = ANY (...), or join it to a column by =.",
						scan->missing, scan->missing));
	if (scan->unmet != NULL)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("this plan can't hand input %s over to %s", scan->unmet, scan->table->name),
				errhint("Put the foreign table into a LATERAL subquery, after the tables that its inputs come from."));
	if (scan->compared != NULL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s is an input of %s: it has no value to be compared",
					   scan->compared, scan->table->name),
				errhint("Give it one: %s = ... or %s = ANY (...).", scan->compared, scan->compared));
	if (!scan->targeted)
	{
		MemoryContext before = MemoryContextSwitchTo(GetMemoryChunkContext(scan));

		scan->target = engine_target(scan->plan.relid, OidIsValid(scan->plan.userid)
									 ? scan->plan.userid : GetUserId());
		scan->targeted = true;
		MemoryContextSwitchTo(before);
	}
	if (!write_question(scan, values, nulls))
		return false;
	if (scan->echo_input >= 0)
	{
		MemoryContextReset(scan->echo_memory);
		scan->echoes = echoes_of_array(scan->echo_memory,
									   frame_reader((unsigned char *) scan->question.data +
													scan->echo_at,
													(size_t) scan->question.len - scan->echo_at));
	}
	scan->left = 0;
	scan->received = 0;
	scan->total_scans++;
	connection_ask(&scan->connection, &scan->target, &scan->question);
	return true;
}

/* ---- reading ---- */

/* The datum of a cell. The byte after it is lent to a terminator, for input functions want one. */
static Datum
cell_datum(EngineScan *scan, OutputColumn *output, FrameText cell)
{
	char	   *text = (char *) cell.data;
	char	   *converted;
	char		after;
	Datum		value;

	if (!pg_verify_mbstr(PG_UTF8, text, (int) cell.length, true))
		connection_violated(&scan->connection, "a cell is not valid UTF-8");
	if (output->type == TEXTOID && GetDatabaseEncoding() == PG_UTF8)
		return PointerGetDatum(cstring_to_text_with_len(text, (int) cell.length));
	after = text[cell.length];
	text[cell.length] = '\0';
	converted = pg_any_to_server(text, (int) cell.length, PG_UTF8);
	value = InputFunctionCall(&output->input, converted, output->ioparam, output->typmod);
	text[cell.length] = after;
	return value;
}

/* Reads frames until there is a row to read; false at the end of the answer. */
static bool
next_rows(EngineScan *scan)
{
	while (scan->left == 0)
	{
		FrameReader payload;
		uint64		sent;

		if (scan->connection == NULL)
			return false;
		switch (connection_frame(&scan->connection, &payload))
		{
			case FRAME_ROWS:
				scan->rows = payload;
				scan->left = frame_rows(&scan->rows, (uint16) scan->noutputs);
				if (scan->left == 0)
					frame_end(&scan->rows);
				if (scan->rows.fault != NULL)
					connection_violated(&scan->connection, scan->rows.fault);
				break;
			case FRAME_END:
				sent = frame_u64(&payload);
				frame_end(&payload);
				if (payload.fault == NULL && sent != scan->received)
					payload.fault = "it ends an answer of another number of rows";
				if (payload.fault != NULL)
					connection_violated(&scan->connection, payload.fault);
				connection_release(&scan->connection);
				return false;
			case FRAME_ERROR:
				connection_raise(&scan->connection, &payload);
			default:
				connection_violated(&scan->connection, "it is of a kind that answers no scan");
		}
	}
	return true;
}

/*
 * Reads the next row: values and nulls of the plan's columns, in order, in the current memory.
 * Returns false at the end of the answer.
 */
bool
scan_next(EngineScan *scan, Datum *values, bool *nulls)
{
	if (!next_rows(scan))
		return false;
	for (int i = 0; i < scan->noutputs; i++)
	{
		FrameText	cell = frame_cell(&scan->rows);

		if (scan->rows.fault != NULL)
			connection_violated(&scan->connection, scan->rows.fault);
		if (scan->echo_input >= 0 && i == scan->echo_output &&
			(cell.data == NULL || !echo_was_asked(scan->echoes, cell)))
			connection_violated(&scan->connection, "it answers a request that it was not asked");
		nulls[i] = cell.data == NULL;
		values[i] = nulls[i] ? (Datum) 0 : cell_datum(scan, &scan->outputs[i], cell);
	}
	scan->received++;
	scan->total_rows++;
	if (--scan->left == 0)
	{
		frame_end(&scan->rows);
		if (scan->rows.fault != NULL)
			connection_violated(&scan->connection, scan->rows.fault);
	}
	return true;
}

/*
 * Ends a question, maybe in the middle of its answer. What has arrived already is skipped, so that
 * a LIMIT in a nested loop keeps its connection; where more is to come, the connection is closed.
 */
void
scan_stop(EngineScan *scan)
{
	scan->left = 0;
	while (scan->connection != NULL)
	{
		FrameReader payload;
		int			kind;

		if (!connection_frame_buffered(scan->connection))
		{
			close_scan(scan);
			return;
		}
		kind = connection_frame(&scan->connection, &payload);
		if (kind == FRAME_END || kind == FRAME_ERROR)
			connection_release(&scan->connection);
		else if (kind != FRAME_ROWS)
			close_scan(scan);
	}
}

/* ---- explaining ---- */

void
scan_explain(EngineScan *scan, List *values, List *context, ExplainState *es)
{
	bool		prefix = list_length(es->rtable) > 1 || es->verbose;
	double		requests = 1;
	StringInfoData inputs;
	ListCell   *value;
	int			i = 0;

	ExplainPropertyText("Engine Table", scan->table->name, es);
	initStringInfo(&inputs);
	foreach(value, values)
	{
		InputColumn *input = &scan->inputs[i++];
		double		count = requests_of(input->match, lfirst(value));
		const char *form = "%s%s = %s";

		requests = count < 0 || requests < 0 ? -1 : requests * count;
		if (input->match == MATCH_ANY)
			form = OidIsValid(get_element_type(exprType(lfirst(value))))
				? "%s%s = ANY (%s)" : "%s%s = ANY (batch of %s)";
		appendStringInfo(&inputs, form, inputs.len > 0 ? ", " : "", input->name,
						 deparse_expression(lfirst(value), context, prefix, false));
	}
	ExplainPropertyText("Inputs", inputs.len > 0 ? inputs.data : "none", es);
	if (requests >= 0 && scan->missing == NULL)
		ExplainPropertyFloat("Requests", NULL, requests, 0, es);
	if (es->analyze)
	{
		ExplainPropertyUInteger("Scans Sent", NULL, scan->total_scans, es);
		ExplainPropertyUInteger("Rows Received", NULL, scan->total_rows, es);
	}
}
