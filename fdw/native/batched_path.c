/*
 * batched_path.c: plans a join that sends its outer values to the engine in batches.
 *
 * A nested loop asks the engine once for each outer row. Where the inner relation is one of our
 * foreign tables and its required input is compared with a value of the outer side, this offers a
 * custom scan instead, which reads a batch of outer rows, asks for all their values at once and joins
 * the answer to them (batched_join.c). Other inputs may come from the outer side too: then a batch is
 * a question for each combination of theirs.
 *
 * It is offered for inner and left joins without parameters from above; any other join keeps its
 * nested loop.
 */
#include "tinydancer_fdw.h"

#include <math.h>

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "rewrite/rewriteManip.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"

#include "batched_join.h"

int			batched_join_size = 1000;
static bool enable_batched_join = true;
static set_join_pathlist_hook_type next_hook = NULL;

/* The row as a whole, as pull_varattnos counts columns. */
#define WHOLE_ROW (0 - FirstLowInvalidHeapAttributeNumber)

static Plan *plan_join(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
					   List *clauses, List *custom_plans);

static const CustomPathMethods path_methods = {
	.CustomName = BATCHED_JOIN_NAME,
	.PlanCustomPath = plan_join,
};

/* ---- which joins ---- */

/* Whether a list has a clause that is not to be evaluated row by row at this very join. */
static bool
has_odd_clause(List *clauses)
{
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *clause = lfirst_node(RestrictInfo, cell);

		if (clause->pseudoconstant)
			return true;
#if PG_VERSION_NUM >= 160000
		if (clause->has_clone || clause->is_clone)
			return true;
#endif
	}
	return false;
}

/* The clauses that decide which rows join; those of a WHERE above a left join are not among them. */
static List *
join_clauses(RelOptInfo *joinrel, JoinType type, List *clauses)
{
	List	   *joining = NIL;
	ListCell   *cell;

	foreach(cell, clauses)
		if (type == JOIN_INNER ||
			!RINFO_IS_PUSHED_DOWN(lfirst_node(RestrictInfo, cell), joinrel->relids))
			joining = lappend(joining, lfirst(cell));
	return joining;
}

/* Columns of the inner relation that the join uses, with attnos as pull_varattnos sets them. */
static Bitmapset *
inner_columns(RelOptInfo *joinrel, RelOptInfo *inner, List *clauses)
{
	Bitmapset  *needed = NULL;

	pull_varattnos((Node *) joinrel->reltarget->exprs, inner->relid, &needed);
	pull_varattnos((Node *) extract_actual_clauses(clauses, false), inner->relid, &needed);
	pull_varattnos((Node *) extract_actual_clauses(inner->baserestrictinfo, false), inner->relid,
				   &needed);
	return needed;
}

/*
 * The quals to send, where the key's value comes from the outer side, and all others from there or
 * from constants; NIL where this join is not of that kind.
 */
static List *
batched_quals(PlannerInfo *root, RelOptInfo *outer, RelOptInfo *inner, List *joining)
{
	RelationInputs *inputs = inner->fdw_private;
	List	   *quals = pick_input_quals(root, inner, inputs,
										 list_concat_copy(inner->baserestrictinfo, joining), NULL);
	Bitmapset  *supplied = NULL;
	ListCell   *cell;

	foreach(cell, quals)
	{
		InputQual  *qual = lfirst(cell);

		supplied = bms_add_member(supplied, qual->attno);
		if (!bms_is_subset(qual->outer, outer->relids))
			return NIL;
		if (qual->attno == inputs->key &&
			(bms_is_empty(qual->outer) || qual->match != MATCH_EQUALS ||
			 exprType((Node *) qual->value) != TEXTOID))
			return NIL;
	}
	return bms_is_member(inputs->key, supplied) &&
		bms_is_subset(inputs->constrained, supplied) &&
		bms_is_subset(inputs->compared, supplied) ? quals : NIL;
}

static bool
can_batch(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *inner, JoinType type,
		  JoinPathExtraData *extra)
{
	Bitmapset  *needed;

	if (!enable_batched_join || (type != JOIN_INNER && type != JOIN_LEFT) ||
		joinrel->reloptkind != RELOPT_JOINREL || inner->reloptkind != RELOPT_BASEREL ||
		!is_tinydancer_relation(inner) || ((RelationInputs *) inner->fdw_private)->key == 0 ||
		!bms_is_empty(joinrel->lateral_relids) || !bms_is_empty(inner->lateral_relids) ||
		root->placeholder_list != NIL ||
		has_odd_clause(extra->restrictlist) || has_odd_clause(inner->baserestrictinfo))
		return false;
#if PG_VERSION_NUM >= 160000
	/* A left join that may trade places with another has its columns marked in several ways. */
	if (type == JOIN_LEFT &&
		(!bms_is_member((int) extra->sjinfo->ojrelid, joinrel->relids) ||
		 extra->sjinfo->commute_above_l != NULL || extra->sjinfo->commute_above_r != NULL ||
		 extra->sjinfo->commute_below_l != NULL || extra->sjinfo->commute_below_r != NULL))
		return false;
#endif
	/* System columns are left to the executor's own nodes. */
	needed = inner_columns(joinrel, inner, extra->restrictlist);
	return bms_is_empty(needed) || bms_next_member(needed, -1) >= WHOLE_ROW;
}

/* ---- its cost ---- */

/* How many questions `rows` outer rows take: batches grow from one row. */
double
batches_of(double rows)
{
	double		size = 1;
	double		batches = 0;

	for (; rows > 0 && size < batched_join_size; size *= BATCH_GROWTH, batches++)
		rows -= size;
	return batches + (rows > 0 ? ceil(rows / batched_join_size) : 0);
}

static void
add_batched_path(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *inner, Path *outer,
				 JoinType type, JoinPathExtraData *extra, List *quals)
{
	RelationInputs *inputs = inner->fdw_private;
	CustomPath *path = makeNode(CustomPath);
	double		rows = clamp_row_est(outer->rows);
	double		batches = batches_of(rows);
	double		scans = batches;
	double		requests = 1;
	double		values;
	bool		apart = asks_identity(inputs, columns_needed(inputs, inner_columns(joinrel, inner,
																				   extra->restrictlist)));
	List	   *varying = NIL;
	List	   *from_outer = NIL;
	int			left_join = 0;
	ListCell   *cell;

	foreach(cell, quals)
	{
		InputQual  *qual = lfirst(cell);
		double		count = requests_of(qual->match, qual->value);

		if (!bms_is_empty(qual->outer))
			from_outer = lappend(from_outer, qual->value);
		if (!bms_is_empty(qual->outer) && qual->attno != inputs->key)
			varying = lappend(varying, qual->value);
		if (count > 0)
			requests *= count;
	}
	/* What repeats within a batch is asked for once, or in a question of its own. */
	values = Min(rows, batches * estimate_num_groups(root, from_outer, rows, NULL, NULL));
	if (varying != NIL)
		scans = Min(values, batches * estimate_num_groups(root, varying, rows, NULL, NULL));
	if (apart)
	{
		scans = Min(rows, scans * rows / values);
		values = rows;
	}
	path->path.pathtype = T_CustomScan;
	path->path.parent = joinrel;
	path->path.pathtarget = joinrel->reltarget;
	path->path.rows = joinrel->rows;
#if PG_VERSION_NUM >= 180000
	path->path.disabled_nodes = outer->disabled_nodes;
#endif
	path->path.startup_cost = outer->startup_cost + ROUND_TRIP_COST +
		requests * REQUEST_COST(inputs->table);
	path->path.total_cost = outer->total_cost + scans * ROUND_TRIP_COST +
		values * requests * REQUEST_COST(inputs->table) +
		(rows + joinrel->rows) * cpu_tuple_cost;
	/* Rows come in the order of the outer side. */
	path->path.pathkeys = build_join_pathkeys(root, joinrel, type, outer->pathkeys);
#if PG_VERSION_NUM >= 150000
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
#endif
	path->custom_paths = list_make1(outer);
#if PG_VERSION_NUM >= 160000
	left_join = type == JOIN_LEFT ? (int) extra->sjinfo->ojrelid : 0;
#endif
	path->custom_private = list_make3(extra->restrictlist,
									  list_make3_int((int) type, (int) inner->relid, left_join),
									  quals);
	path->methods = &path_methods;
	add_path(joinrel, &path->path);
}

static void
offer_batched_join(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner,
				   JoinType type, JoinPathExtraData *extra)
{
	List	   *quals;
	ListCell   *cell;

	if (next_hook != NULL)
		next_hook(root, joinrel, outer, inner, type, extra);
	if (!can_batch(root, joinrel, inner, type, extra))
		return;
	quals = batched_quals(root, outer, inner, join_clauses(joinrel, type, extra->restrictlist));
	if (quals == NIL)
		return;
	foreach(cell, outer->pathlist)
	{
		Path	   *path = lfirst(cell);

		if (path->param_info == NULL &&
			(path == outer->cheapest_total_path || path == outer->cheapest_startup_path ||
			 path->pathkeys != NIL))
			add_batched_path(root, joinrel, inner, path, type, extra, quals);
	}
}

/* ---- its plan ---- */

/* A scan tuple holds the outer plan's columns ... */
List *
outer_tlist(Plan *outer)
{
	List	   *tlist = NIL;
	ListCell   *cell;

	foreach(cell, outer->targetlist)
		tlist = lappend(tlist, makeTargetEntry(copyObject(lfirst_node(TargetEntry, cell)->expr),
											   (AttrNumber) (list_length(tlist) + 1), NULL, false));
	return tlist;
}

/* ... then those that the engine sends, and the row of them, where the query has a use for it. */
static List *
inner_tlist(RangeTblEntry *table, Index relid, List *columns, bool whole, int before)
{
	List	   *tlist = NIL;
	ListCell   *cell;

	foreach(cell, columns)
	{
		AttrNumber	attno = (AttrNumber) lfirst_int(cell);
		Oid			type;
		int32		typmod;
		Oid			collation;
		Var		   *column;

		get_atttypetypmodcoll(table->relid, attno, &type, &typmod, &collation);
		column = makeVar((int) relid, attno, type, typmod, collation, 0);
		tlist = lappend(tlist, makeTargetEntry((Expr *) column,
											   (AttrNumber) (before + list_length(tlist) + 1),
											   NULL, false));
	}
	if (whole)
		tlist = lappend(tlist,
						makeTargetEntry((Expr *) makeWholeRowVar(table, (int) relid, 0, false),
										(AttrNumber) (before + list_length(tlist) + 1),
										NULL, false));
	return tlist;
}

/*
 * Since PostgreSQL 16 a column is marked above the left join that may null it. The columns of a scan
 * tuple are marked so, for the planner may give this node another target list later; the join's own
 * clauses, which are not, get the marks here.
 */
static List *
marked(List *expressions, Index relid, int left_join)
{
#if PG_VERSION_NUM >= 160000
	if (left_join != 0)
		return (List *) add_nulling_relids((Node *) expressions,
										   bms_make_singleton((int) relid),
										   bms_make_singleton(left_join));
#endif
	return expressions;
}

static Plan *
plan_join(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
		  List *custom_plans)
{
	List	   *restrictlist = linitial(path->custom_private);
	JoinType	type = (JoinType) linitial_int(lsecond(path->custom_private));
	Index		relid = (Index) lsecond_int(lsecond(path->custom_private));
	int			left_join = lthird_int(lsecond(path->custom_private));
	List	   *quals = lthird(path->custom_private);
	RelOptInfo *inner = root->simple_rel_array[relid];
	RelationInputs *inputs = inner->fdw_private;
	Plan	   *outer = linitial(custom_plans);
	CustomScan *scan = makeNode(CustomScan);
	List	   *joining = join_clauses(rel, type, restrictlist);
	List	   *filtering = list_difference_ptr(restrictlist, joining);
	Bitmapset  *needed;
	bool		whole;
	List	   *checked;
	List	   *values = NIL;
	List	   *varying = NIL;
	ScanPlan	plan = {0};
	int			key = 0;
	ListCell   *cell;

	foreach(cell, quals)
	{
		InputQual  *qual = lfirst(cell);

		if (qual->attno == inputs->key)
			key = foreach_current_index(cell);
		else if (!bms_is_empty(qual->outer))
			varying = lappend_int(varying, foreach_current_index(cell));
		plan.inputs = lappend_int(plan.inputs, qual->attno);
		plan.matches = lappend_int(plan.matches,
								   qual->attno == inputs->key ? MATCH_ANY : (int) qual->match);
		values = lappend(values, qual->value);
	}
	needed = inner_columns(rel, inner, restrictlist);
	whole = bms_is_member(WHOLE_ROW, needed);
	plan.relid = root->simple_rte_array[relid]->relid;
	plan.userid = inner->userid;
	plan.limit = -1;
	plan.columns = columns_needed(inputs, bms_add_member(needed, WHOLE_ROW + inputs->key));

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(filtering, false);
	scan->flags = path->flags;
	scan->custom_plans = custom_plans;
	scan->custom_scan_tlist = list_concat(outer_tlist(outer),
										  marked(inner_tlist(root->simple_rte_array[relid], relid,
															 plan.columns, whole,
															 list_length(outer->targetlist)),
												 relid, left_join));
	checked = list_concat(extract_actual_clauses(joining, false),
						  extract_actual_clauses(inner->baserestrictinfo, false));
	scan->custom_exprs = list_make2(values, marked(checked, relid, left_join));
	scan->custom_private = list_make3(scan_plan_to_list(&plan),
									  list_make5_int((int) type, key, inputs->key, whole,
													 asks_identity(inputs, plan.columns)),
									  varying);
	scan->methods = &batched_join_methods;
	return &scan->scan.plan;
}

void
batched_join_init(void)
{
	DefineCustomBoolVariable("tinydancer.enable_batched_join",
							 "Lets the planner send the outer values of a join to the engine in batches.",
							 NULL, &enable_batched_join, true, PGC_USERSET, GUC_EXPLAIN,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("tinydancer.join_batch",
							"Most outer rows that a batched join reads before it asks the engine.",
							"The first batch is one row, and each is four times as large as the last, up to this.",
							&batched_join_size, 1000, 1, 10000, PGC_USERSET, GUC_EXPLAIN,
							NULL, NULL, NULL);
	RegisterCustomScanMethods(&batched_join_methods);
	next_hook = set_join_pathlist_hook;
	set_join_pathlist_hook = offer_batched_join;
}
