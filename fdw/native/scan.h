/*
 * scan.h: a scan, as its questions (question.c) and its answers (scan.c) see it.
 */
#ifndef TINYDANCER_SCAN_H
#define TINYDANCER_SCAN_H

#include "tinydancer_fdw.h"

#include "catalog/pg_attribute.h"

#pragma GCC visibility push(hidden)

/* A column that the engine is asked for: how its text form becomes a datum. */
typedef struct OutputColumn
{
	const char *name;
	Oid			type;
	int32		typmod;
	Oid			ioparam;
	FmgrInfo	input;			/* the type's input function */
} OutputColumn;

/* An input that is sent: how its datum becomes a text form. */
typedef struct InputColumn
{
	const char *name;
	enum InputMatch match;
	bool		array;			/* the value is an array: of inputs, or the input itself */
	Oid			element;		/* type of the value, or of the array's elements */
	int16		length;			/* of the element type */
	bool		by_value;
	char		align;
	FmgrInfo	output;			/* the element type's output function */
} InputColumn;

struct EngineScan
{
	ScanPlan	plan;
	const ContractTable *table;
	const char *unmet;			/* name of the input that the plan fails to supply, or NULL */
	const char *compared;		/* name of an input that a clause filters by in vain, or NULL */
	const char *missing;		/* name of the required input that no qual supplies, or NULL */
	EngineTarget target;
	bool		targeted;		/* target is filled in: at the first question */
	uint64		statement;
	int			noutputs;
	OutputColumn *outputs;
	int			ninputs;
	InputColumn *inputs;
	StringInfoData question;
	int			echo_input;		/* the input whose echo is checked here, or -1 */
	int			echo_output;	/* the column that echoes it */
	size_t		echo_at;		/* where its values are in the question */
	MemoryContext echo_memory;
	EchoSet    *echoes;
	Connection *connection;		/* while an answer is being read */
	MemoryContextCallback cleanup;
	FrameReader rows;			/* the ROWS frame being read */
	uint32		left;			/* its rows not read yet */
	uint64		received;		/* rows of this answer */
	uint64		total_scans;	/* for EXPLAIN ANALYZE */
	uint64		total_rows;
};

extern void prepare_input(InputColumn *input, Form_pg_attribute attribute, enum InputMatch match);
extern bool write_question(EngineScan *scan, const Datum *values, const bool *nulls);

#pragma GCC visibility pop

#endif							/* TINYDANCER_SCAN_H */
