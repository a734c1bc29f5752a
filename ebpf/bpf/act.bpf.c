/* What gives a session more than it had: other ids of users and groups, kernel modules, BPF, another process's memory, mounts. Told; and refused where
 * it would take the agent's own programs away, or reach into a process that isn't the session's. */

#define BPF_CMD_OBJ_GET 7
#define BPF_CMD_PROG_BY_ID 13
#define BPF_CMD_MAP_BY_ID 14
#define BPF_CMD_LINK_BY_ID 30
#define BPF_CMD_PROG_LOAD 5
#define BPF_CMD_LINK_CREATE 28
#define BPF_CMD_PROG_ATTACH 8
#define BPF_CMD_RAW_TRACEPOINT 17

SEC("tp_btf/module_load")
int BPF_PROG(act_module, struct module *module)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct act *record;

	if (!tag || silent(tag))
		return 0;
	record = act_begin(KIND_MODULE, task, tag);
	if (!record)
		return 0;
	bpf_probe_read_kernel_str(record->first, sizeof(record->first), module->name);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/* Of users, or of groups: real, effective, saved, and the one that files are reached by. */
struct ids {
	u32 id[4];
};
struct identity {
	struct ids users;
	struct ids groups;
};

static __always_inline struct identity identity_of(const struct cred *cred)
{
	return (struct identity){
		.users = {{BPF_CORE_READ(cred, uid.val), BPF_CORE_READ(cred, euid.val), BPF_CORE_READ(cred, suid.val),
			   BPF_CORE_READ(cred, fsuid.val)}},
		.groups = {{BPF_CORE_READ(cred, gid.val), BPF_CORE_READ(cred, egid.val), BPF_CORE_READ(cred, sgid.val),
			    BPF_CORE_READ(cred, fsgid.val)}},
	};
}

static __always_inline void tell_ids(u16 kind, struct task_struct *task, struct tag *tag, const struct ids *old, const struct ids *new)
{
	struct act *record;

	if (old->id[0] == new->id[0] && old->id[1] == new->id[1] && old->id[2] == new->id[2] && old->id[3] == new->id[3])
		return;
	record = act_begin(kind, task, tag);
	if (!record)
		return;
	__builtin_memcpy(record->number, old->id, sizeof(old->id));
	__builtin_memcpy(record->number + 4, new->id, sizeof(new->id));
	bpf_ringbuf_submit(record, 0);
}

static __always_inline void tell_identity(struct task_struct *task, struct tag *tag, const struct identity *old, const struct identity *new)
{
	tell_ids(KIND_USERS, task, tag, &old->users, &new->users);
	tell_ids(KIND_GROUPS, task, tag, &old->groups, &new->groups);
}

static __always_inline int become(const struct cred *new, const struct cred *old)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct identity before, after;

	if (!tag || silent(tag))
		return 0;
	before = identity_of(old);
	after = identity_of(new);
	tell_identity(task, tag, &before, &after);
	return 0;
}

SEC("lsm/task_fix_setuid")
int BPF_PROG(act_setuid_lsm, struct cred *new, struct cred *old)
{
	return become(new, old);
}

SEC("lsm/task_fix_setgid")
int BPF_PROG(act_setgid_lsm, struct cred *new, struct cred *old)
{
	return become(new, old);
}

/* Tells of it; gives whether it may not be. */
static __always_inline bool judge_bpf(struct task_struct *task, struct tag *tag, u32 command)
{
	struct act *record;
	bool refuse;

	/* The ways to objects of others, and so to our maps. */
	refuse = command == BPF_CMD_OBJ_GET || command == BPF_CMD_PROG_BY_ID || command == BPF_CMD_MAP_BY_ID || command == BPF_CMD_LINK_BY_ID;
	if (!refuse && command != BPF_CMD_PROG_LOAD && command != BPF_CMD_LINK_CREATE && command != BPF_CMD_PROG_ATTACH &&
	    command != BPF_CMD_RAW_TRACEPOINT)
		return false;
	record = act_begin(KIND_BPF, task, tag);
	if (record) {
		record->number[0] = command;
		record->number[1] = refuse;
		bpf_ringbuf_submit(record, 0);
	}
	return refuse;
}

SEC("lsm/bpf")
int BPF_PROG(act_bpf_lsm, int command)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);

	if (!tag || silent(tag))
		return 0;
	return deny_if(judge_bpf(task, tag, command));
}

static __always_inline void tell_reach(struct task_struct *task, struct tag *tag, u32 reach)
{
	struct act *record = act_begin(KIND_KERNEL, task, tag);

	if (!record)
		return;
	record->number[0] = reach;
	bpf_ringbuf_submit(record, 0);
}

/* Without a mode, or with this one, it only reads (adjtimex(2)). */
#define ADJ_OFFSET_SS_READ 0xa001

static __always_inline bool adjusts(u32 modes)
{
	return modes && modes != ADJ_OFFSET_SS_READ;
}

#define IS_REASON(what, name) \
	(bpf_core_enum_value_exists(enum lockdown_reason, name) && (what) == bpf_core_enum_value(enum lockdown_reason, name))

/* What of it isn't told otherwise already, as modules and programs are. */
static __always_inline u32 reach_of(u32 what)
{
	if (IS_REASON(what, LOCKDOWN_DEV_MEM))
		return REACH_MEMORY;
	if (IS_REASON(what, LOCKDOWN_KCORE))
		return REACH_IMAGE;
	if (IS_REASON(what, LOCKDOWN_KEXEC))
		return REACH_SUCCESSOR;
	if (IS_REASON(what, LOCKDOWN_IOPORT))
		return REACH_PORTS;
	if (IS_REASON(what, LOCKDOWN_MSR))
		return REACH_REGISTERS;
	if (IS_REASON(what, LOCKDOWN_PCI_ACCESS))
		return REACH_DEVICES;
	if (IS_REASON(what, LOCKDOWN_ACPI_TABLES))
		return REACH_FIRMWARE;
	if (IS_REASON(what, LOCKDOWN_TRACEFS))
		return REACH_TRACING;
	if (IS_REASON(what, LOCKDOWN_KPROBES))
		return REACH_PROBES;
	if (IS_REASON(what, LOCKDOWN_DEBUGFS))
		return REACH_DEBUGGING;
	return 0;
}

/* The kernel asks whether it is locked down before anybody gets at it past its own rules, whether it is or not. */
SEC("lsm/locked_down")
int BPF_PROG(act_reach_lsm, u32 what)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	u32 reach;

	if (!tag || silent(tag))
		return 0;
	reach = reach_of(what);
	if (reach)
		tell_reach(task, tag, reach);
	return 0;
}

static __always_inline void tell_clock(u32 how)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);

	if (tag && !silent(tag))
		tell_reach(task, tag, how);
}

/* What is done by then: a hook that is asked before would know of one of the two only. */
SEC("fexit/do_settimeofday64")
int BPF_PROG(act_clock_set, const void *to, int failed)
{
	if (!failed)
		tell_clock(CLOCK_SET);
	return 0;
}

SEC("fexit/do_adjtimex")
int BPF_PROG(act_clock_adjust, struct __kernel_timex *by, int state)
{
	if (state >= 0 && adjusts(by->modes))
		tell_clock(CLOCK_ADJUSTED);
	return 0;
}

/* Another process is reached into, which is of the session `target`, or of none that is known. */
static __always_inline void tell_traced(struct task_struct *task, struct tag *tag, u32 pid, const char *comm, struct tag *target, bool refuse,
					bool stopped)
{
	struct act *record = act_begin(KIND_PTRACE, task, tag);

	if (!record)
		return;
	record->number[0] = pid;
	record->number[1] = refuse;
	record->number[2] = stopped;
	if (comm)
		bpf_probe_read_kernel(record->first, sizeof(task->comm), comm);
	if (target)
		__builtin_memcpy(record->session, target->session, 16);
	bpf_ringbuf_submit(record, 0);
}

/* Also process_vm_writev and writes to /proc/PID/mem. Reading what ps reads is no attach. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(act_ptrace_lsm, struct task_struct *child, unsigned int mode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task), *target;
	bool refuse;

	if (!tag || silent(tag) || !(mode & PTRACE_MODE_ATTACH))
		return 0;
	target = tag_of(child);
	refuse = !target || !same_16(target->session, tag->session);
	tell_traced(task, tag, child->tgid, child->comm, target, refuse, false);
	return deny_if(refuse);
}

#define MS_MOVE 0x2000

/* Whether it is one of the host's own mounts, and has pins: moved into another one, it would go with that. */
static __always_inline bool holds_pins(struct vfsmount *mount)
{
	struct mount *whole = (void *)mount - bpf_core_field_offset(struct mount, mnt);

	return BPF_CORE_READ(mount, mnt_root, d_sb, s_magic) == BPFFS_MAGIC &&
	       (u64)BPF_CORE_READ(whole, mnt_ns) == control_get(CONTROL_MOUNTS);
}

static __always_inline bool sees_host_mounts(struct task_struct *task)
{
	return (u64)BPF_CORE_READ(task, nsproxy, mnt_ns) == control_get(CONTROL_MOUNTS);
}

/* What is mounted over pins, or over the agent's files, hides them. What the old call moves it names by a path only: on the host nothing is
 * moved by it. */
SEC("lsm/sb_mount")
int BPF_PROG(act_mount_lsm, const char *source, struct path *path, const char *type, unsigned long flags)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct act *record;
	bool refuse;

	if (!tag || silent(tag))
		return 0;
	refuse = (flags & MS_MOVE && sees_host_mounts(task)) || kept_in(BPF_CORE_READ(path, dentry), BPF_CORE_READ(path, mnt)) == LIES_OWN;
	record = act_begin(KIND_MOUNT, task, tag);
	if (!record)
		return deny_if(refuse);
	record->number[0] = flags;
	record->number[1] = flags >> 32;
	record->number[2] = refuse;
	bpf_probe_read_kernel_str(record->first, sizeof(record->first), type);
	bpf_probe_read_kernel_str(record->second, sizeof(record->second), source);
	bpf_ringbuf_submit(record, 0);
	return deny_if(refuse);
}

/* The new way to mount: fsopen, fsmount, move_mount; and bind mounts by open_tree. */
SEC("lsm/move_mount")
int BPF_PROG(act_move_mount_lsm, struct path *from, struct path *to)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct act *record;
	bool refuse;

	if (!tag || silent(tag))
		return 0;
	refuse = holds_pins(BPF_CORE_READ(from, mnt)) || kept_in(BPF_CORE_READ(to, dentry), BPF_CORE_READ(to, mnt)) == LIES_OWN;
	record = act_begin(KIND_MOUNT, task, tag);
	if (!record)
		return deny_if(refuse);
	record->number[2] = refuse;
	bpf_probe_read_kernel_str(record->second, sizeof(record->second), BPF_CORE_READ(to, dentry, d_name.name));
	bpf_ringbuf_submit(record, 0);
	return deny_if(refuse);
}

/* The host's root with all that is mounted below it, as it can be taken away at once (MNT_DETACH). A session's own namespace has copies. */
static __always_inline bool is_host_root(struct task_struct *task, struct vfsmount *mount)
{
	return (u64)BPF_CORE_READ(mount, mnt_root) == control_get(CONTROL_ROOT) && sees_host_mounts(task);
}

/* A bpffs that is unmounted takes its pins with it, as does what it is mounted in: usually that is sysfs. */
SEC("lsm/sb_umount")
int BPF_PROG(act_umount_lsm, struct vfsmount *mount)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct act *record;
	u64 magic;

	if (!tag || silent(tag))
		return 0;
	magic = BPF_CORE_READ(mount, mnt_root, d_sb, s_magic);
	if (magic != BPFFS_MAGIC && magic != SYSFS_MAGIC && !is_host_root(task, mount))
		return 0;
	record = act_begin(KIND_MOUNT, task, tag);
	if (record) {
		record->number[2] = 1;
		bpf_ringbuf_submit(record, 0);
	}
	return -EPERM;
}

/* By the name that the listener bound. */
static __always_inline void tell_daemon(struct task_struct *task, struct tag *tag, struct unix_address *address)
{
	struct act *record = act_begin(KIND_UNIX, task, tag);
	u32 length;

	if (!record)
		return;
	length = BPF_CORE_READ(address, len) - 2; /* without the family in front */
	opaque(length);
	if (length <= 108)
		bpf_probe_read_kernel(record->second, length, (void *)address + bpf_core_field_offset(struct unix_address, name) + 2);
	record->number[0] = length;
	bpf_ringbuf_submit(record, 0);
}

/* A socket in a file system is reached without an open. */
static __always_inline int judge_unix(struct tag *tag, struct unix_sock *peer)
{
	struct dentry *dentry = BPF_CORE_READ(peer, path.dentry);
	struct file_act act = {.tried = TRIED_CONNECT, .dentry = dentry, .mount = BPF_CORE_READ(peer, path.mnt)};

	if (!dentry)
		return 0;
	act.inode = BPF_CORE_READ(dentry, d_inode);
	return settle(tag, &act, judge_path(tag, dentry, act.mount), 0);
}

/* Who asks a daemon to do something leaves the session's tree there (docker, systemd, tmux): the connection is what can be seen of it. */
SEC("lsm/unix_stream_connect")
int BPF_PROG(act_unix_lsm, struct sock *sock, struct sock *other)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct unix_sock *listener = (struct unix_sock *)other;
	struct tag *tag = watched(task);

	if (!tag)
		return 0;
	if (judge_unix(tag, listener))
		return -EPERM;
	if (silent(tag))
		return 0;
	tell_daemon(task, tag, BPF_CORE_READ(listener, addr));
	return 0;
}

/* Datagrams, each of them: told only where they may not be, since most are lines for the system's log. */
SEC("lsm/unix_may_send")
int BPF_PROG(act_unix_send_lsm, struct socket *sock, struct socket *other)
{
	struct tag *tag = watched(bpf_get_current_task_btf());

	if (!tag)
		return 0;
	return deny_if(judge_unix(tag, (struct unix_sock *)BPF_CORE_READ(other, sk)));
}
