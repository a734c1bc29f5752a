/* The same file opened again by the same process is counted, and told with its count when the process ends or its place is needed. */
#pragma once

#include "maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct opened_files);
} opened SEC(".maps");

struct file_again {
	struct file_event head;
	u8 path[OPENED_PATH];
};

static __always_inline void tell_again(struct task_struct *task, struct tag *tag, struct opened_file *file)
{
	struct file_again *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	u32 kind = KIND_FILE_OPENED;
	u64 *sum;

	if (!record) {
		/* Each of them was seen. */
		sum = bpf_map_lookup_elem(&lost, &kind);
		if (sum)
			__sync_fetch_and_add(sum, file->again);
		return;
	}
	__builtin_memset(&record->head, 0, sizeof(record->head));
	fill_subject(&record->head.who, KIND_FILE_OPENED, task, tag);
	record->head.inode = file->inode;
	record->head.device = file->device;
	record->head.mode = file->mode;
	record->head.flags = file->flags;
	record->head.count = file->again;
	record->head.path_len = file->path_len;
	__builtin_memcpy(record->path, file->path, OPENED_PATH);
	bpf_ringbuf_submit(record, 0);
}

static __always_inline void tell_opened_again(struct task_struct *task, struct task_struct *leader, struct tag *tag)
{
	struct opened_files *files = bpf_task_storage_get(&opened, leader, 0, 0);

	if (!files)
		return;
	for (u32 i = 0; i < OPENED_MAX; i++) {
		if (files->file[i].again)
			tell_again(task, tag, &files->file[i]);
		files->file[i].again = 0;
	}
}
