/*
 * planning.c: sizes, paths and plans of a foreign scan.
 *
 * A foreign table here stands for a table without end: a row for every request there could be. It
 * can be read only where its inputs have values. So a path is cheap where all inputs that the query
 * constrains are supplied to it, by constants, parameters or the outer side of a nested loop, and
 * any other path costs so much that it is taken only where nothing else is possible; such a plan
 * ends in an error when it runs, never in rows that are silently missing.
 */
#include "tinydancer_fdw.h"

#include <math.h>

#include "access/sysattr.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/lsyscache.h"

/* Dearer than a path that the user has disabled (1e10), so that a plan that can run wins. */
#define IMPOSSIBLE_COST 1e12
#define IMPOSSIBLE_NODES 1000
/* Values that an array of unknown length is taken to have, as PostgreSQL does. */
#define UNKNOWN_VALUES 10
/* Requests that a table is taken to hold where the query names none. */
#define UNKNOWN_REQUESTS 1000
/* Paths for one relation: a query that joins inputs to more tables than that keeps the first. */
#define MOST_PATHS 64

/* How many requests a scan with these quals makes. */
static double
requests_made(List *quals)
{
	double		requests = 1;
	ListCell   *cell;

	foreach(cell, quals)
	{
		InputQual  *qual = lfirst(cell);
		double		values = requests_of(qual->match, qual->value);

		requests *= values < 0 ? UNKNOWN_VALUES : values;
	}
	return requests;
}

/* The attnos that quals supply. */
static Bitmapset *
supplied(List *quals)
{
	Bitmapset  *attnos = NULL;
	ListCell   *cell;

	foreach(cell, quals)
		attnos = bms_add_member(attnos, ((InputQual *) lfirst(cell))->attno);
	return attnos;
}

/* Whether expressions have the row of a relation as a whole. */
static bool
has_row(Node *expressions, Index relid)
{
	Bitmapset  *columns = NULL;

	pull_varattnos(expressions, relid, &columns);
	return bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns);
}

/*
 * Whether nothing has a use for the row as a whole but PostgreSQL itself: an UPDATE or a DELETE that
 * reads the relation, or a query that locks others, keeps each row of it, to check the clauses again
 * where somebody has changed what is joined to it. Clauses see the columns they name: no others are
 * to be asked for, least of all the id of a decision, which would be kept and reserve its cost.
 */
static bool
row_is_mark(PlannerInfo *root, RelOptInfo *rel)
{
	Relids		users = rel->attr_needed[0 - rel->min_attr];
	char	   *name = NULL;
	ListCell   *cell;

	foreach(cell, root->rowMarks)
	{
		PlanRowMark *mark = lfirst_node(PlanRowMark, cell);

		if (mark->rti == rel->relid && mark->markType == ROW_MARK_COPY)
			name = psprintf("wholerow%u", mark->rowmarkId);
	}
	/* The target list, which is relation 0, has the mark; what else it has is looked at. */
	if (name == NULL || !bms_is_subset(users, bms_make_singleton(0)) ||
		has_row((Node *) extract_actual_clauses(rel->baserestrictinfo, false), rel->relid) ||
		has_row((Node *) root->parse->returningList, rel->relid) ||
		has_row(root->parse->havingQual, rel->relid))
		return false;
	foreach(cell, root->processed_tlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		bool		mark = entry->resjunk && entry->resname != NULL &&
			strcmp(entry->resname, name) == 0;

		if (!mark && has_row((Node *) entry->expr, rel->relid))
			return false;
	}
	return true;
}

void
get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	RelationInputs *inputs = relation_inputs(relid);
	List	   *others = NIL;
	List	   *quals;
	double		requests;

	rel->fdw_private = inputs;
	inputs->marked = row_is_mark(root, rel);
	quals = pick_input_quals(root, rel, inputs, rel->baserestrictinfo, &others);
	inputs->constrained = supplied(quals);
	inputs->compared = compared_inputs(root, rel, inputs, others);
	requests = requests_made(quals);
	if (inputs->key != 0 && !bms_is_member(inputs->key, inputs->constrained))
		requests *= UNKNOWN_REQUESTS;
	rel->tuples = Max(1, requests * inputs->table->rows);
	rel->rows = clamp_row_est(rel->tuples *
							  clauselist_selectivity(root, others, (int) rel->relid, JOIN_INNER,
													 NULL));
}

/* Whether any of some columns is another with each answer. */
bool
asks_identity(const RelationInputs *inputs, List *columns)
{
	ListCell   *cell;

	foreach(cell, columns)
		if (inputs->columns[lfirst_int(cell) - 1]->identity)
			return true;
	return false;
}

/*
 * A nested loop must ask for each of its outer rows, where each is to have an answer of its own: the
 * planner puts no Memoize above a path whose clauses it takes to be volatile.
 */
static void
forbid_memoize(RelOptInfo *rel, ParamPathInfo *parameters)
{
	Bitmapset  *needed = NULL;
	ListCell   *cell;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &needed);
	if (!asks_identity(rel->fdw_private, columns_needed(rel->fdw_private, needed)))
		return;
	foreach(cell, parameters->ppi_clauses)
		lfirst_node(RestrictInfo, cell)->has_volatile = VOLATILITY_VOLATILE;
}

/* A path whose values come from the relations of `outer`. */
static void
add_scan_path(PlannerInfo *root, RelOptInfo *rel, Relids outer)
{
	RelationInputs *inputs = rel->fdw_private;
	ParamPathInfo *parameters = get_baserel_parampathinfo(root, rel, outer);
	List	   *clauses = rel->baserestrictinfo;
	List	   *others = NIL;
	List	   *quals;
	Bitmapset  *known;
	double		rows = rel->rows;
	double		cost;
	bool		possible;

	if (parameters != NULL)
	{
		forbid_memoize(rel, parameters);
		clauses = list_concat_copy(clauses, parameters->ppi_clauses);
	}
	quals = pick_input_quals(root, rel, inputs, clauses, &others);
	known = supplied(quals);
	possible = bms_is_subset(inputs->constrained, known) &&
		(inputs->key == 0 || bms_is_member(inputs->key, known));
	if (parameters != NULL && possible)
	{
		rows = clamp_row_est(requests_made(quals) * inputs->table->rows *
							 clauselist_selectivity(root, others, (int) rel->relid, JOIN_INNER,
													NULL));
		parameters->ppi_rows = rows;
	}
	cost = ROUND_TRIP_COST + requests_made(quals) * REQUEST_COST(inputs->table) +
		(possible ? 0 : IMPOSSIBLE_COST);
	add_path(rel, (Path *)
			 create_foreignscan_path(root, rel, NULL, rows,
#if PG_VERSION_NUM >= 180000
									 possible ? 0 : IMPOSSIBLE_NODES,
#endif
									 cost, cost + rows * cpu_tuple_cost, NIL, outer, NULL,
#if PG_VERSION_NUM >= 170000
									 NIL,
#endif
									 NIL));
}

typedef struct ColumnOf
{
	RelationInputs *inputs;
	AttrNumber	attno;
} ColumnOf;

static bool
is_column(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec, EquivalenceMember *em,
		  void *arg)
{
	ColumnOf   *column = arg;

	return input_column(rel, column->inputs, (Node *) em->em_expr) == column->attno;
}

/* The sets of relations from which a join clause could supply an input column. */
static List *
outer_sources(PlannerInfo *root, RelOptInfo *rel, AttrNumber attno)
{
	RelationInputs *inputs = rel->fdw_private;
	ColumnOf	column = {inputs, attno};
	List	   *clauses = list_copy(rel->joininfo);
	List	   *sources = NIL;
	ListCell   *cell;

	if (rel->has_eclass_joins)
		clauses = list_concat(clauses,
							  generate_implied_equalities_for_column(root, rel, is_column, &column,
																	 rel->lateral_referencers));
	foreach(cell, clauses)
	{
		RestrictInfo *clause = lfirst_node(RestrictInfo, cell);
		InputQual	qual;

		if (!join_clause_is_movable_to(clause, rel) ||
			!match_input_qual(root, rel, inputs, clause->clause, &qual) || qual.attno != attno)
			continue;
		sources = lappend(sources, bms_del_member(bms_copy(clause->clause_relids),
												  (int) rel->relid));
	}
	return sources;
}

/* Adds a set to a list of sets, unless it is there or the list is long. */
static List *
add_set(List *sets, Relids set)
{
	ListCell   *cell;

	foreach(cell, sets)
		if (bms_equal(lfirst(cell), set))
			return sets;
	return list_length(sets) < MOST_PATHS ? lappend(sets, set) : sets;
}

void
get_paths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	RelationInputs *inputs = rel->fdw_private;
	List	   *outers = list_make1(rel->lateral_relids);
	Bitmapset  *constant = bms_copy(inputs->constrained);
	ListCell   *cell;

	/* Every choice of a source for every input that is joined to something. */
	for (AttrNumber attno = 1; attno <= inputs->natts; attno++)
	{
		List	   *sources;
		List	   *before = list_copy(outers);
		ListCell   *source;

		if (inputs->columns[attno - 1] == NULL || !inputs->columns[attno - 1]->input ||
			bms_is_member(attno, constant))
			continue;
		sources = outer_sources(root, rel, attno);
		if (sources != NIL)
			inputs->constrained = bms_add_member(inputs->constrained, attno);
		foreach(source, sources)
			foreach(cell, before)
				outers = add_set(outers, bms_union(lfirst(cell), lfirst(source)));
	}
	foreach(cell, outers)
		add_scan_path(root, rel, lfirst(cell));
}

/*
 * How many rows are wanted at most: of a query of this table alone, whose LIMIT is a constant and
 * whose clauses are all inputs, true of every row of the answer. -1 where there is no such bound.
 */
static int64
row_limit(PlannerInfo *root, RelOptInfo *rel, int nclauses, List *quals)
{
	Query	   *query = root->parse;
	ListCell   *cell;

	foreach(cell, quals)
		if (!((InputQual *) lfirst(cell))->exact)
			return -1;
	if (root->limit_tuples < 1 || nclauses != list_length(quals) || root->query_pathkeys != NIL ||
		!bms_equal(root->all_baserels, rel->relids) || query->limitCount == NULL ||
		!IsA(query->limitCount, Const) || query->limitOption != LIMIT_OPTION_COUNT ||
		(query->limitOffset != NULL && !IsA(query->limitOffset, Const)) || query->hasTargetSRFs)
		return -1;
	return (int64) ceil(root->limit_tuples);
}

/*
 * Takes the clause `key = ANY (parameter)` out of the list that the executor checks: it looks up
 * constants in a hash table, but compares with the elements of a parameter one by one. The scan
 * holds the key's echo against the values instead. Returns the key's attno where it does.
 */
static AttrNumber
take_over_key(RelationInputs *inputs, Oid relid, List *quals, List **clauses)
{
	ListCell   *cell;
	ListCell   *clause;

	foreach(cell, quals)
	{
		InputQual  *qual = lfirst(cell);

		if (qual->attno != inputs->key || qual->match != MATCH_ANY || !IsA(qual->value, Param) ||
			get_atttype(relid, qual->attno) != TEXTOID)
			continue;
		foreach(clause, *clauses)
		{
			ScalarArrayOpExpr *operator = lfirst(clause);

			if (IsA(operator, ScalarArrayOpExpr) && IsA(linitial(operator->args), Var) &&
				operator->opno == TextEqualOperator && equal(lsecond(operator->args), qual->value))
			{
				*clauses = list_delete_ptr(*clauses, operator);
				return qual->attno;
			}
		}
	}
	return 0;
}

/* The first of `wanted` that is not in `known`, or 0. */
static AttrNumber
first_missing(Bitmapset *wanted, Bitmapset *known)
{
	Bitmapset  *missing = bms_difference(wanted, known);

	return bms_is_empty(missing) ? 0 : (AttrNumber) bms_next_member(missing, -1);
}

ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path, List *tlist,
		 List *clauses, Plan *outer_plan)
{
	RelationInputs *inputs = rel->fdw_private;
	List	   *quals = pick_input_quals(root, rel, inputs, clauses, NULL);
	List	   *local = extract_actual_clauses(clauses, false);
	Bitmapset  *needed = NULL;
	Bitmapset  *known = supplied(quals);
	List	   *values = NIL;
	ScanPlan	plan = {0};
	ListCell   *cell;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &needed);
	pull_varattnos((Node *) local, rel->relid, &needed);
	plan.echoed = take_over_key(inputs, relid, quals, &local);
	plan.relid = relid;
	plan.columns = columns_needed(inputs, needed);
	plan.limit = row_limit(root, rel, list_length(clauses), quals);
	plan.unmet = first_missing(inputs->constrained, known);
	plan.compared = first_missing(inputs->compared, known);
	foreach(cell, quals)
	{
		InputQual  *qual = lfirst(cell);

		plan.inputs = lappend_int(plan.inputs, qual->attno);
		plan.matches = lappend_int(plan.matches, (int) qual->match);
		values = lappend(values, qual->value);
	}
	return make_foreignscan(tlist, local, rel->relid, values, scan_plan_to_list(&plan), NIL, NIL,
							outer_plan);
}
