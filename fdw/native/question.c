/*
 * question.c: writes a SCAN frame, with the values of its inputs in PostgreSQL's text form.
 */
#include "scan.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

void
prepare_input(InputColumn *input, Form_pg_attribute attribute, enum InputMatch match)
{
	Oid			element = get_element_type(attribute->atttypid);
	Oid			function;
	bool		varlena;

	input->name = pstrdup(NameStr(attribute->attname));
	input->match = match;
	input->array = match == MATCH_ANY || OidIsValid(element);
	input->element = OidIsValid(element) ? element : attribute->atttypid;
	get_typlenbyvalalign(input->element, &input->length, &input->by_value, &input->align);
	getTypeOutputInfo(input->element, &function, &varlena);
	fmgr_info(function, &input->output);
}

static void
send_string(StringInfo question, const char *text, int length)
{
	pq_sendint32(question, (uint32) length);
	appendBinaryStringInfo(question, text, length);
}

/* A text in the server's encoding, sent as UTF-8. */
static void
send_text(StringInfo question, const char *text, int length)
{
	char	   *converted = pg_server_to_any(text, length, PG_UTF8);

	pq_sendint8(question, 1);
	send_string(question, converted, converted == text ? length : (int) strlen(converted));
}

static void
send_element(StringInfo question, InputColumn *input, Datum value)
{
	char		digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	switch (input->element)
	{
		case TEXTOID:
		case VARCHAROID:
			{
				text	   *string = DatumGetTextPP(value);

				send_text(question, VARDATA_ANY(string), (int) VARSIZE_ANY_EXHDR(string));
				break;
			}
		case FLOAT8OID:
			/* Not the output function: extra_float_digits could make it lose digits. */
			if (!isnan(DatumGetFloat8(value)) && !isinf(DatumGetFloat8(value)))
			{
				send_text(question, digits,
						  double_to_shortest_decimal_bufn(DatumGetFloat8(value), digits));
				break;
			}
			/* FALLTHROUGH */
		default:
			{
				char	   *string = OutputFunctionCall(&input->output, value);

				send_text(question, string, (int) strlen(string));
			}
	}
}

/* Returns how many elements that are not NULL were sent. */
static int
send_array(StringInfo question, InputColumn *input, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			sent = 0;

	/* The engine's echo is an array of one dimension that begins at 1: another never equals it. */
	if (input->match == MATCH_EQUALS &&
		(ARR_NDIM(array) > 1 || (ARR_NDIM(array) == 1 && ARR_LBOUND(array)[0] != 1)))
		ereport(ERROR,
				errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				errmsg("input \"%s\" must be an array of one dimension with subscripts from 1",
					   input->name),
				errhint("ARRAY(SELECT unnest(...)) makes one of any array."));
	deconstruct_array(array, input->element, input->length, input->by_value, input->align,
					  &elements, &nulls, &count);
	pq_sendint8(question, 2);
	pq_sendint32(question, (uint32) count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			pq_sendint8(question, 0);
		else
		{
			send_element(question, input, elements[i]);
			sent++;
		}
	}
	return sent;
}

/* Writes the SCAN frame; returns false where no row can match, so that nobody need be asked. */
bool
write_question(EngineScan *scan, const Datum *values, const bool *nulls)
{
	StringInfo	question = &scan->question;
	uint32		length;

	resetStringInfo(question);
	appendBinaryStringInfo(question, "TD\002\003\0\0\0\0", FRAME_HEADER);
	send_string(question, scan->table->name, (int) strlen(scan->table->name));
	pq_sendint64(question, scan->statement);
	pq_sendint64(question, (uint64) scan->plan.limit);
	send_place(question, scan->target.options.database);
	pq_sendint16(question, (uint16) scan->noutputs);
	for (int i = 0; i < scan->noutputs; i++)
		send_string(question, scan->outputs[i].name, (int) strlen(scan->outputs[i].name));
	pq_sendint16(question, (uint16) scan->ninputs);
	for (int i = 0; i < scan->ninputs; i++)
	{
		InputColumn *input = &scan->inputs[i];

		if (nulls[i])
			return false;
		send_string(question, input->name, (int) strlen(input->name));
		pq_sendint8(question, (uint8) input->match);
		if (i == scan->echo_input)
			scan->echo_at = (size_t) question->len + 1;	/* after the array's tag */
		if (!input->array)
			send_element(question, input, values[i]);
		else if (send_array(question, input, values[i]) == 0 && input->match == MATCH_ANY)
			return false;
	}
	length = (uint32) (question->len - FRAME_HEADER);
	if (length > FRAME_MAX_PAYLOAD)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("the inputs of a scan of \"%s\" take %u bytes, over the limit of %d",
					   scan->table->name, length, FRAME_MAX_PAYLOAD),
				errhint("Ask for fewer requests at once, or for shorter ones."));
	length = pg_hton32(length);
	memcpy(question->data + 4, &length, 4);
	return true;
}
