/*
 * batched_calls.c: plans a select list whose function asks the engine, so that it asks in batches.
 *
 * A function such as ruvector_classify_request(text) asks the engine once a row. Where it stands in a
 * select list, this offers the node of a batched join in its place (batched_join.c): it reads a batch
 * of rows, asks for the arguments of all of them at once, and puts the answers where the calls stood.
 *
 * The function must be strict, take one text, and return a column of one of our foreign tables for
 * it, one row a text. Its support function is ours: that is how it is known, and it also has this
 * library loaded before paths are made. A call that might not be made for some row, as inside a CASE,
 * is left as it is, and so is one in a query that groups or has window functions.
 */
#include "tinydancer_fdw.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planner.h"
#include "optimizer/tlist.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "batched_join.h"

PG_FUNCTION_INFO_V1(tinydancer_native_support);

/* Which table answers a function, and in which column; both are in the function's schema. */
typedef struct AnsweredFunction
{
	const char *function;
	const char *table;
	const char *output;
} AnsweredFunction;

static const AnsweredFunction answered[] = {
	{"ruvector_classify_request", "request_classifications", "classification"},
};

/* A call that can be batched. */
typedef struct Call
{
	FuncExpr   *expression;
	Oid			relid;
	AttrNumber	output;
} Call;

static bool enable_batched_calls = true;
static Oid	support = InvalidOid;
static create_upper_paths_hook_type next_hook = NULL;

static Plan *plan_calls(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
						List *clauses, List *custom_plans);

static const CustomPathMethods path_methods = {
	.CustomName = BATCHED_CALLS_NAME,
	.PlanCustomPath = plan_calls,
};

/* Simplifies nothing: it is asked while a query is planned, and says who it is. */
Datum
tinydancer_native_support(PG_FUNCTION_ARGS)
{
	support = fcinfo->flinfo->fn_oid;
	PG_RETURN_POINTER(NULL);
}

/* ---- which calls ---- */

/* The foreign table that answers a call, or NULL. */
static Call *
answered_call(FuncExpr *expression)
{
	char	   *name;
	Call	   *call;
	AttrNumber	key;

	if (get_func_support(expression->funcid) != support || list_length(expression->args) != 1 ||
		exprType(linitial(expression->args)) != TEXTOID || !func_strict(expression->funcid))
		return NULL;
	name = get_func_name(expression->funcid);
	for (size_t i = 0; i < lengthof(answered); i++)
	{
		if (strcmp(name, answered[i].function) != 0)
			continue;
		call = palloc(sizeof(Call));
		call->expression = expression;
		call->relid = get_relname_relid(answered[i].table,
										get_func_namespace(expression->funcid));
		if (!OidIsValid(call->relid) || !is_tinydancer_table(call->relid))
			return NULL;
		LockRelationOid(call->relid, AccessShareLock);
		call->output = get_attnum(call->relid, answered[i].output);
		key = relation_inputs(call->relid)->key;
		return key != InvalidAttrNumber && get_atttype(call->relid, key) == TEXTOID &&
			call->output != InvalidAttrNumber &&
			get_atttype(call->relid, call->output) == expression->funcresulttype ? call : NULL;
	}
	return NULL;
}

static bool
add_calls(Node *node, void *found)
{
	List	  **calls = found;
	ListCell   *cell;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		/* What these contain may not be evaluated for each row. */
		case T_BoolExpr:
		case T_CaseExpr:
		case T_CoalesceExpr:
		case T_SubPlan:
		case T_AlternativeSubPlan:
			return false;
		case T_FuncExpr:
			{
				Call	   *call = answered_call((FuncExpr *) node);

				if (call == NULL || !contain_var_clause(node) || contain_subplans(node) ||
					contain_volatile_functions(linitial(((FuncExpr *) node)->args)))
					break;
				foreach(cell, *calls)
					if (equal(((Call *) lfirst(cell))->expression, node))
						return false;
				*calls = lappend(*calls, call);
				return false;
			}
		default:
			break;
	}
	return expression_tree_walker(node, add_calls, found);
}

/* ---- paths ---- */

static Path *
batched_path(PlannerInfo *root, RelOptInfo *rel, Path *rows, Call *call, PathTarget *target,
			 List *pathkeys)
{
	CustomPath *path = makeNode(CustomPath);
	RelationInputs *inputs = relation_inputs(call->relid);
	double		batches = batches_of(rows->rows);

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = target;
	path->path.rows = rows->rows;
#if PG_VERSION_NUM >= 180000
	path->path.disabled_nodes = rows->disabled_nodes;
#endif
	path->path.startup_cost = rows->startup_cost + ROUND_TRIP_COST + REQUEST_COST(inputs->table);
	path->path.total_cost = rows->total_cost + batches * ROUND_TRIP_COST +
		rows->rows * (REQUEST_COST(inputs->table) + cpu_tuple_cost);
	path->path.pathkeys = pathkeys;
#if PG_VERSION_NUM >= 150000
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
#endif
	path->custom_paths = list_make1(rows);
	path->custom_private = list_make3(call->expression, list_make1_oid(call->relid),
									  list_make1_int(call->output));
	path->methods = &path_methods;
	return &path->path;
}

/* A path with the calls of its projection batched, one node a call; NULL where it has none. */
static Path *
with_batches(PlannerInfo *root, RelOptInfo *rel, Path *path)
{
	List	   *calls = NIL;
	Path	   *rows;
	ListCell   *cell;

	if (IsA(path, SortPath))
	{
		rows = with_batches(root, rel, ((SortPath *) path)->subpath);
		return rows == NULL ? NULL
			: (Path *) create_sort_path(root, rel, rows, path->pathkeys, -1);
	}
	if (!IsA(path, ProjectionPath))
		return NULL;
	add_calls((Node *) path->pathtarget->exprs, &calls);
	rows = ((ProjectionPath *) path)->subpath;
	foreach(cell, calls)
	{
		Call	   *call = lfirst(cell);
		PathTarget *target = path->pathtarget;

		if (lnext(calls, cell) != NULL)
		{
			target = copy_pathtarget(rows->pathtarget);
			add_column_to_pathtarget(target, (Expr *) call->expression, 0);
		}
		rows = batched_path(root, rel, rows, call, target, path->pathkeys);
	}
	return calls == NIL ? NULL : rows;
}

/* An INSERT or UPDATE of a path's rows with the calls of their projection batched, or NULL. */
static Path *
modified_with_batches(PlannerInfo *root, RelOptInfo *rel, ModifyTablePath *path)
{
	ModifyTablePath *modify = makeNode(ModifyTablePath);
	Path	   *rows = with_batches(root, rel, path->subpath);

	if (rows == NULL)
		return NULL;
	*modify = *path;
	modify->subpath = rows;
	modify->path.startup_cost += rows->startup_cost - path->subpath->startup_cost;
	modify->path.total_cost += rows->total_cost - path->subpath->total_cost;
	return &modify->path;
}

static Path *
final_path(PlannerInfo *root, RelOptInfo *rel, Path *path, FinalPathExtraData *final)
{
	Query	   *query = root->parse;

	if (query->commandType != CMD_SELECT)
		return IsA(path, ModifyTablePath)
			? modified_with_batches(root, rel, (ModifyTablePath *) path) : NULL;
	path = with_batches(root, rel, path);
	if (path == NULL || !final->limit_needed)
		return path;
	return (Path *) create_limit_path(root, rel, path, query->limitOffset, query->limitCount,
									  query->limitOption, final->offset_est, final->count_est);
}

static bool
can_batch(PlannerInfo *root)
{
	Query	   *query = root->parse;

	return enable_batched_calls && OidIsValid(support) &&
		(query->commandType == CMD_SELECT || query->commandType == CMD_INSERT ||
		 query->commandType == CMD_UPDATE) &&
		query->rowMarks == NIL && root->rowMarks == NIL && root->placeholder_list == NIL &&
		!query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL &&
		!query->hasWindowFuncs && query->distinctClause == NIL &&
		query->setOperations == NULL && !query->hasTargetSRFs;
}

static void
offer_batched_calls(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input,
					RelOptInfo *output, void *extra)
{
	List	   *found = NIL;
	ListCell   *cell;

	if (next_hook != NULL)
		next_hook(root, stage, input, output, extra);
	if (stage != UPPERREL_FINAL || !can_batch(root))
		return;
	foreach(cell, root->parse->commandType == CMD_SELECT ? input->pathlist : output->pathlist)
	{
		Path	   *path = final_path(root, output, lfirst(cell), extra);

		if (path != NULL)
			found = lappend(found, path);
	}
	foreach(cell, found)
		add_path(output, lfirst(cell));
}

/* ---- the plan ---- */

/* A scan tuple holds the columns of a row, then those that the engine sends: an echo, the answer. */
static Plan *
plan_calls(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
		   List *custom_plans)
{
	FuncExpr   *call = linitial(path->custom_private);
	Oid			relid = linitial_oid(lsecond(path->custom_private));
	AttrNumber	output = (AttrNumber) linitial_int(lthird(path->custom_private));
	RelationInputs *inputs = relation_inputs(relid);
	Plan	   *rows = linitial(custom_plans);
	CustomScan *scan = makeNode(CustomScan);
	List	   *columns = outer_tlist(rows);
	ScanPlan	plan = {0};
	ListCell   *cell;

	plan.relid = relid;
	plan.limit = -1;
	plan.inputs = list_make1_int(inputs->key);
	plan.matches = list_make1_int(MATCH_ANY);
	plan.columns = output < inputs->key ? list_make2_int(output, inputs->key)
		: list_make2_int(inputs->key, output);
	foreach(cell, plan.columns)
	{
		Expr	   *column = lfirst_int(cell) == output ? copyObject((Expr *) call)
			: (Expr *) makeNullConst(TEXTOID, -1, DEFAULT_COLLATION_OID);

		columns = lappend(columns, makeTargetEntry(column, (AttrNumber) (list_length(columns) + 1),
												   NULL, false));
	}
	/* The table is in no FROM, and yet a change of it is a reason to plan anew. */
	root->glob->relationOids = lappend_oid(root->glob->relationOids, relid);
	scan->scan.plan.targetlist = tlist;
	scan->flags = path->flags;
	scan->custom_plans = custom_plans;
	scan->custom_scan_tlist = columns;
	scan->custom_exprs = list_make2(list_make1(linitial(call->args)), NIL);
	scan->custom_private = list_make4(scan_plan_to_list(&plan),
									  list_make5_int((int) JOIN_LEFT, 0, inputs->key, false, false),
									  NIL, list_make1_oid(call->funcid));
	scan->methods = &batched_calls_methods;
	return &scan->scan.plan;
}

void
batched_calls_init(void)
{
	DefineCustomBoolVariable("tinydancer.enable_batched_calls",
							 "Lets the planner send the arguments of a function in a select list to the engine in batches.",
							 NULL, &enable_batched_calls, true, PGC_USERSET, GUC_EXPLAIN,
							 NULL, NULL, NULL);
	RegisterCustomScanMethods(&batched_calls_methods);
	next_hook = create_upper_paths_hook;
	create_upper_paths_hook = offer_batched_calls;
}
