/*
 * scan_plan.c: what a plan remembers of a scan: its columns and inputs, as lists that are copied with it.
 */
#include "tinydancer_fdw.h"

#include "access/sysattr.h"
#include "nodes/value.h"

/* The columns that a scan asks for: those of `needed`, which has attnos as pull_varattnos sets them. */
List *
columns_needed(const RelationInputs *inputs, Bitmapset *needed)
{
	bool		all = !inputs->marked &&
		bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, needed);
	AttrNumber	first = 0;
	List	   *columns = NIL;

	for (AttrNumber attno = 1; attno <= inputs->natts; attno++)
	{
		if (inputs->columns[attno - 1] == NULL)
			continue;
		if (first == 0)
			first = attno;
		if (all || bms_is_member(attno - FirstLowInvalidHeapAttributeNumber, needed))
			columns = lappend_int(columns, attno);
	}
	/* count(*) needs the rows, if none of their columns: one is asked for, to bound a frame's rows. */
	if (columns == NIL && first != 0)
		columns = list_make1_int(first);
	return columns;
}

List *
scan_plan_to_list(const ScanPlan *plan)
{
	return list_make5(list_make2_oid(plan->relid, plan->userid),
					  plan->columns, plan->inputs, plan->matches,
					  list_make4(makeString(psprintf(INT64_FORMAT, plan->limit)),
								 makeInteger(plan->unmet), makeInteger(plan->compared),
								 makeInteger(plan->echoed)));
}

ScanPlan
scan_plan_from_list(List *list)
{
	List	   *oids = linitial(list);
	List	   *numbers = llast(list);
	ScanPlan	plan;

	plan.relid = linitial_oid(oids);
	plan.userid = lsecond_oid(oids);
	plan.columns = lsecond(list);
	plan.inputs = lthird(list);
	plan.matches = lfourth(list);
	plan.limit = strtoll(strVal(linitial(numbers)), NULL, 10);
	plan.unmet = (AttrNumber) intVal(lsecond(numbers));
	plan.compared = (AttrNumber) intVal(lthird(numbers));
	plan.echoed = (AttrNumber) intVal(lfourth(numbers));
	return plan;
}
