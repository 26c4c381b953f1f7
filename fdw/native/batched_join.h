/*
 * batched_join.h: what the planning and the running of a batched join share.
 */
#ifndef TINYDANCER_BATCHED_JOIN_H
#define TINYDANCER_BATCHED_JOIN_H

#include "postgres.h"

#include "nodes/extensible.h"

#pragma GCC visibility push(hidden)

#define BATCHED_JOIN_NAME "Tiny Dancer Batched Join"
/* The first batch is one row, so that a LIMIT 1 asks for one; each is this much larger. */
#define BATCH_GROWTH 4

extern int	batched_join_size;
extern const CustomScanMethods batched_join_methods;

#pragma GCC visibility pop

#endif							/* TINYDANCER_BATCHED_JOIN_H */
