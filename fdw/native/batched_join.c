/*
 * batched_join.c: runs a join that sends its outer values to the engine in batches. Calls in a select
 * list run as a left join with the table that answers them.
 *
 * A batch: read some outer rows, collect their distinct values, ask for all of them at once, file
 * the answer's rows under the value that each echoes (batch.c); then go through the outer rows in
 * their order and emit each with its rows. Rows of the same value share its answer, unless the query
 * asks for what identifies an answer, such as the id of a decision: then each has its own. All clauses of the join are checked, on rows of both
 * sides put side by side.
 */
#include "batched_join.h"

#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

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
			join->next = answers_to(row);
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
	join->apart = list_nth_int(numbers, 4) != 0;
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

/* Whether this user may read some columns of a table, by a grant on the table or on each of them. */
static bool
may_read(Oid relid, List *columns)
{
	ListCell   *cell;

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
		return true;
	foreach(cell, columns)
		if (pg_attribute_aclcheck(relid, (AttrNumber) lfirst_int(cell), GetUserId(),
								  ACL_SELECT) != ACLCHECK_OK)
			return false;
	return true;
}

/* A call in a select list needs the privileges that the function, run by this user, would need. */
static void
begin_calls(CustomScanState *node, EState *estate, int eflags)
{
	List	   *private = ((CustomScan *) node->ss.ps.plan)->custom_private;
	ScanPlan	plan = scan_plan_from_list(linitial(private));
	Oid			function = linitial_oid(lfourth(private));
	AclResult	allowed;

	LockRelationOid(plan.relid, AccessShareLock);
#if PG_VERSION_NUM >= 160000
	allowed = object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE);
#else
	allowed = pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);
#endif
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_FUNCTION, get_func_name(function));
	if (!may_read(plan.relid, plan.columns))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(plan.relid));
	begin_join(node, estate, eflags);
}

static void
explain_calls(CustomScanState *node, List *ancestors, ExplainState *es)
{
	CustomScan *custom = (CustomScan *) node->ss.ps.plan;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, (Plan *) custom, ancestors);
	ScanPlan	plan = scan_plan_from_list(linitial(custom->custom_private));
	int			key = lthird_int(lsecond(custom->custom_private));
	TargetEntry *answer = llast(custom->custom_scan_tlist);

	if (llast_int(plan.columns) == key)
		answer = list_nth(custom->custom_scan_tlist, list_length(custom->custom_scan_tlist) - 2);
	ExplainPropertyText("Call", deparse_expression((Node *) makeVarFromTargetEntry(INDEX_VAR, answer),
												   context, true, false), es);
	scan_explain(((BatchedJoin *) node)->scan, linitial(custom->custom_exprs), context, es);
}

static const CustomExecMethods calls_exec_methods = {
	.CustomName = BATCHED_CALLS_NAME,
	.BeginCustomScan = begin_calls,
	.ExecCustomScan = exec_join,
	.EndCustomScan = end_join,
	.ReScanCustomScan = rescan_join,
	.ExplainCustomScan = explain_calls,
};

static Node *
create_calls_state(CustomScan *plan)
{
	BatchedJoin *join = (BatchedJoin *) newNode(sizeof(BatchedJoin), T_CustomScanState);

	join->css.methods = &calls_exec_methods;
	return (Node *) join;
}

const CustomScanMethods batched_calls_methods = {
	.CustomName = BATCHED_CALLS_NAME,
	.CreateCustomScanState = create_calls_state,
};

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
