/*
 * fdw.c: the handler, and the running of a foreign scan: one question to the engine a (re)scan.
 */
#include "tinydancer_fdw.h"

#include "catalog/pg_class.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/pathnodes.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 140000
#error "Tiny Dancer needs PostgreSQL 14 or later"
#endif

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(tinydancer_native_handler);

extern void _PG_init(void);

typedef struct RunningScan
{
	EngineScan *scan;
	bool		started;
	int			ninputs;
	ExprState **inputs;			/* the values to send */
	Datum	   *input_values;
	bool	   *input_nulls;
	int			ncolumns;
	AttrNumber *columns;		/* where each column received goes */
	Datum	   *values;
	bool	   *nulls;
} RunningScan;

static void
begin_scan(ForeignScanState *node, int eflags)
{
	ForeignScan *foreign = (ForeignScan *) node->ss.ps.plan;
	RunningScan *running = palloc0(sizeof(RunningScan));
	ScanPlan	plan = scan_plan_from_list(foreign->fdw_private);
	ListCell   *cell;

#if PG_VERSION_NUM >= 160000
	plan.userid = foreign->checkAsUser;
#else
	plan.userid = exec_rt_fetch(foreign->scan.scanrelid, node->ss.ps.state)->checkAsUser;
#endif
	running->scan = scan_create(plan, node->ss.ps.state);
	running->inputs = palloc(sizeof(ExprState *) * list_length(foreign->fdw_exprs));
	foreach(cell, foreign->fdw_exprs)
		running->inputs[running->ninputs++] = ExecInitExpr(lfirst(cell), &node->ss.ps);
	running->input_values = palloc0(sizeof(Datum) * running->ninputs);
	running->input_nulls = palloc0(sizeof(bool) * running->ninputs);
	running->columns = palloc(sizeof(AttrNumber) * list_length(plan.columns));
	foreach(cell, plan.columns)
		running->columns[running->ncolumns++] = (AttrNumber) lfirst_int(cell);
	running->values = palloc0(sizeof(Datum) * running->ncolumns);
	running->nulls = palloc0(sizeof(bool) * running->ncolumns);
	node->fdw_state = running;
}

/* The next row, in the memory of one tuple, which the executor resets before each call. */
static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	RunningScan *running = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	ExecClearTuple(slot);
	if (!running->started)
	{
		for (int i = 0; i < running->ninputs; i++)
			running->input_values[i] = ExecEvalExpr(running->inputs[i],
													node->ss.ps.ps_ExprContext,
													&running->input_nulls[i]);
		running->started = true;
		if (!scan_start(running->scan, running->input_values, running->input_nulls))
			return slot;
	}
	if (!scan_next(running->scan, running->values, running->nulls))
		return slot;
	memset(slot->tts_isnull, true, sizeof(bool) * (size_t) slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < running->ncolumns; i++)
	{
		slot->tts_values[running->columns[i] - 1] = running->values[i];
		slot->tts_isnull[running->columns[i] - 1] = running->nulls[i];
	}
	return ExecStoreVirtualTuple(slot);
}

static void
rescan(ForeignScanState *node)
{
	RunningScan *running = node->fdw_state;

	scan_stop(running->scan);
	running->started = false;
}

static void
end_scan(ForeignScanState *node)
{
	RunningScan *running = node->fdw_state;

	if (running != NULL)
		scan_stop(running->scan);
}

static void
explain_scan(ForeignScanState *node, ExplainState *es)
{
	RunningScan *running = node->fdw_state;
	ForeignScan *foreign = (ForeignScan *) node->ss.ps.plan;

	List	   *context = es->deparse_cxt;

	/* Where EXPLAIN has shown quals, its context is set to this node and its ancestors already. */
	if (foreign->scan.plan.qual == NIL)
		context = set_deparse_context_plan(context, (Plan *) foreign, NIL);
	scan_explain(running->scan, foreign->fdw_exprs, context, es);
}

bool
is_tinydancer_relation(RelOptInfo *rel)
{
	return rel->fdwroutine != NULL && rel->fdwroutine->IterateForeignScan == iterate_scan;
}

bool
is_tinydancer_table(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE &&
		GetFdwRoutineByRelId(relid)->IterateForeignScan == iterate_scan;
}

Datum
tinydancer_native_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	routine->ExplainForeignScan = explain_scan;
	routine->ImportForeignSchema = import_foreign_schema;
	PG_RETURN_POINTER(routine);
}

void
_PG_init(void)
{
	batched_join_init();
	batched_calls_init();
}
