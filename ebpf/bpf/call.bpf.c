/* What gives a session more than it had (act.bpf.c), in the tier without LSM hooks: by the system calls themselves.
 *
 * What would take the agent's programs away, or reach into a process that isn't the session's, ends who tried it: killed on the way in, or
 * on the way out before an instruction of its own, so that what it got is of no use. What is told is what the kernel holds after the call
 * where that can be had; strings are the process's own, which another thread may have changed meanwhile. io_uring makes none of these
 * calls; what it opens, connects and makes sockets of other families of stays unseen. */

#include "call.h"

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct identity);
} identity_before SEC(".maps");

#define TRACED_MAX 64

/* The tag of a process by its number. */
static __always_inline struct tag *tag_of_process(u32 pid)
{
	return bpf_map_lookup_elem(&processes, &pid);
}

static __always_inline struct task_struct *traced_by_entry(struct list_head *entry)
{
	return (void *)entry - bpf_core_field_offset(struct task_struct, ptrace_entry);
}

struct tracees {
	struct list_head *head;
	struct list_head *entry;
	u32 tid;
	bool found;
};

static long tracee_step(u32 index, void *context)
{
	struct tracees *tracees = context;
	struct list_head *entry = tracees->entry;
	struct task_struct *tracee = traced_by_entry(entry);

	if (entry == tracees->head)
		return 1;
	if ((u32)BPF_CORE_READ(tracee, pid) == tracees->tid) {
		tracees->found = true;
		return 1;
	}
	tracees->entry = BPF_CORE_READ(entry, next);
	return 0;
}

/* Whether the thread with that number is traced by this one: then it was asked before whether it may. */
static __always_inline bool traces(struct task_struct *task, u32 tid)
{
	struct list_head *head = (void *)task + bpf_core_field_offset(struct task_struct, ptraced);
	struct tracees tracees = {.head = head, .entry = BPF_CORE_READ(head, next), .tid = tid};

	bpf_loop(TRACED_MAX, tracee_step, &tracees, 0);
	return tracees.found;
}

/* Reads or writes another process's memory by number. In a namespace of process ids that isn't the machine's first the number says nothing
 * here: told, and let be. */
static __always_inline void judge_memory(struct task_struct *task, struct tag *tag, u32 pid)
{
	bool first = !BPF_CORE_READ(task, thread_pid, level), refuse;
	struct tag *target;

	if (pid == (u32)task->tgid || pid == (u32)task->pid)
		return;
	target = first ? tag_of_process(pid) : 0;
	refuse = first && (!target || !same_16(target->session, tag->session));
	if (refuse && traces(task, pid))
		return;
	tell_traced(task, tag, pid, 0, target, refuse, false);
	if (refuse)
		bpf_send_signal(SIGKILL);
}

/* A process was got hold of, by its kernel object, and stopped perhaps. */
static __always_inline void judge_hold(struct task_struct *task, struct tag *tag, struct task_struct *of, bool stopped)
{
	u32 pid = BPF_CORE_READ(of, tgid);
	struct tag *target;
	bool refuse;

	if (pid == (u32)task->tgid)
		return;
	target = tag_of_process(pid);
	refuse = !target || !same_16(target->session, tag->session);
	tell_traced(task, tag, pid, of->comm, target, refuse, stopped);
	if (refuse)
		bpf_send_signal(SIGKILL);
}

static __always_inline struct task_struct *task_of(struct pid *pid, bool leader)
{
	/* PIDTYPE_PID and PIDTYPE_TGID: a process's first thread has both. */
	struct hlist_node *node = leader ? BPF_CORE_READ(pid, tasks[1].first) : BPF_CORE_READ(pid, tasks[0].first);

	if (!node)
		return 0;
	return (void *)node -
	       (leader ? bpf_core_field_offset(struct task_struct, pid_links[1]) : bpf_core_field_offset(struct task_struct, pid_links[0]));
}

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = 0;

	if (fd >= BPF_CORE_READ(table, max_fds) || bpf_probe_read_kernel(&file, sizeof(file), files + fd))
		return 0;
	return file;
}

static __always_inline void judge_taken(struct task_struct *task, struct tag *tag, u32 pidfd)
{
	struct file *file = file_of(task, pidfd);
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	/* Since 6.9 they have a file system of their own. */
	bool has_inode = BPF_CORE_READ(inode, i_sb, s_magic) == PID_FS_MAGIC;
	struct pid *pid = has_inode ? BPF_CORE_READ(inode, i_private) : BPF_CORE_READ(file, private_data);

	judge_hold(task, tag, task_of(pid, true), false);
}

#define DEVICE(major, minor) ((major) << 20 | (minor))
#define MAJOR_OF_MSR 202

/* By which file the kernel itself is reached, if it is. */
static __always_inline u32 reach_by(struct inode *inode, u64 magic)
{
	u32 device;

	if (magic == TRACEFS_MAGIC)
		return REACH_TRACING;
	if (magic == DEBUGFS_MAGIC)
		return REACH_DEBUGGING;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFCHR)
		return 0;
	device = BPF_CORE_READ(inode, i_rdev);
	if (device == DEVICE(1, 1) || device == DEVICE(1, 2)) /* mem, kmem */
		return REACH_MEMORY;
	if (device == DEVICE(1, 4))
		return REACH_PORTS;
	return device >> 20 == MAJOR_OF_MSR ? REACH_REGISTERS : 0;
}

static __always_inline bool is_named(const char *name, u32 length, const char *as, u32 as_length)
{
	for (u32 i = 0; i < as_length; i++)
		if (name[i] != as[i])
			return false;
	return length == as_length;
}

static __always_inline void judge_opened(struct task_struct *task, struct tag *tag, u32 fd)
{
	struct file *file = file_of(task, fd);
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct proc_inode *proc;
	struct task_struct *of;
	struct pid *pid;
	u32 reach, length;
	char name[6] = {};
	u64 magic;

	if (!file)
		return;
	magic = BPF_CORE_READ(inode, i_sb, s_magic);
	reach = reach_by(inode, magic);
	if (reach)
		tell_reach(task, tag, reach);
	if (magic != PROC_SUPER_MAGIC)
		return;
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	length = BPF_CORE_READ(file, f_path.dentry, d_name.len);
	if (is_named(name, length, "kcore", 5))
		tell_reach(task, tag, REACH_IMAGE);
	if (!is_named(name, length, "mem", 3))
		return;
	proc = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	pid = BPF_CORE_READ(proc, pid);
	of = task_of(pid, false);
	if (of)
		judge_hold(task, tag, of, false);
}

static __always_inline void tell_reached(struct task_struct *task, struct tag *tag, u32 fd)
{
	struct file *file = file_of(task, fd);
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk), *peer;
	u16 type = BPF_CORE_READ(sk, sk_type);

	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX || (type != SOCK_STREAM && type != SOCK_SEQPACKET))
		return;
	/* What a listener accepts has its name. */
	peer = BPF_CORE_READ((struct unix_sock *)sk, peer);
	if (peer)
		tell_daemon(task, tag, BPF_CORE_READ((struct unix_sock *)peer, addr));
}

static __always_inline void tell_mount(struct task_struct *task, struct tag *tag, u64 type, u64 source, u64 flags)
{
	struct act *record = act_begin(KIND_MOUNT, task, tag);

	if (!record)
		return;
	record->number[0] = flags;
	record->number[1] = flags >> 32;
	if (type)
		bpf_probe_read_user_str(record->first, sizeof(record->first), (void *)type);
	if (source)
		bpf_probe_read_user_str(record->second, sizeof(record->second), (void *)source);
	bpf_ringbuf_submit(record, 0);
}

#define CLOCK_REALTIME 0

/* How the call that was made has set the machine's clock, if it did: others, and mere readings, are made by the same calls. */
static __always_inline u32 clock_set_by(struct call_made made, struct pt_regs *regs)
{
	u64 first = call_argument(regs, made.narrow, 0), timex = first;
	u32 modes = 0;

	switch (made.call) {
	case CALL_SETTIMEOFDAY:
		return first ? CLOCK_SET : 0;
	case CALL_CLOCK_SETTIME:
		return (u32)first == CLOCK_REALTIME ? CLOCK_SET : 0;
	case CALL_CLOCK_ADJTIME:
		if ((u32)first != CLOCK_REALTIME)
			return 0;
		timex = call_argument(regs, made.narrow, 1);
		break;
	default:
		break;
	}
	bpf_probe_read_user(&modes, sizeof(modes), (void *)timex);
	return adjusts(modes) ? CLOCK_ADJUSTED : 0;
}

/* Sockets of families that no cgroup hook sees. The kernel takes IP's with the type that packets on the wire once had for their family. */
static __always_inline void judge_family(struct task_struct *task, struct tag *tag, u32 family, u32 type, u32 protocol)
{
	struct made made = {.family = family, .type = type, .protocol = protocol};

	if (family == AF_INET && (type & SOCK_TYPE_MASK) == SOCK_PACKET)
		made.family = AF_PACKET;
	if (!judged_elsewhere(made.family) && judge_socket(task, tag, &made) == REFUSE)
		bpf_send_signal(SIGKILL);
}

#define SOCKETCALL_SOCKET 1
#define SOCKETCALL_CONNECT 3

SEC("tp_btf/sys_enter")
int BPF_PROG(call_enter, struct pt_regs *regs, long number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call_made made = call_made(task, number);
	u32 arguments[3] = {};
	struct identity *before;
	struct tag *tag;

	switch (made.call) {
	case CALL_BPF:
	case CALL_MEMORY:
	case CALL_SOCKET:
	case CALL_SOCKETCALL:
	case CALL_IDENTITY:
		break;
	default:
		return 0;
	}
	tag = watched(task);
	if (!tag || silent(tag))
		return 0;
	switch (made.call) {
	case CALL_BPF:
		if (judge_bpf(task, tag, call_argument(regs, made.narrow, 0)))
			bpf_send_signal(SIGKILL);
		break;
	case CALL_MEMORY:
		judge_memory(task, tag, call_argument(regs, made.narrow, 0));
		break;
	case CALL_SOCKET:
		judge_family(task, tag, call_argument(regs, made.narrow, 0), call_argument(regs, made.narrow, 1),
			     call_argument(regs, made.narrow, 2));
		break;
	case CALL_SOCKETCALL:
		if (call_argument(regs, made.narrow, 0) != SOCKETCALL_SOCKET)
			break;
		bpf_probe_read_user(arguments, sizeof(arguments), (void *)call_argument(regs, made.narrow, 1));
		judge_family(task, tag, arguments[0], arguments[1], arguments[2]);
		break;
	case CALL_IDENTITY:
		before = bpf_task_storage_get(&identity_before, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (before)
			*before = identity_of(task->cred);
		else
			count(&lost, KIND_USERS);
		break;
	default:
		break;
	}
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_exit, struct pt_regs *regs, long returned)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call_made made = call_made(task, call_number(regs));
	struct identity *before, after;
	u32 arguments[3] = {}, clock;
	u64 request;
	struct tag *tag;

	if (made.call == CALL_OTHER || returned < 0)
		return 0;
	tag = watched(task);
	if (!tag || silent(tag))
		return 0;
	switch (made.call) {
	case CALL_CONNECT:
		tell_reached(task, tag, call_argument(regs, made.narrow, 0));
		break;
	case CALL_SOCKETCALL:
		if (call_argument(regs, made.narrow, 0) != SOCKETCALL_CONNECT)
			break;
		bpf_probe_read_user(arguments, sizeof(arguments), (void *)call_argument(regs, made.narrow, 1));
		tell_reached(task, tag, arguments[0]);
		break;
	case CALL_ADJTIMEX:
	case CALL_CLOCK_ADJTIME:
	case CALL_CLOCK_SETTIME:
	case CALL_SETTIMEOFDAY:
		clock = clock_set_by(made, regs);
		if (clock)
			tell_reach(task, tag, clock);
		break;
	case CALL_KEXEC:
		tell_reach(task, tag, REACH_SUCCESSOR);
		break;
	case CALL_PORTS:
		tell_reach(task, tag, REACH_PORTS);
		break;
	case CALL_MOUNT:
		tell_mount(task, tag, call_argument(regs, made.narrow, 2), call_argument(regs, made.narrow, 0),
			   call_argument(regs, made.narrow, 3));
		break;
	case CALL_MOVE_MOUNT:
		tell_mount(task, tag, 0, call_argument(regs, made.narrow, 3), 0);
		break;
	case CALL_OPEN:
		judge_opened(task, tag, returned);
		break;
	case CALL_PIDFD_GETFD:
		judge_taken(task, tag, call_argument(regs, made.narrow, 0));
		break;
	case CALL_PTRACE:
		request = call_argument(regs, made.narrow, 0);
		/* Whom it traces since then stands first. */
		if (request == PTRACE_ATTACH || request == PTRACE_SEIZE)
			judge_hold(task, tag, traced_by_entry(BPF_CORE_READ(task, ptraced.next)), request == PTRACE_ATTACH);
		break;
	case CALL_IDENTITY:
		before = bpf_task_storage_get(&identity_before, task, 0, 0);
		if (!before)
			break;
		after = identity_of(task->cred);
		tell_identity(task, tag, before, &after);
		break;
	default:
		break;
	}
	return 0;
}
