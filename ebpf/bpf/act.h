/* Records of what has no other form: who did it, and a few numbers and words. */
#pragma once

#include "maps.h"

static __always_inline struct act *act_begin(u16 kind, struct task_struct *task, struct tag *tag)
{
	struct act *record;

	count(&seen, kind);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, kind);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	fill_subject(&record->who, kind, task, tag);
	return record;
}
