/*
 * quals.c: which clauses of a query are inputs.
 *
 * An input qual is `column = value` or `column = ANY (values)` on an input column, or alternatives of
 * the first, where the value has nothing of the same relation in it and is not volatile. The executor
 * checks every clause again on the rows, so that a clause sent to the engine may be approximate, but
 * never wrong. Any other clause on an input only filters; where the input has no value there is
 * nothing to filter, and the scan says so.
 */
#include "tinydancer_fdw.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Reads a foreign table's columns against the contract. The caller or the planner holds a lock. */
RelationInputs *
relation_inputs(Oid relid)
{
	RelationInputs *inputs = palloc0(sizeof(RelationInputs));
	Relation	relation = table_open(relid, NoLock);
	TupleDesc	attributes = RelationGetDescr(relation);

	inputs->table = foreign_contract_table(relid);
	inputs->natts = (AttrNumber) attributes->natts;
	inputs->columns = palloc0(sizeof(ContractColumn *) * attributes->natts);
	for (int i = 0; i < attributes->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(attributes, i);
		const ContractColumn *column;

		if (attribute->attisdropped)
			continue;
		column = contract_column(inputs->table, NameStr(attribute->attname));
		if (column == NULL)
			ereport(ERROR,
					errcode(ERRCODE_FDW_COLUMN_NAME_NOT_FOUND),
					errmsg("column \"%s\" of foreign table \"%s\" is none of %s",
						   NameStr(attribute->attname), RelationGetRelationName(relation),
						   inputs->table->name),
					errhint("IMPORT FOREIGN SCHEMA makes the table with the columns that it has."));
		inputs->columns[i] = column;
		if (column->required)
			inputs->key = attribute->attnum;
	}
	table_close(relation, NoLock);
	return inputs;
}

/*
 * The input column of `rel` that an expression is, or 0. A cast that the parser put around it, to compare
 * it with another type, is looked through: the value is cast the other way instead.
 */
AttrNumber
input_column(RelOptInfo *rel, const RelationInputs *inputs, Node *node)
{
	Var		   *var;

	while (node != NULL)
	{
		if (IsA(node, RelabelType))
			node = (Node *) ((RelabelType *) node)->arg;
		else if (IsA(node, FuncExpr) &&
				 ((FuncExpr *) node)->funcformat == COERCE_IMPLICIT_CAST)
			node = (Node *) linitial(((FuncExpr *) node)->args);
		else
			break;
	}
	if (node == NULL || !IsA(node, Var))
		return 0;
	var = (Var *) node;
	if ((Index) var->varno != rel->relid || var->varlevelsup != 0 ||
		var->varattno <= 0 || var->varattno > inputs->natts ||
		inputs->columns[var->varattno - 1] == NULL || !inputs->columns[var->varattno - 1]->input)
		return 0;
	return var->varattno;
}

/*
 * Whether a column is compared as it is. Where it is cast, as an integer to be compared with 1.4, the
 * value is cast to another one that the clause may not be true of.
 */
static bool
is_uncast(Node *column)
{
	while (IsA(column, RelabelType))
		column = (Node *) ((RelabelType *) column)->arg;
	return IsA(column, Var);
}

/* Fills in the value of a qual, cast to the column's type; false where it can't be sent. */
static bool
take_value(PlannerInfo *root, RelOptInfo *rel, InputQual *qual, Node *value, Oid type)
{
	Relids		relids = pull_varnos(root, value);
	Node	   *cast;

	if (bms_is_member((int) rel->relid, relids) || contain_volatile_functions(value))
		return false;
	cast = coerce_to_target_type(NULL, copyObject(value), exprType(value), type, -1,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (cast == NULL)
		return false;
	qual->value = (Expr *) eval_const_expressions(root, cast);
	qual->outer = relids;
	return true;
}

/*
 * `input = a OR input = b` is `input = ANY (ARRAY[a, b])`, as PostgreSQL itself writes it since 18.
 */
static bool
match_alternatives(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs, List *arms,
				   InputQual *qual)
{
	ArrayExpr  *values = makeNode(ArrayExpr);
	ListCell   *cell;

	qual->attno = 0;
	qual->outer = NULL;
	qual->exact = true;
	foreach(cell, arms)
	{
		InputQual	arm;

		if (!match_input_qual(root, rel, inputs, lfirst(cell), &arm) ||
			arm.match != MATCH_EQUALS || (qual->attno != 0 && arm.attno != qual->attno))
			return false;
		qual->attno = arm.attno;
		qual->outer = bms_union(qual->outer, arm.outer);
		qual->exact = qual->exact && arm.exact;
		values->elements = lappend(values->elements, arm.value);
	}
	values->element_typeid = exprType(linitial(values->elements));
	values->array_typeid = get_array_type(values->element_typeid);
	values->array_collid = exprCollation(linitial(values->elements));
	values->location = -1;
	/* An array of arrays is one array: alternatives of a text[] input can't be told apart in it. */
	if (!OidIsValid(values->array_typeid) || OidIsValid(get_element_type(values->element_typeid)))
		return false;
	qual->match = MATCH_ANY;
	qual->value = (Expr *) eval_const_expressions(root, (Node *) values);
	return true;
}

/* `key IS NULL` is as much as `key = NULL`: there is no such row. Any other input may be NULL. */
static bool
match_null_key(Oid relid, RelOptInfo *rel, RelationInputs *inputs, NullTest *test, InputQual *qual)
{
	Oid			type;
	int32		typmod;
	Oid			collation;

	qual->attno = input_column(rel, inputs, (Node *) test->arg);
	if (test->nulltesttype != IS_NULL || qual->attno == 0 || qual->attno != inputs->key)
		return false;
	get_atttypetypmodcoll(relid, qual->attno, &type, &typmod, &collation);
	qual->match = MATCH_EQUALS;
	qual->value = (Expr *) makeNullConst(type, typmod, collation);
	qual->outer = NULL;
	qual->exact = true;
	return true;
}

/*
 * Whether a clause gives an input column of `rel` its value; fills in *qual where it does.
 */
bool
match_input_qual(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs, Expr *clause,
				 InputQual *qual)
{
	Oid			relid = root->simple_rte_array[rel->relid]->relid;

	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *operator = (OpExpr *) clause;
		Node	   *sides[2] = {linitial(operator->args), lsecond(operator->args)};

		if (!op_mergejoinable(operator->opno, exprType(sides[0])) &&
			!op_hashjoinable(operator->opno, exprType(sides[0])))
			return false;
		for (int i = 0; i < 2; i++)
		{
			qual->attno = input_column(rel, inputs, sides[i]);
			qual->match = MATCH_EQUALS;
			if (qual->attno == 0 ||
				!take_value(root, rel, qual, sides[1 - i], get_atttype(relid, qual->attno)))
				continue;
			qual->exact = is_uncast(sides[i]);
			return true;
		}
		return false;
	}
	if (IsA(clause, ScalarArrayOpExpr))
	{
		ScalarArrayOpExpr *operator = (ScalarArrayOpExpr *) clause;
		Oid			array;

		if (!operator->useOr ||
			!(op_mergejoinable(operator->opno, exprType(linitial(operator->args))) ||
			  op_hashjoinable(operator->opno, exprType(linitial(operator->args)))))
			return false;
		qual->attno = input_column(rel, inputs, linitial(operator->args));
		qual->match = MATCH_ANY;
		if (qual->attno == 0)
			return false;
		qual->exact = is_uncast(linitial(operator->args));
		array = get_array_type(get_atttype(relid, qual->attno));
		return OidIsValid(array) && take_value(root, rel, qual, lsecond(operator->args), array);
	}
	if (is_orclause(clause))
		return match_alternatives(root, rel, inputs, ((BoolExpr *) clause)->args, qual);
	if (IsA(clause, NullTest))
		return match_null_key(relid, rel, inputs, (NullTest *) clause, qual);
	/* The planner writes `flag = true` as `flag`, and `flag = false` as `NOT flag`. */
	qual->match = MATCH_EQUALS;
	qual->outer = NULL;
	qual->exact = true;
	qual->value = (Expr *) makeBoolConst(!is_notclause(clause), false);
	qual->attno = input_column(rel, inputs, is_notclause(clause) ?
							   (Node *) get_notclausearg(clause) : (Node *) clause);
	return qual->attno != 0 && get_atttype(relid, qual->attno) == BOOLOID;
}

/*
 * The quals among `clauses` (RestrictInfos) that a scan sends, one for each input column: of two on
 * one column the narrower goes, and the executor checks the other. Puts the clauses that give no
 * input a value into *others, unless that is NULL.
 */
List *
pick_input_quals(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs, List *clauses,
				 List **others)
{
	InputQual **picked = palloc0(sizeof(InputQual *) * (inputs->natts + 1));
	List	   *quals = NIL;
	ListCell   *cell;

	foreach(cell, clauses)
	{
		InputQual	qual;
		InputQual **best;

		if (!match_input_qual(root, rel, inputs, lfirst_node(RestrictInfo, cell)->clause, &qual))
		{
			if (others != NULL)
				*others = lappend(*others, lfirst(cell));
			continue;
		}
		best = &picked[qual.attno];
		if (*best == NULL || ((*best)->match == MATCH_ANY && qual.match == MATCH_EQUALS))
		{
			*best = palloc(sizeof(InputQual));
			**best = qual;
		}
	}
	for (AttrNumber attno = 1; attno <= inputs->natts; attno++)
		if (picked[attno] != NULL)
			quals = lappend(quals, picked[attno]);
	return quals;
}

/* ---- clauses that compare an input ---- */

/* The attnos of columns of a relation that are not NULL wherever a clause is true. */
static Bitmapset *
columns_not_null(Node *clause, Index relid)
{
	List	   *columns = find_nonnullable_vars(clause);
	Bitmapset  *attnos = NULL;

#if PG_VERSION_NUM >= 160000
	int			column = -1;

	/* A set for each relation, with attnos as pull_varattnos sets them. */
	if ((int) relid >= list_length(columns))
		return NULL;
	while ((column = bms_next_member(list_nth(columns, (int) relid), column)) >= 0)
		if (column + FirstLowInvalidHeapAttributeNumber > 0)
			attnos = bms_add_member(attnos, column + FirstLowInvalidHeapAttributeNumber);
#else
	ListCell   *cell;

	foreach(cell, columns)
		if ((Index) lfirst_node(Var, cell)->varno == relid && lfirst_node(Var, cell)->varattno > 0)
			attnos = bms_add_member(attnos, lfirst_node(Var, cell)->varattno);
#endif
	return attnos;
}

/*
 * The inputs that a clause compares with something, so that it is true for no row that echoes them
 * as NULL, which is what the engine does with an input that it was not given.
 */
static Bitmapset *
inputs_of_clause(RelOptInfo *rel, RelationInputs *inputs, Node *clause)
{
	Bitmapset  *compared = NULL;
	Bitmapset  *columns;
	Node	   *distinct = is_notclause(clause) ? (Node *) get_notclausearg(clause) : NULL;
	int			attno = -1;

	/* Of these two find_nonnullable_vars can't be sure: the one of an array of no elements ... */
	if (IsA(clause, ScalarArrayOpExpr))
		attno = input_column(rel, inputs, linitial(((ScalarArrayOpExpr *) clause)->args));
	/* ... the other, IS NOT DISTINCT FROM, of a NULL. Both are meant as comparisons. */
	else if (distinct != NULL && IsA(distinct, DistinctExpr))
	{
		attno = input_column(rel, inputs, linitial(((DistinctExpr *) distinct)->args));
		if (attno == 0)
			attno = input_column(rel, inputs, lsecond(((DistinctExpr *) distinct)->args));
	}
	if (attno > 0)
		compared = bms_add_member(compared, attno);

	columns = columns_not_null(clause, rel->relid);
	attno = -1;
	while ((attno = bms_next_member(columns, attno)) >= 0)
		if (attno <= inputs->natts && inputs->columns[attno - 1] != NULL &&
			inputs->columns[attno - 1]->input)
			compared = bms_add_member(compared, attno);
	return compared;
}

/*
 * The inputs that clauses of the query compare with something: `others`, of this relation alone, and
 * those of joins that give no input a value. Where nothing else gives one to them, their rows would
 * be dropped without a word.
 */
Bitmapset *
compared_inputs(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs, List *others)
{
	Bitmapset  *compared = NULL;
	Bitmapset  *absent = NULL;
	ListCell   *cell;
	InputQual	qual;

	foreach(cell, others)
	{
		Expr	   *clause = lfirst_node(RestrictInfo, cell)->clause;

		/* Said to have no value: what else is said of it excludes all rows, as it is meant to. */
		if (IsA(clause, NullTest) && ((NullTest *) clause)->nulltesttype == IS_NULL)
			absent = bms_add_member(absent, input_column(rel, inputs,
														 (Node *) ((NullTest *) clause)->arg));
		else
			compared = bms_join(compared, inputs_of_clause(rel, inputs, (Node *) clause));
	}
	foreach(cell, rel->joininfo)
	{
		RestrictInfo *join = lfirst_node(RestrictInfo, cell);

		/* Others decide what is joined to this relation's rows, not which of these there are. */
		if (join_clause_is_movable_to(join, rel) &&
			!match_input_qual(root, rel, inputs, join->clause, &qual))
			compared = bms_join(compared, inputs_of_clause(rel, inputs, (Node *) join->clause));
	}
	return bms_difference(compared, absent);
}

/* How many values a qual has; -1 where that is known only when it runs. */
double
requests_of(enum InputMatch match, Expr *value)
{
	if (match == MATCH_EQUALS)
		return 1;
	if (IsA(value, Const))
	{
		Const	   *constant = (Const *) value;
		ArrayType  *array;

		if (constant->constisnull)
			return 0;
		array = DatumGetArrayTypeP(constant->constvalue);
		return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	}
	if (IsA(value, ArrayExpr) && !((ArrayExpr *) value)->multidims)
		return list_length(((ArrayExpr *) value)->elements);
	return -1;
}
