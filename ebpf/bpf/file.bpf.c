/* What happens to the files that are watched, and what may not happen to those that a policy denies, in the tier of LSM hooks: the
 * hooks get the kernel's own path, after the look-up, for io_uring too; tracepoints of system calls would get a string that another
 * thread can change.
 *
 * What is watched is known by device and inode of the directories above, so bind mounts, symbolic links and other mount namespaces
 * lead to it as well. The path_ hooks need CONFIG_SECURITY_PATH, which kernels with AppArmor have. */

/* What a record says beside who it was. `second`: the other name. */
struct file_act {
	u32 kind;
	u32 mode;
	u32 flags;
	u32 rule;
	u32 tried;
	struct inode *inode;
	struct dentry *dentry;
	struct vfsmount *mount;
	struct dentry *second;
	struct vfsmount *second_mount;
};

static __always_inline u32 write_file_path(u8 *out, u32 at, struct dentry *dentry, struct vfsmount *mount, struct task_struct *task,
					   u32 *flags)
{
	u32 found = 0;

	at = write_path(out, at, dentry, mount, BPF_CORE_READ(task, fs), &found, FILE_CUT);
	*flags |= found & FILE_CUT;
	if (found & EXEC_UNREACHABLE)
		*flags |= FILE_UNREACHABLE;
	return at;
}

/* Puts the record together; gives whether it went into the ring. */
static __always_inline bool send_file(struct place *place, struct task_struct *task, struct tag *tag, const struct file_act *act)
{
	struct file_event *head = &place->file.head;
	struct inode *inode = act->inode;
	u32 flags = act->flags, at, from;
	u64 size;

	fill_subject(&head->who, act->kind, task, tag);
	head->inode = inode ? BPF_CORE_READ(inode, i_ino) : 0;
	head->device = inode ? BPF_CORE_READ(inode, i_sb, s_dev) : 0;
	head->count = 1;
	head->mode = act->mode;
	head->rule = act->rule;
	head->tried = act->tried;
	head->reserved = 0;
	at = write_file_path(place->file.data, 0, act->dentry, act->mount, task, &flags);
	head->path_len = at;
	head->second_len = 0;
	if (act->second) {
		from = at & PATH_MASK;
		at = write_file_path(place->file.data, from, act->second, act->second_mount, task, &flags);
		head->second_len = at - from;
	}
	head->flags = flags;
	size = sizeof(*head) + (at & PATH_MASK);
	opaque(size);
	return size <= sizeof(place->file) && !bpf_ringbuf_output(&records, &place->file, size, 0);
}

static __always_inline void tell_file(struct task_struct *task, struct tag *tag, const struct file_act *act)
{
	struct place *place;

	count(&seen, act->kind);
	place = act->rule && full() ? 0 : claim();
	if (!place) {
		count(&lost, act->kind);
		return;
	}
	if (!send_file(place, task, tag, act))
		count(&lost, act->kind);
	if (act->kind == KIND_FILE_OPENED)
		keep_opened(task, tag, &place->file.head, place->file.data);
	release(place);
}

/* A rule of the policy is in the way. */
static __always_inline int refuse_file(u32 tried, u32 rule, struct task_struct *task, struct tag *tag, struct dentry *dentry,
				       struct vfsmount *mount, u32 mode)
{
	struct file_act act = {
		.kind = KIND_FILE_DENIED,
		.mode = mode,
		.rule = rule,
		.tried = tried,
		.inode = BPF_CORE_READ(dentry, d_inode),
		.dentry = dentry,
		.mount = mount,
	};

	if (!silent(tag))
		tell_file(task, tag, &act);
	return -EPERM;
}

SEC("lsm/file_open")
int BPF_PROG(file_open_lsm, struct file *file, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct file_act act = {.kind = KIND_FILE_OPENED};
	u32 rule;

	if (ret)
		return ret;
	if (!tag)
		return 0;
	rule = judge_file(tag, file);
	act.dentry = BPF_CORE_READ(file, f_path.dentry);
	act.mount = BPF_CORE_READ(file, f_path.mnt);
	act.mode = BPF_CORE_READ(file, f_flags);
	if (rule)
		return deny_if(refuse_file(TRIED_OPEN, rule, task, tag, act.dentry, act.mount, act.mode));
	if (silent(tag))
		return 0;
	act.inode = BPF_CORE_READ(file, f_inode);
	if (opened_again(task, act.inode, act.mode))
		count(&seen, KIND_FILE_OPENED);
	else if (lies_in_watched(act.dentry, act.mount, BPF_CORE_READ(task, fs)))
		tell_file(task, tag, &act);
	return 0;
}

/* Where programs are pinned: what is done there to names takes them from the agent. */
static __always_inline bool on_bpffs(struct dentry *dentry)
{
	return BPF_CORE_READ(dentry, d_sb, s_magic) == BPFFS_MAGIC;
}

/* A file gets another name: its old one goes, or stays as well. */
static __always_inline int file_renamed(struct dentry *old, struct vfsmount *old_mount, struct dentry *new, struct vfsmount *new_mount,
					u32 kind)
{
	u32 tried = kind == KIND_FILE_LINKED ? TRIED_LINK : TRIED_RENAME, rule;
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct file_act act = {.kind = kind, .dentry = old, .mount = old_mount, .second = new, .second_mount = new_mount};
	struct fs_struct *fs;
	bool pin;

	if (!tag)
		return 0;
	rule = judge_path(tag, old, old_mount);
	if (rule)
		return refuse_file(tried, rule, task, tag, old, old_mount, 0);
	rule = judge_path(tag, new, new_mount);
	if (rule)
		return refuse_file(tried, rule, task, tag, new, new_mount, 0);
	if (silent(tag))
		return 0;
	/* Nobody leads out of a bpffs, so one of the names does for both. */
	pin = on_bpffs(old);
	fs = BPF_CORE_READ(task, fs);
	if (!pin && !lies_in_watched(old, old_mount, fs) && !lies_in_watched(new, new_mount, fs))
		return 0;
	act.inode = BPF_CORE_READ(old, d_inode);
	act.flags = pin ? FILE_REFUSED : 0;
	tell_file(task, tag, &act);
	return pin ? -EPERM : 0;
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
	struct file_act act = {.kind = KIND_FILE_DELETED, .inode = inode, .dentry = dentry, .mount = BPF_CORE_READ(dir, mnt)};
	bool pin;
	u32 rule;

	if (ret)
		return ret;
	if (!tag)
		return 0;
	rule = judge_path(tag, dentry, act.mount);
	if (rule)
		return deny_if(refuse_file(TRIED_DELETE, rule, task, tag, dentry, act.mount, 0));
	if (silent(tag))
		return 0;
	/* A pin that goes takes a program with it. */
	pin = on_bpffs(dentry);
	if (!pin && !lies_in_watched(dentry, act.mount, BPF_CORE_READ(task, fs)))
		return 0;
	act.flags = pin ? FILE_REFUSED : 0;
	tell_file(task, tag, &act);
	return deny_if(pin);
}

SEC("lsm/path_chmod")
int BPF_PROG(file_chmod_lsm, struct path *path, u16 mode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct dentry *dentry = BPF_CORE_READ(path, dentry);
	struct file_act act = {.kind = KIND_FILE_MODE, .mode = mode, .dentry = dentry, .mount = BPF_CORE_READ(path, mnt)};
	u32 rule;

	if (!tag)
		return 0;
	rule = judge_path(tag, dentry, act.mount);
	if (rule)
		return deny_if(refuse_file(TRIED_MODE, rule, task, tag, dentry, act.mount, mode));
	if (silent(tag) || !lies_in_watched(dentry, act.mount, BPF_CORE_READ(task, fs)))
		return 0;
	act.inode = BPF_CORE_READ(dentry, d_inode);
	tell_file(task, tag, &act);
	return 0;
}
