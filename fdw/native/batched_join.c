#include "tinydancer_fdw.h"

void
batched_join_init(void)
{
}
