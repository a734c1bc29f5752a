/* What happens to the files that are watched, and what may not happen to those that a policy denies, in the tier of LSM hooks: the
 * hooks get the kernel's own path, after the look-up, for io_uring too; tracepoints of system calls would get a string that another
 * thread can change.
 *
 * What is watched is known by device and inode of the directories above, so bind mounts, symbolic links and other mount namespaces
 * lead to it as well. The path_ hooks need CONFIG_SECURITY_PATH, which kernels with AppArmor have. */

struct file_scratch {
	struct file_event head;
	u8 data[0x4000 + 2 * (PATH_CAP + 2 * NAME_CAP) + 0x4000];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* the loader sets several for each CPU */
	__type(key, u32);
	__type(value, struct file_scratch);
} file_scratch SEC(".maps");

/* Each program that may be running at a time on a CPU has a place of its own. */
enum file_user {
	USER_OPEN,
	USER_RENAME,
	USER_DELETE,
	USER_MODE,
	USER_LINK,
	USER_UNIX,
	USER_RMDIR,
	USER_OWNER,
	USER_TRUNCATE,
	USER_MKNOD,
	USER_MKDIR,
	USER_SYMLINK,
	FILE_USERS,
};

static __always_inline struct file_scratch *file_place(u32 user)
{
	u32 place = bpf_get_smp_processor_id() * FILE_USERS + user;

	return bpf_map_lookup_elem(&file_scratch, &place);
}

static __always_inline void fill_file(struct file_event *head, struct inode *inode, u32 mode)
{
	head->inode = inode ? BPF_CORE_READ(inode, i_ino) : 0;
	head->device = inode ? BPF_CORE_READ(inode, i_sb, s_dev) : 0;
	head->count = 1;
	head->mode = mode;
	head->flags = 0;
	head->path_len = 0;
	head->second_len = 0;
	head->rule = 0;
	head->tried = 0;
	head->reserved = 0;
}

static __always_inline void send_file(struct file_scratch *scratch, struct task_struct *task, struct tag *tag, u32 kind, u32 length)
{
	u64 size = sizeof(scratch->head) + (length & 0x7fff);

	fill_subject(&scratch->head.who, kind, task, tag);
	opaque(size);
	if (size > sizeof(*scratch) || bpf_ringbuf_output(&records, scratch, size, 0))
		count(&lost, kind);
}

/* A rule of the policy is in the way. `user`: whose place it may use. */
static __always_inline int refuse_file(u32 user, u32 tried, u32 rule, struct task_struct *task, struct tag *tag, struct dentry *dentry,
				       struct vfsmount *vfsmount, u32 mode)
{
	struct file_scratch *scratch;
	u32 length;

	if (silent(tag))
		return -EPERM;
	scratch = file_place(user);
	if (!scratch || full()) {
		count(&seen, KIND_FILE_DENIED);
		count(&lost, KIND_FILE_DENIED);
		return -EPERM;
	}
	fill_file(&scratch->head, BPF_CORE_READ(dentry, d_inode), mode);
	length = write_path(scratch->data, 0, dentry, vfsmount, BPF_CORE_READ(task, fs), &scratch->head.flags, FILE_CUT);
	if (scratch->head.flags & EXEC_UNREACHABLE)
		scratch->head.flags = (scratch->head.flags & FILE_CUT) | FILE_UNREACHABLE;
	scratch->head.path_len = length;
	scratch->head.rule = rule;
	scratch->head.tried = tried;
	count(&seen, KIND_FILE_DENIED);
	send_file(scratch, task, tag, KIND_FILE_DENIED, length);
	return -EPERM;
}

/* Whether the file is among those that the process opened last, in the same mode: then it is only counted. */
static __always_inline bool opened_again(struct opened_files *files, struct file_event *head)
{
	for (u32 i = 0; i < OPENED_MAX; i++) {
		struct opened_file *file = &files->file[i];

		if (file->path_len && file->inode == head->inode && file->device == head->device && file->mode == head->mode) {
			__sync_fetch_and_add(&file->again, 1);
			return true;
		}
	}
	return false;
}

static __always_inline void keep_opened(struct opened_files *files, struct task_struct *task, struct tag *tag, struct file_scratch *scratch)
{
	u32 slot = files->next % OPENED_MAX;
	struct opened_file *file = &files->file[slot];

	if (scratch->head.path_len > OPENED_PATH)
		return;
	if (file->again)
		tell_again(task, tag, file);
	files->next = slot + 1;
	file->again = 0;
	file->inode = scratch->head.inode;
	file->device = scratch->head.device;
	file->mode = scratch->head.mode;
	file->flags = scratch->head.flags;
	file->path_len = scratch->head.path_len;
	__builtin_memcpy(file->path, scratch->data, OPENED_PATH);
}

SEC("lsm/file_open")
int BPF_PROG(file_open_lsm, struct file *file, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct file_scratch *scratch;
	struct opened_files *files;
	bool inside = false;
	u32 length, rule;

	if (ret)
		return ret;
	if (!tag)
		return 0;
	rule = judge_file(tag, JUDGE_OPEN, file);
	if (rule)
		return deny_if(refuse_file(USER_OPEN, TRIED_OPEN, rule, task, tag, BPF_CORE_READ(file, f_path.dentry),
					   BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_flags)));
	if (silent(tag))
		return 0;
	scratch = file_place(USER_OPEN);
	if (!scratch)
		return 0;
	fill_file(&scratch->head, BPF_CORE_READ(file, f_inode), BPF_CORE_READ(file, f_flags));
	files = bpf_task_storage_get(&opened, task->group_leader, 0, 0);
	if (files && opened_again(files, &scratch->head)) {
		count(&seen, KIND_FILE_OPENED);
		return 0;
	}
	length = write_watched(scratch->data, 0, BPF_CORE_READ(file, f_path.dentry), BPF_CORE_READ(file, f_path.mnt),
			       BPF_CORE_READ(task, fs), &scratch->head.flags, &inside);
	if (!inside)
		return 0;
	scratch->head.path_len = length;
	count(&seen, KIND_FILE_OPENED);
	send_file(scratch, task, tag, KIND_FILE_OPENED, length);
	files = bpf_task_storage_get(&opened, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (files)
		keep_opened(files, task, tag, scratch);
	return 0;
}

/* A file gets another name: its old one goes, or stays as well. */
static __always_inline int file_renamed(struct dentry *old, struct vfsmount *old_mount, struct dentry *new, struct vfsmount *new_mount,
					u32 kind)
{
	u32 user = kind == KIND_FILE_LINKED ? USER_LINK : USER_RENAME, judge = kind == KIND_FILE_LINKED ? JUDGE_LINK : JUDGE_RENAME;
	u32 tried = kind == KIND_FILE_LINKED ? TRIED_LINK : TRIED_RENAME;
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct file_scratch *scratch;
	struct fs_struct *fs;
	bool inside = false;
	u32 at, from, rule;

	if (!tag)
		return 0;
	rule = judge_path(tag, judge, old, old_mount);
	if (rule)
		return refuse_file(user, tried, rule, task, tag, old, old_mount, 0);
	rule = judge_path(tag, judge, new, new_mount);
	if (rule)
		return refuse_file(user, tried, rule, task, tag, new, new_mount, 0);
	if (silent(tag))
		return 0;
	scratch = file_place(user);
	if (!scratch)
		return 0;
	fs = BPF_CORE_READ(task, fs);
	fill_file(&scratch->head, BPF_CORE_READ(old, d_inode), 0);
	at = write_watched(scratch->data, 0, old, old_mount, fs, &scratch->head.flags, &inside);
	scratch->head.path_len = at;
	from = at & 0x3fff;
	at = write_watched(scratch->data, from, new, new_mount, fs, &scratch->head.flags, &inside);
	scratch->head.second_len = at - from;
	if (!inside)
		return 0;
	count(&seen, kind);
	send_file(scratch, task, tag, kind, at);
	return 0;
}

SEC("lsm/path_rename")
int BPF_PROG(file_rename_lsm, struct path *old_dir, struct dentry *old_dentry, struct path *new_dir, struct dentry *new_dentry)
{
	struct vfsmount *old_mount = BPF_CORE_READ(old_dir, mnt), *new_mount = BPF_CORE_READ(new_dir, mnt);

	return deny_if(file_renamed(old_dentry, old_mount, new_dentry, new_mount, KIND_FILE_RENAMED));
}

/* A hard link leads out of what is watched: so that it is told when it is made. */
SEC("lsm/path_link")
int BPF_PROG(file_link_lsm, struct dentry *old_dentry, struct path *new_dir, struct dentry *new_dentry)
{
	struct vfsmount *mount = BPF_CORE_READ(new_dir, mnt);

	return deny_if(file_renamed(old_dentry, mount, new_dentry, mount, KIND_FILE_LINKED));
}

SEC("lsm/path_unlink")
int BPF_PROG(file_unlink_lsm, struct path *dir, struct dentry *dentry, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct file_scratch *scratch;
	struct vfsmount *mount = BPF_CORE_READ(dir, mnt);
	bool inside = false, pin;
	u32 length, rule;

	if (ret)
		return ret;
	if (!tag)
		return 0;
	rule = judge_path(tag, JUDGE_DELETE, dentry, mount);
	if (rule)
		return deny_if(refuse_file(USER_DELETE, TRIED_DELETE, rule, task, tag, dentry, mount, 0));
	if (silent(tag))
		return 0;
	scratch = file_place(USER_DELETE);
	if (!scratch)
		return 0;
	fill_file(&scratch->head, inode, 0);
	length = write_watched(scratch->data, 0, dentry, mount, BPF_CORE_READ(task, fs), &scratch->head.flags, &inside);
	/* A pin that goes takes a program with it. */
	pin = BPF_CORE_READ(inode, i_sb, s_magic) == BPFFS_MAGIC;
	if (!inside && !pin)
		return 0;
	if (pin)
		scratch->head.flags |= FILE_REFUSED;
	scratch->head.path_len = length;
	count(&seen, KIND_FILE_DELETED);
	send_file(scratch, task, tag, KIND_FILE_DELETED, length);
	return deny_if(pin);
}

SEC("lsm/path_chmod")
int BPF_PROG(file_chmod_lsm, struct path *path, u16 mode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct dentry *dentry = BPF_CORE_READ(path, dentry);
	struct tag *tag = watched(task);
	struct file_scratch *scratch;
	struct vfsmount *mount = BPF_CORE_READ(path, mnt);
	bool inside = false;
	u32 length, rule;

	if (!tag)
		return 0;
	rule = judge_path(tag, JUDGE_MODE, dentry, mount);
	if (rule)
		return deny_if(refuse_file(USER_MODE, TRIED_MODE, rule, task, tag, dentry, mount, mode));
	if (silent(tag))
		return 0;
	scratch = file_place(USER_MODE);
	if (!scratch)
		return 0;
	fill_file(&scratch->head, BPF_CORE_READ(dentry, d_inode), mode);
	length = write_watched(scratch->data, 0, dentry, mount, BPF_CORE_READ(task, fs), &scratch->head.flags, &inside);
	if (!inside)
		return 0;
	scratch->head.path_len = length;
	count(&seen, KIND_FILE_MODE);
	send_file(scratch, task, tag, KIND_FILE_MODE, length);
	return 0;
}
