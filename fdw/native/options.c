/*
 * options.c: what users say about servers, mappings and tables, and IMPORT FOREIGN SCHEMA.
 */
#include "tinydancer_fdw.h"

#include <sys/un.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "contract.h"

PG_FUNCTION_INFO_V1(tinydancer_native_validator);

#define DEFAULT_TIMEOUT 30000
#define DEFAULT_CONNECT_TIMEOUT 2000
#define LONGEST_TIMEOUT 3600000

typedef struct KnownOption
{
	const char *name;
	Oid			context;		/* the catalog that it may be set in */
} KnownOption;

static const KnownOption known_options[] = {
	{"socket", ForeignServerRelationId},
	{"host", ForeignServerRelationId},
	{"port", ForeignServerRelationId},
	{"sslrootcert", ForeignServerRelationId},
	{"database", ForeignServerRelationId},
	{"timeout", ForeignServerRelationId},
	{"connect_timeout", ForeignServerRelationId},
	{"token", UserMappingRelationId},
	{"table", ForeignTableRelationId},
	{"timeout", ForeignTableRelationId},
	{"connect_timeout", ForeignTableRelationId},
};

/* Names of the contract's tables, for hints. */
static char *
table_names(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < (int) lengthof(contract); i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", contract[i].name);
	return names.data;
}

const ContractTable *
contract_table(const char *name)
{
	for (int i = 0; i < (int) lengthof(contract); i++)
		if (strcmp(contract[i].name, name) == 0)
			return &contract[i];
	ereport(ERROR,
			errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
			errmsg("the engine has no table \"%s\"", name),
			errhint("It has %s.", table_names()));
}

const ContractColumn *
contract_column(const ContractTable *table, const char *name)
{
	for (int i = 0; i < table->ncolumns; i++)
		if (strcmp(table->columns[i].name, name) == 0)
			return &table->columns[i];
	return NULL;
}

static char *
text_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

const ContractTable *
foreign_contract_table(Oid relid)
{
	char	   *name = text_option(GetForeignTable(relid)->options, "table");

	if (name == NULL)
		ereport(ERROR,
				errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				errmsg("foreign table \"%s\" does not say which of the engine's tables it is",
					   get_rel_name(relid)),
				errhint("ALTER FOREIGN TABLE %s OPTIONS (ADD table 'route_decisions'), or one of %s.",
						quote_identifier(get_rel_name(relid)), table_names()));
	return contract_table(name);
}

/* A whole number of milliseconds or a port, from 1 to `most`. */
static int
number_option(const char *name, const char *text, int most)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || number < 1 || number > most)
		ereport(ERROR,
				errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				errmsg("option \"%s\" is \"%s\", not a whole number from 1 to %d",
					   name, text, most));
	return (int) number;
}

static void
check_option(const char *name, const char *value)
{
	if (strcmp(name, "timeout") == 0 || strcmp(name, "connect_timeout") == 0)
		number_option(name, value, LONGEST_TIMEOUT);
	else if (strcmp(name, "port") == 0)
		number_option(name, value, 65535);
	else if (strcmp(name, "table") == 0)
		contract_table(value);
	else if (strcmp(name, "socket") == 0)
	{
		if (!is_absolute_path(value))
			ereport(ERROR,
					errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					errmsg("option \"socket\" is \"%s\", not an absolute path", value));
		if (strlen(value) >= sizeof(((struct sockaddr_un *) NULL)->sun_path))
			ereport(ERROR,
					errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					errmsg("option \"socket\" is %zu bytes long; a socket's path has at most %zu",
						   strlen(value), sizeof(((struct sockaddr_un *) NULL)->sun_path) - 1));
	}
	else if (strcmp(name, "sslrootcert") == 0)
	{
		if (!is_absolute_path(value))
			ereport(ERROR,
					errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					errmsg("option \"sslrootcert\" is \"%s\", not an absolute path", value));
		(void) tls_methods();
	}
	else if (strcmp(name, "database") == 0 && value[0] == '\0')
		ereport(ERROR,
				errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				errmsg("option \"database\" is empty"),
				errhint("It is the name of the database whose engine is meant."));
}

/* Names of the options that may be set in a catalog, for hints. */
static char *
option_names(Oid context)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < (int) lengthof(known_options); i++)
		if (known_options[i].context == context)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", known_options[i].name);
	return names.data;
}

/* tinydancer_native_validator(options text[], catalog oid): refuses what is unknown or wrong. */
Datum
tinydancer_native_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			context = PG_GETARG_OID(1);
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);
		bool		known = false;

		for (int i = 0; i < (int) lengthof(known_options) && !known; i++)
			known = known_options[i].context == context &&
				strcmp(known_options[i].name, option->defname) == 0;
		if (!known)
		{
			char	   *names = option_names(context);

			ereport(ERROR,
					errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					errmsg("invalid option \"%s\"", option->defname),
					names[0] != '\0' ? errhint("Valid options here are: %s.", names)
					: errhint("There are no options here."));
		}
		check_option(option->defname, defGetString(option));
	}
	if (context == ForeignServerRelationId &&
		text_option(options, "socket") != NULL && text_option(options, "host") != NULL)
		ereport(ERROR,
				errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				errmsg("options \"socket\" and \"host\" exclude each other"));
	if (context == ForeignServerRelationId &&
		text_option(options, "socket") != NULL && text_option(options, "sslrootcert") != NULL)
		ereport(ERROR,
				errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				errmsg("option \"sslrootcert\" is for an engine on a host; there is no TLS over a socket"));
	PG_RETURN_VOID();
}

/* A timeout of the table, else of the server, else the default. */
static int
timeout_option(ForeignServer *server, ForeignTable *table, const char *name, int otherwise)
{
	char	   *text = text_option(table->options, name);

	if (text == NULL)
		text = text_option(server->options, name);
	return text == NULL ? otherwise : number_option(name, text, LONGEST_TIMEOUT);
}

EngineOptions
engine_options(ForeignServer *server, UserMapping *mapping, ForeignTable *table)
{
	EngineOptions options;

	options.socket = text_option(server->options, "socket");
	options.host = text_option(server->options, "host");
	options.port = text_option(server->options, "port");
	options.sslrootcert = text_option(server->options, "sslrootcert");
	options.database = text_option(server->options, "database");
	options.token = mapping != NULL ? text_option(mapping->options, "token") : NULL;
	if (options.token == NULL)
		options.token = "";
	options.timeout = timeout_option(server, table, "timeout", DEFAULT_TIMEOUT);
	options.connect_timeout = timeout_option(server, table, "connect_timeout",
											 DEFAULT_CONNECT_TIMEOUT);
	if (options.socket == NULL && (options.host == NULL || options.port == NULL))
		ereport(ERROR,
				errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				errmsg("server \"%s\" does not say where its engine is", server->servername),
				errhint("ALTER SERVER %s OPTIONS (ADD socket '/path/of/the/engine.sock'); "
						"or both host and port.", quote_identifier(server->servername)));
	return options;
}

List *
import_foreign_schema(ImportForeignSchemaStmt *stmt, Oid serverid)
{
	List	   *commands = NIL;
	ListCell   *cell;

	/* A name that is none is an error here: PostgreSQL itself would import nothing, silently. */
	if (stmt->list_type == FDW_IMPORT_SCHEMA_LIMIT_TO)
		foreach(cell, stmt->table_list)
			contract_table(lfirst_node(RangeVar, cell)->relname);

	for (int i = 0; i < (int) lengthof(contract); i++)
	{
		const ContractTable *table = &contract[i];
		StringInfoData command;

		if (!IsImportableForeignTable(table->name, stmt))
			continue;
		initStringInfo(&command);
		appendStringInfo(&command, "CREATE FOREIGN TABLE %s.%s (",
						 quote_identifier(stmt->local_schema), quote_identifier(table->name));
		for (int j = 0; j < table->ncolumns; j++)
			appendStringInfo(&command, "%s%s %s", j > 0 ? ", " : "",
							 quote_identifier(table->columns[j].name), table->columns[j].type);
		appendStringInfo(&command, ") SERVER %s OPTIONS (table '%s')",
						 quote_identifier(stmt->server_name), table->name);
		commands = lappend(commands, command.data);
	}
	return commands;
}
