/* What changes a file without an open, in the tier of LSM hooks: told where it is watched, refused where a policy denies it or it is the
 * agent's. And programs that are mapped instead of run, as `ld.so /path/of/program` does. */

static __always_inline int touch(u32 tried, struct file_act *act)
{
	struct tag *tag = watched(bpf_get_current_task_btf());
	struct dentry *dentry = act->dentry;
	struct vfsmount *mount = act->mount;
	u32 rule, lies = 0;

	if (!tag)
		return 0;
	act->tried = tried;
	act->inode = BPF_CORE_READ(dentry, d_inode);
	rule = judge_path(tag, dentry, mount);
	if (!rule && !silent(tag))
		lies = kept_in(dentry, mount);
	return deny_if(settle(tag, act, rule, lies));
}

/* A name in a directory, and a file by its path. */
#define NAMED(kind_is, in) {.kind = kind_is, .dentry = dentry, .mount = BPF_CORE_READ(in, mnt)}
#define FILE(kind_is) {.kind = kind_is, .dentry = BPF_CORE_READ(path, dentry), .mount = BPF_CORE_READ(path, mnt)}

SEC("lsm/path_unlink")
int BPF_PROG(touch_unlink_lsm, struct path *dir, struct dentry *dentry)
{
	struct file_act act = NAMED(KIND_FILE_DELETED, dir);

	return touch(TRIED_DELETE, &act);
}

SEC("lsm/path_rmdir")
int BPF_PROG(touch_rmdir_lsm, struct path *dir, struct dentry *dentry)
{
	struct file_act act = NAMED(KIND_FILE_DELETED, dir);

	return touch(TRIED_DELETE, &act);
}

SEC("lsm/path_chmod")
int BPF_PROG(touch_mode_lsm, struct path *path, u16 mode)
{
	struct file_act act = FILE(KIND_FILE_MODE);

	act.mode = mode;
	return touch(TRIED_MODE, &act);
}

SEC("lsm/path_chown")
int BPF_PROG(touch_owner_lsm, struct path *path, u64 user, u64 group)
{
	struct file_act act = FILE(KIND_FILE_OWNER);

	act.mode = user;
	act.group = group;
	return touch(TRIED_OWNER, &act);
}

/* truncate(2) opens nothing. */
SEC("lsm/path_truncate")
int BPF_PROG(touch_truncate_lsm, struct path *path)
{
	struct file_act act = FILE(KIND_FILE_TRUNCATED);

	return touch(TRIED_TRUNCATE, &act);
}

/* Also an open that makes the file: before it has. */
SEC("lsm/path_mknod")
int BPF_PROG(touch_mknod_lsm, struct path *dir, struct dentry *dentry, u16 mode)
{
	struct file_act act = NAMED(KIND_FILE_CREATED, dir);

	act.mode = mode & S_IFMT ? mode : S_IFREG;
	return touch(TRIED_CREATE, &act);
}

SEC("lsm/path_mkdir")
int BPF_PROG(touch_mkdir_lsm, struct path *dir, struct dentry *dentry)
{
	struct file_act act = NAMED(KIND_FILE_CREATED, dir);

	act.mode = S_IFDIR;
	return touch(TRIED_CREATE, &act);
}

SEC("lsm/path_symlink")
int BPF_PROG(touch_symlink_lsm, struct path *dir, struct dentry *dentry, const char *leads_to)
{
	struct file_act act = NAMED(KIND_FILE_CREATED, dir);

	act.mode = S_IFLNK;
	act.text = leads_to;
	return touch(TRIED_CREATE, &act);
}

/* A mount of a file system; of several the one that was made first. */
static __always_inline struct vfsmount *first_mount(struct super_block *sb)
{
	struct list_head *first;
	struct mount *mount;

	if (bpf_core_field_exists(struct mount, mnt_instance)) {
		first = BPF_CORE_READ(sb, s_mounts.next);
		if (!first || first == (void *)sb + bpf_core_field_offset(struct super_block, s_mounts))
			return 0;
		mount = (void *)first - bpf_core_field_offset(struct mount, mnt_instance);
	} else {
		mount = BPF_CORE_READ((struct super_block___later *)sb, s_mounts);
		if (!mount)
			return 0;
	}
	return (void *)mount + bpf_core_field_offset(struct mount, mnt);
}

/* Access lists, file capabilities, labels. The kernel doesn't say by which mount it is done: by that of the process's root, or of its
 * directory, where it is the same file system, else by the first. What a user may put there for himself gives nobody a right. */
static __always_inline int touch_attribute(struct dentry *dentry, const char *name)
{
	struct fs_struct *fs = BPF_CORE_READ(bpf_get_current_task_btf(), fs);
	struct super_block *sb = BPF_CORE_READ(dentry, d_sb);
	struct file_act act = {.kind = KIND_FILE_ATTRIBUTE, .dentry = dentry, .text = name};
	char space[5] = {};

	bpf_probe_read_kernel(space, sizeof(space), name);
	if (space[0] == 'u' && space[1] == 's' && space[2] == 'e' && space[3] == 'r' && space[4] == '.')
		return 0;
	if (BPF_CORE_READ(fs, root.mnt, mnt_sb) == sb)
		act.mount = BPF_CORE_READ(fs, root.mnt);
	else if (BPF_CORE_READ(fs, pwd.mnt, mnt_sb) == sb)
		act.mount = BPF_CORE_READ(fs, pwd.mnt);
	else
		act.mount = first_mount(sb);
	return touch(TRIED_MODE, &act);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(touch_attribute_lsm, void *mapping, struct dentry *dentry, const char *name)
{
	return touch_attribute(dentry, name);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(touch_attribute_gone_lsm, void *mapping, struct dentry *dentry, const char *name)
{
	return touch_attribute(dentry, name);
}

/* Since 6.2 access lists come here, and no longer by the two above. */
SEC("lsm/inode_set_acl")
int BPF_PROG(touch_acl_lsm, void *mapping, struct dentry *dentry, const char *name)
{
	return touch_attribute(dentry, name);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(touch_acl_gone_lsm, void *mapping, struct dentry *dentry, const char *name)
{
	return touch_attribute(dentry, name);
}

static const char attribute_of_flags[] = "file_setattr";

/* Flags as chattr(1) sets them, since 6.17, when they got a call that opens nothing: a file that may not be changed fails whoever has to
 * change it. */
SEC("lsm/inode_file_setattr")
int BPF_PROG(touch_flags_lsm, struct dentry *dentry)
{
	return touch_attribute(dentry, attribute_of_flags);
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
