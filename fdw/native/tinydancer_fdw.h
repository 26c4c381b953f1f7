/*
 * tinydancer_fdw.h: what the parts of the native front door share.
 *
 *     options.c       options of servers, mappings and tables; IMPORT FOREIGN SCHEMA
 *     quals.c         which clauses are inputs
 *     scan_plan.c     what a plan remembers of a scan
 *     planning.c      paths and plans of a foreign scan
 *     fdw.c           the handler, and the running of a foreign scan
 *     batched_path.c  a join that sends its outer values in batches: its plan ...
 *     batched_calls.c ... calls in a select list that send theirs in batches: their plan ...
 *     batched_join.c  ... the running of both ...
 *     batch.c         ... and one batch of it
 *     scan.c          one scan: asks a question, reads its rows
 *     question.c      writes the question
 *     place.c         which database this is, and how far its server has come
 *     echoes.c        the values asked for, to hold the rows' echoes against
 *     connection.c    the connections of a backend, and the frames over them
 *     opening.c       opens these: addresses, sockets, TLS
 *     wire.c          bytes and waits
 *     tls.c           TLS by OpenSSL, a library of its own (tls.h)
 *     frames.c        reads what the engine sends
 */
#ifndef TINYDANCER_FDW_H
#define TINYDANCER_FDW_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

#include "frames.h"

/* A server loads libraries with their symbols visible to all: keep ours to ourselves. */
#pragma GCC visibility push(hidden)

/* ---- the contract: written by build.py from tinydancer_fdw.contract ---- */

typedef struct ContractColumn
{
	const char *name;
	const char *type;
	bool		input;
	bool		required;
	bool		identity;		/* another with each answer */
} ContractColumn;

typedef struct ContractTable
{
	const char *name;
	const ContractColumn *columns;
	int			ncolumns;
	int			rows;			/* rows that one request is expected to yield */
	int			microseconds;	/* what one request costs the engine */
} ContractTable;

/* ---- options.c ---- */

/* Where the engine is, and how long to wait for it. */
typedef struct EngineOptions
{
	const char *socket;			/* path of a Unix socket, or NULL */
	const char *host;
	const char *port;
	const char *sslrootcert;	/* file of certificates to trust: TLS is on; or NULL */
	const char *database;		/* the one whose engine is meant, where not this one; or NULL */
	const char *token;			/* "" for none */
	int			timeout;		/* milliseconds without a byte of the answer */
	int			connect_timeout;	/* milliseconds */
} EngineOptions;

extern const ContractTable *contract_table(const char *name);
extern const ContractTable *foreign_contract_table(Oid relid);
extern const ContractColumn *contract_column(const ContractTable *table, const char *name);
extern EngineOptions engine_options(ForeignServer *server, UserMapping *mapping,
									ForeignTable *table);
extern List *import_foreign_schema(ImportForeignSchemaStmt *stmt, Oid serverid);

/* ---- place.c ---- */

extern void send_place(StringInfo question, const char *engine_database);

/* ---- connection.c ---- */

typedef struct Connection Connection;

/* An engine as a foreign table and a user reach it. */
typedef struct EngineTarget
{
	Oid			serverid;
	Oid			mapping;		/* the user mapping, or 0 */
	EngineOptions options;
} EngineTarget;

extern EngineTarget engine_target(Oid relid, Oid userid);
extern void connection_ask(Connection **holder, const EngineTarget *target,
						   const StringInfoData *question);
extern int	connection_frame(Connection **holder, FrameReader *payload);
extern bool connection_frame_buffered(Connection *connection);
extern void connection_release(Connection **holder);
extern void connection_close(Connection *connection);
extern void connection_raise(Connection **holder, FrameReader *payload) __attribute__((noreturn));
extern void connection_violated(Connection **holder, const char *fault) __attribute__((noreturn));

/* ---- opening.c ---- */

extern const struct TlsMethods *tls_methods(void);

/* ---- quals.c ---- */

enum InputMatch
{
	MATCH_EQUALS = 0,
	MATCH_ANY = 1
};

/* What is known of one of our foreign tables while a query is planned. */
typedef struct RelationInputs
{
	const ContractTable *table;
	AttrNumber	natts;
	const ContractColumn **columns; /* by attno - 1; NULL for a dropped column */
	AttrNumber	key;			/* the required input, or 0 */
	Bitmapset  *constrained;	/* attnos of inputs that some clause could supply */
	Bitmapset  *compared;		/* attnos of inputs that some clause filters by */
	bool		marked;			/* the row as a whole is only what PostgreSQL keeps to check it again */
} RelationInputs;

/* A clause that gives an input column its value. */
typedef struct InputQual
{
	AttrNumber	attno;
	enum InputMatch match;
	Expr	   *value;			/* of the column's type, or an array of it */
	Relids		outer;			/* relations that the value is computed from */
	bool		exact;			/* the clause is true of every row that echoes the value */
} InputQual;

extern RelationInputs *relation_inputs(Oid relid);
extern bool match_input_qual(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs,
							 Expr *clause, InputQual *qual);
extern AttrNumber input_column(RelOptInfo *rel, const RelationInputs *inputs, Node *node);
extern List *pick_input_quals(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs,
							  List *clauses, List **others);
extern Bitmapset *compared_inputs(PlannerInfo *root, RelOptInfo *rel, RelationInputs *inputs,
								  List *others);
extern double requests_of(enum InputMatch match, Expr *value);

/* ---- scan_plan.c ---- */

/* What a plan remembers of a scan; its values are expressions kept beside it, in order. */
typedef struct ScanPlan
{
	Oid			relid;
	Oid			userid;			/* whose mapping to use; 0 for the current user */
	List	   *columns;		/* attnos of the columns wanted */
	List	   *inputs;			/* attnos of the inputs sent */
	List	   *matches;		/* their InputMatch */
	int64		limit;			/* -1: none */
	AttrNumber	unmet;			/* an input that a clause constrains, yet not in this plan, or 0 */
	AttrNumber	compared;		/* an input that a clause filters by, yet has no value, or 0 */
	AttrNumber	echoed;			/* a column whose echo no clause of the plan checks, or 0 */
} ScanPlan;

extern List *columns_needed(const RelationInputs *inputs, Bitmapset *needed);
extern List *scan_plan_to_list(const ScanPlan *plan);
extern ScanPlan scan_plan_from_list(List *list);

/* ---- echoes.c ---- */

typedef struct EchoSet EchoSet;

extern EchoSet *echoes_of_array(MemoryContext memory, FrameReader array);
extern bool echo_was_asked(EchoSet *set, FrameText echo);

/* ---- scan.c ---- */

typedef struct EngineScan EngineScan;

extern EngineScan *scan_create(ScanPlan plan, EState *estate);
extern bool scan_start(EngineScan *scan, const Datum *values, const bool *nulls);
extern bool scan_next(EngineScan *scan, Datum *values, bool *nulls);
extern void scan_stop(EngineScan *scan);
extern void scan_explain(EngineScan *scan, List *values, List *context,
						 struct ExplainState *es);

/* ---- planning.c, fdw.c, batched_path.c, batched_calls.c ---- */

/* Costs are in units of a sequential page read, taken as 10 microseconds. */
#define ROUND_TRIP_COST 6.0
#define REQUEST_COST(table) ((table)->microseconds / 10.0)

extern bool asks_identity(const RelationInputs *inputs, List *columns);
extern void get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern void get_paths(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern ForeignScan *get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path,
							 List *tlist, List *clauses, Plan *outer_plan);
extern bool is_tinydancer_relation(RelOptInfo *rel);
extern bool is_tinydancer_table(Oid relid);
extern void batched_join_init(void);
extern void batched_calls_init(void);

#pragma GCC visibility pop

#endif							/* TINYDANCER_FDW_H */
