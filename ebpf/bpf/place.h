/* Where a record is put together whose length shows only when it has been: paths are written as they are walked.
 *
 * A program of an LSM hook stays on its CPU and may be preempted there, so any number of tasks may be within one hook on one CPU (since
 * 6.2 the kernel has no guard against that): a place is claimed before it is written and given back when its record has been copied out.
 * Who finds none free tells nothing, which is counted; what is refused doesn't hang on it. */
#pragma once

#include "path.h"

struct place {
	u64 busy;
	union {
		struct {
			struct file_event head;
			u8 data[PATH_ROOM];
		} file;
		struct {
			struct refused head;
			u8 data[PATH_ROOM];
		} refused;
	};
};

/* How many there are: the loader sets it, and makes as many. */
const volatile u32 places_count = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct place);
} places SEC(".maps");

struct claim {
	u32 at;
	bool claimed;
};

static long claim_step(u32 index, void *context)
{
	struct claim *claim = context;
	struct place *place;

	claim->at++;
	if (claim->at >= places_count)
		claim->at = 0;
	place = bpf_map_lookup_elem(&places, &claim->at);
	if (!place || __sync_val_compare_and_swap(&place->busy, 0, 1))
		return 0;
	claim->claimed = true;
	return 1;
}

/* Each CPU begins elsewhere, so that they seldom meet. */
static __always_inline struct place *claim(void)
{
	struct claim claim = {.at = bpf_get_smp_processor_id() * PLACES_EACH};

	bpf_loop(places_count, claim_step, &claim, 0);
	return claim.claimed ? bpf_map_lookup_elem(&places, &claim.at) : 0;
}

static __always_inline void release(struct place *place)
{
	__sync_lock_test_and_set(&place->busy, 0);
}
