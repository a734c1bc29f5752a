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

/* One thread at a time, so that no entry is another's half; who finds it taken tells each of its opens. */
static __always_inline bool take_opened(struct opened_files *files)
{
	return !__sync_val_compare_and_swap(&files->busy, 0, 1);
}

static __always_inline void leave_opened(struct opened_files *files)
{
	__sync_lock_test_and_set(&files->busy, 0);
}

/* Whether the file is among those that the process opened last, by the same name and in the same mode: then it is only counted. */
static __always_inline bool opened_again(struct task_struct *task, struct inode *inode, struct dentry *dentry, u32 mode)
{
	struct opened_files *files = bpf_task_storage_get(&opened, task->group_leader, 0, 0);
	u32 device = BPF_CORE_READ(inode, i_sb, s_dev), generation = BPF_CORE_READ(inode, i_generation);
	u64 number = BPF_CORE_READ(inode, i_ino);
	bool found = false;

	if (!files || !take_opened(files))
		return false;
	for (u32 i = 0; i < OPENED_MAX; i++) {
		struct opened_file *file = &files->file[i];

		if (file->path_len && file->inode == number && file->generation == generation && file->device == device &&
		    file->dentry == (u64)dentry && file->mode == mode) {
			file->again++;
			found = true;
			break;
		}
	}
	leave_opened(files);
	return found;
}

static __always_inline void keep_opened(struct task_struct *task, struct tag *tag, struct inode *inode, struct dentry *dentry,
					struct file_event *head, u8 *path)
{
	struct opened_files *files = bpf_task_storage_get(&opened, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct opened_file *file;
	u32 slot;

	if (!files || head->path_len > OPENED_PATH || !take_opened(files))
		return;
	slot = files->next % OPENED_MAX;
	file = &files->file[slot];
	if (file->again)
		tell_again(task, tag, file);
	files->next = slot + 1;
	file->again = 0;
	file->inode = head->inode;
	file->dentry = (u64)dentry;
	file->generation = BPF_CORE_READ(inode, i_generation);
	file->device = head->device;
	file->mode = head->mode;
	file->flags = head->flags;
	file->path_len = head->path_len;
	__builtin_memcpy(file->path, path, OPENED_PATH);
	leave_opened(files);
}

/* When the process's first thread ends, whose storage it is: another one that runs a new program takes that away. And at the end of all,
 * for what others have opened since. */
static __always_inline void tell_opened_again(struct task_struct *task, struct task_struct *leader, struct tag *tag)
{
	struct opened_files *files = bpf_task_storage_get(&opened, leader, 0, 0);

	if (!files || !take_opened(files))
		return;
	for (u32 i = 0; i < OPENED_MAX; i++) {
		if (files->file[i].again)
			tell_again(task, tag, &files->file[i]);
		files->file[i].again = 0;
	}
	leave_opened(files);
}
