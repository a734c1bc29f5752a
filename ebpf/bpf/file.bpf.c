/* What happens to the files that are watched, and what may not happen to those that a policy denies, in the tier of LSM hooks: the
 * hooks get the kernel's own path, after the look-up, for io_uring too; tracepoints of system calls would get a string that another
 * thread can change.
 *
 * What is watched is known by device and inode of the directories above, so bind mounts, symbolic links, other roots and other mount
 * namespaces lead to it as well. The agent's own files are known likewise, and kept from sessions: who has its key can say what never
 * was. The path_ hooks need CONFIG_SECURITY_PATH, which kernels with AppArmor have. */

/* What a record says beside who it was. `second`: the other name; `text`: what stands in its place that is no path. */
struct file_act {
	u32 kind;
	u32 mode;
	u32 group;
	u32 flags;
	u32 rule;
	u32 tried;
	struct inode *inode;
	struct dentry *dentry;
	struct vfsmount *mount;
	struct dentry *second;
	struct vfsmount *second_mount;
	const char *text;
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
	long n;

	fill_subject(&head->who, act->kind, task, tag);
	head->inode = inode ? BPF_CORE_READ(inode, i_ino) : 0;
	head->device = inode ? BPF_CORE_READ(inode, i_sb, s_dev) : 0;
	head->count = 1;
	head->mode = act->mode;
	head->rule = act->rule;
	head->tried = act->tried;
	head->group = act->group;
	at = write_file_path(place->file.data, 0, act->dentry, act->mount, task, &flags);
	head->path_len = at;
	head->second_len = 0;
	if (act->second) {
		from = at & PATH_MASK;
		at = write_file_path(place->file.data, from, act->second, act->second_mount, task, &flags);
		head->second_len = at - from;
	} else if (act->text) {
		from = at & PATH_MASK;
		opaque(from);
		if (from > PATH_MASK)
			return false;
		n = bpf_probe_read_kernel_str(place->file.data + from, NAME_CAP, act->text);
		head->second_len = n > 0 ? n : 0;
		at = from + head->second_len;
	}
	head->flags = flags;
	size = sizeof(*head) + (at & PATH_MASK);
	opaque(size);
	return size <= sizeof(place->file) && !bpf_ringbuf_output(&records, &place->file, size, 0);
}

/* A function of its own to the verifier (see judge.h). */
__noinline int tell_file(struct tag *tag, struct file_act *act)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct place *place;

	if (!tag || !act)
		return 0;
	count(&seen, act->kind);
	place = (act->rule ? full() : crowded()) ? 0 : claim();
	if (!place) {
		count(&lost, act->kind);
		return 0;
	}
	if (!send_file(place, task, tag, act))
		count(&lost, act->kind);
	if (act->kind == KIND_FILE_OPENED && !(act->flags & FILE_REFUSED))
		keep_opened(task, tag, act->inode, act->dentry, &place->file.head, place->file.data);
	release(place);
	return 0;
}

/* Where programs are pinned: what is done there to names takes them from the agent. */
static __always_inline bool on_bpffs(struct dentry *dentry)
{
	return BPF_CORE_READ(dentry, d_sb, s_magic) == BPFFS_MAGIC;
}

/* Like lies_in, for what is done to names, and to what a pin is. */
static __always_inline u32 kept_in(struct dentry *dentry, struct vfsmount *mount)
{
	return on_bpffs(dentry) ? LIES_OWN : lies_in(number_of(dentry), number_of(mount));
}

/* What becomes of an act: refused where a rule is in the way or the file is the agent's own, told where it is watched. In one place, since
 * each more would be verified by itself. */
static __always_inline int settle(struct tag *tag, struct file_act *act, u32 rule, u32 lies)
{
	if (!rule && !lies)
		return 0;
	if (rule) {
		act->kind = KIND_FILE_DENIED;
		act->rule = rule;
		act->second = 0;
		act->text = 0;
	} else {
		act->tried = 0;
		act->flags = lies == LIES_OWN ? FILE_REFUSED : 0;
	}
	if (!silent(tag))
		tell_file(tag, act);
	return rule || lies == LIES_OWN ? -EPERM : 0;
}

#define SETTING_DEPTH 64

struct top {
	struct dentry *dentry;
	u8 name; /* of the last directory below the root, its first letter */
};

static long top_step(u32 index, void *context)
{
	struct top *top = context;
	struct dentry *dentry = top->dentry, *parent = BPF_CORE_READ(dentry, d_parent);

	if (dentry == parent)
		return 1;
	bpf_probe_read_kernel(&top->name, sizeof(top->name), BPF_CORE_READ(dentry, d_name.name));
	top->dentry = parent;
	return 0;
}

/* Whether it is a file of the kernel's own that says what the kernel does: which program it runs for a crash (/proc/sys), for a device
 * (/sys), for a control group's end (cgroup1), or for another kind of program (binfmt_misc). What /proc has of processes is none. */
static __always_inline bool is_setting(struct dentry *dentry, u64 magic)
{
	struct top top = {.dentry = dentry};

	if (magic != PROC_SUPER_MAGIC)
		return magic == SYSFS_MAGIC || magic == CGROUP_SUPER_MAGIC || magic == BINFMTFS_MAGIC;
	bpf_loop(SETTING_DEPTH, top_step, &top, 0);
	return top.name < '0' || top.name > '9';
}

/* Settings that are written are watched wherever they lie. The one that switches the tracing of functions off, and our programs with it,
 * may not be. */
__noinline u32 lies_in_settings(u64 address, u32 flags)
{
	struct dentry *dentry = (struct dentry *)address;
	u64 magic = BPF_CORE_READ(dentry, d_sb, s_magic);
	u8 name[16] = {}, switches_off[16] = "ftrace_enabled";

	if (!(flags & O_ACCMODE) || !is_setting(dentry, magic))
		return 0;
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	if (magic == PROC_SUPER_MAGIC && same_16(name, switches_off))
		return LIES_OWN;
	return LIES_WATCHED;
}

SEC("lsm/file_open")
int BPF_PROG(file_open_lsm, struct file *file)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct file_act act = {.kind = KIND_FILE_OPENED, .tried = TRIED_OPEN};
	u32 rule, lies = 0;

	if (!tag)
		return 0;
	rule = judge_file(tag, file);
	act.dentry = BPF_CORE_READ(file, f_path.dentry);
	act.mount = BPF_CORE_READ(file, f_path.mnt);
	act.mode = BPF_CORE_READ(file, f_flags);
	act.inode = BPF_CORE_READ(file, f_inode);
	if (!rule && !silent(tag)) {
		if (opened_again(task, act.inode, act.dentry, act.mode)) {
			count(&seen, KIND_FILE_OPENED);
			return 0;
		}
		lies = lies_in_settings(number_of(act.dentry), act.mode);
		if (!lies)
			lies = lies_in(number_of(act.dentry), number_of(act.mount));
	}
	return deny_if(settle(tag, &act, rule, lies));
}

/* A file gets another name: its old one goes, or stays as well. */
static __always_inline int file_renamed(struct dentry *old, struct vfsmount *old_mount, struct dentry *new, struct vfsmount *new_mount,
					u32 kind)
{
	struct tag *tag = watched(bpf_get_current_task_btf());
	struct file_act act = {.kind = kind, .dentry = old, .mount = old_mount, .second = new, .second_mount = new_mount};
	u32 rule, lies = 0, there = 0;

	if (!tag)
		return 0;
	act.tried = kind == KIND_FILE_LINKED ? TRIED_LINK : TRIED_RENAME;
	act.inode = BPF_CORE_READ(old, d_inode);
	rule = judge_path(tag, old, old_mount);
	if (!rule) {
		rule = judge_path(tag, new, new_mount);
		if (rule) {
			act.dentry = new;
			act.mount = new_mount;
			act.inode = BPF_CORE_READ(new, d_inode);
		}
	}
	if (!rule && !silent(tag)) {
		lies = kept_in(old, old_mount);
		there = kept_in(new, new_mount);
		if (lies < there)
			lies = there;
	}
	return settle(tag, &act, rule, lies);
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
