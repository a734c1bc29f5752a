/* Hooks that are only there to refuse, in the tier of LSM hooks: what else would change a file that a policy denies, or make one in a
 * denied directory or where programs are pinned; and programs that are mapped instead of run, as `ld.so /path/of/program` does. */

static __always_inline int touch(u32 tried, struct dentry *dentry, struct vfsmount *vfsmount)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	u32 rule;

	if (!tag)
		return 0;
	rule = judge_path(tag, dentry, vfsmount);
	/* Nothing is to stand in the place of a pin. */
	if (!rule && (silent(tag) || tried != TRIED_CREATE || !on_bpffs(dentry)))
		return 0;
	return deny_if(refuse_file(tried, rule, task, tag, dentry, vfsmount, 0));
}

SEC("lsm/path_rmdir")
int BPF_PROG(touch_rmdir_lsm, struct path *dir, struct dentry *dentry)
{
	return touch(TRIED_DELETE, dentry, BPF_CORE_READ(dir, mnt));
}

SEC("lsm/path_chown")
int BPF_PROG(touch_owner_lsm, struct path *path)
{
	return touch(TRIED_OWNER, BPF_CORE_READ(path, dentry), BPF_CORE_READ(path, mnt));
}

/* truncate(2) opens nothing. */
SEC("lsm/path_truncate")
int BPF_PROG(touch_truncate_lsm, struct path *path)
{
	return touch(TRIED_TRUNCATE, BPF_CORE_READ(path, dentry), BPF_CORE_READ(path, mnt));
}

/* Also an open that makes the file: before it has. */
SEC("lsm/path_mknod")
int BPF_PROG(touch_mknod_lsm, struct path *dir, struct dentry *dentry)
{
	return touch(TRIED_CREATE, dentry, BPF_CORE_READ(dir, mnt));
}

SEC("lsm/path_mkdir")
int BPF_PROG(touch_mkdir_lsm, struct path *dir, struct dentry *dentry)
{
	return touch(TRIED_CREATE, dentry, BPF_CORE_READ(dir, mnt));
}

SEC("lsm/path_symlink")
int BPF_PROG(touch_symlink_lsm, struct path *dir, struct dentry *dentry)
{
	return touch(TRIED_CREATE, dentry, BPF_CORE_READ(dir, mnt));
}

/* Rules that allow don't speak of it: libraries are mapped so as well. */
SEC("lsm/mmap_file")
int BPF_PROG(touch_map_lsm, struct file *file, unsigned long asked, unsigned long protection)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct refused *record;
	struct tag *tag;
	u32 flags = 0, rule;

	if (!file || !(protection & PROT_EXEC))
		return 0;
	tag = watched(task);
	if (!tag)
		return 0;
	if (silent(tag))
		return deny_if(tag->policy == POLICY_SELF_TEST_MAPS);
	rule = judge_program(tag, file, false, &flags);
	if (!rule || flags & EXEC_NOT_ALLOWED)
		return 0;
	count(&seen, KIND_EXEC_REFUSED);
	record = full() ? 0 : bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_EXEC_REFUSED);
		return -EPERM;
	}
	fill_subject(&record->who, KIND_EXEC_REFUSED, task, tag);
	record->rule = rule;
	record->flags = 0;
	record->path_len = 0;
	record->reserved = 0;
	bpf_probe_read_kernel_str(record->given, sizeof(record->given), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	bpf_ringbuf_submit(record, 0);
	return -EPERM;
}
