/* What ran, and how it ended.
 *
 * An exec is told after it has happened (sched_process_exec), from what the kernel itself will run: the file of the new image, the
 * arguments as they lie in the new address space. Nothing that another thread could have swapped meanwhile is read, failed execs are
 * none, and a chain of interpreters is one. The hook runs before the new program's first instruction, so SIGKILL there is a refusal.
 *
 * The record is put together in memory of this CPU and copied out with the length that it has, since nearly all are small. Nobody comes
 * between: each copy of process_exec has such memory for itself, isn't moved to another CPU while it runs, and the kernel
 * doesn't run it where it is active already. Programs of LSM hooks have no such memory (place.h).
 *
 * Where tracepoints' programs are preempted (Linux 7.3 was seen to do it), one that is active on a CPU is left out there for others. So
 * those on which all depends are there twice: what the first is left out for, the second does. */

#define ARGS_CHUNK 4096

struct exec_scratch {
	struct executed head;
	u8 data[SCRATCH_DATA];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* the loader sets two for each CPU, one for each copy */
	__type(key, u32);
	__type(value, struct exec_scratch);
} exec_scratch SEC(".maps");

static __always_inline void fill_identity(struct executed *head, struct task_struct *task)
{
	struct cred *cred = (struct cred *)BPF_CORE_READ(task, cred);

	head->gid = BPF_CORE_READ(cred, gid.val);
	head->euid = BPF_CORE_READ(cred, euid.val);
	head->egid = BPF_CORE_READ(cred, egid.val);
	head->loginuid = bpf_core_field_exists(task->loginuid) ? BPF_CORE_READ(task, loginuid.val) : (u32)-1;
	/* Two words of 32 bits before 6.3, one of 64 since: the same on machines that keep the low byte first. */
	bpf_probe_read_kernel(&head->permitted, sizeof(head->permitted), &cred->cap_permitted);
	head->cgroup = bpf_get_current_cgroup_id();
	head->mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	__builtin_memset(head->tty, 0, sizeof(head->tty));
	bpf_probe_read_kernel_str(head->tty, sizeof(head->tty), BPF_CORE_READ(task, signal, tty, name));
}

/* The arguments, page by page, so that one that isn't there costs only what follows it. Gives how many bytes were read. */
static __always_inline u32 write_args(u8 *to, u64 from, u64 total, u32 *flags)
{
	u32 done = 0;

	if (total > ARGS_MAX)
		*flags |= EXEC_ARGS_CUT;
#pragma unroll
	for (u32 i = 0; i < ARGS_MAX / ARGS_CHUNK; i++) {
		u64 left = total - i * ARGS_CHUNK;
		u32 len;

		if (i * ARGS_CHUNK >= total)
			break;
		len = left < ARGS_CHUNK ? left : ARGS_CHUNK;
		opaque(len);
		if (len > ARGS_CHUNK)
			break;
		if (bpf_probe_read_user(to + i * ARGS_CHUNK, len, (void *)(from + i * ARGS_CHUNK))) {
			*flags |= EXEC_ARGS_UNREADABLE;
			break;
		}
		done = i * ARGS_CHUNK + len;
	}
	return done;
}

/* Puts the record together; gives whether it went into the ring. */
static __always_inline bool send_refused(struct place *place, struct task_struct *task, struct tag *tag, struct linux_binprm *bprm, u32 rule,
					 u32 flags)
{
	struct refused *head = &place->refused.head;
	struct file *file = BPF_CORE_READ(bprm, file);
	u32 length;
	u64 size;

	fill_subject(&head->who, KIND_EXEC_REFUSED, task, tag);
	bpf_probe_read_kernel_str(head->given, sizeof(head->given), BPF_CORE_READ(bprm, filename));
	length = write_path(place->refused.data, 0, BPF_CORE_READ(file, f_path.dentry), BPF_CORE_READ(file, f_path.mnt),
			    BPF_CORE_READ(task, fs), &flags, EXEC_PATH_CUT);
	head->rule = rule;
	head->flags = flags;
	head->path_len = length;
	head->reserved = 0;
	size = sizeof(*head) + (length & PATH_MASK);
	opaque(size);
	return size <= sizeof(place->refused) && !bpf_ringbuf_output(&records, &place->refused, size, 0);
}

/* In the tier of LSM hooks an exec that may not be, or couldn't be told, fails, and the process that tried it goes on. The hook runs
 * once for each level of interpreters, a script before what runs it; the first refusal is the last. */
SEC("lsm/bprm_check_security")
int BPF_PROG(process_check_lsm, struct linux_binprm *bprm, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 flags = 0, rule = RULE_CLOSED;
	struct place *place;
	struct tag *tag;

	if (ret)
		return ret;
	tag = watched(task);
	if (!tag)
		return 0;
	if (!closed(tag)) {
		if (tag->policy == POLICY_SELF_TEST_MAPS)
			return 0;
		rule = judge_program(tag, BPF_CORE_READ(bprm, file), false, &flags);
	}
	if (!rule)
		return 0;
	if (silent(tag))
		return -EPERM;
	count(&seen, KIND_EXEC_REFUSED);
	place = full() ? 0 : claim();
	if (!place) {
		count(&lost, KIND_EXEC_REFUSED);
		return -EPERM;
	}
	if (!send_refused(place, task, tag, bprm, rule, flags))
		count(&lost, KIND_EXEC_REFUSED);
	release(place);
	return -EPERM;
}

/* Writes a length where it belongs and gives it as something that the verifier knows nothing of: what it knows would be one more way to
 * go on, for each of those before it. */
static __always_inline u32 length_in(u32 *field, u32 length)
{
	*(volatile u32 *)field = length;
	return *(volatile u32 *)field;
}

/* Puts the record together, whose flags and rule stand in it already, and sends it; gives whether it could. No part of process_exec,
 * whose stack judging takes. */
static __noinline bool tell_executed(struct task_struct *task, struct linux_binprm *bprm, struct tag *tag, struct exec_scratch *scratch)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct file *file = BPF_CORE_READ(bprm, file);
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct executed *head = &scratch->head;
	u64 args, size;
	u32 at, from;
	long n;

	fill_subject(&head->who, KIND_EXECUTED, task, tag);
	/* The very time that the end of this program names. */
	head->who.time = tag->executed;
	fill_identity(head, task);
	if ((u64)BPF_CORE_READ(fs, root.dentry) != control_get(CONTROL_ROOT))
		head->flags |= EXEC_OTHER_ROOT;

	head->inode = BPF_CORE_READ(inode, i_ino);
	head->device = BPF_CORE_READ(inode, i_sb, s_dev);
	if (!BPF_CORE_READ(inode, i_nlink))
		head->flags |= EXEC_UNLINKED;
	at = length_in(&head->path_len, write_path(scratch->data, 0, BPF_CORE_READ(file, f_path.dentry), BPF_CORE_READ(file, f_path.mnt), fs,
						   &head->flags, EXEC_PATH_CUT));

	from = at & PATH_MASK;
	opaque(from);
	if (from > PATH_MASK)
		return false;
	n = bpf_probe_read_kernel_str(scratch->data + from, GIVEN_CAP, BPF_CORE_READ(bprm, filename));
	at = from + length_in(&head->given_len, n > 0 ? n : 0);

	head->interpreter_len = 0;
	if (head->flags & EXEC_SCRIPT) {
		from = at & PATH_MASK;
		opaque(from);
		if (from > PATH_MASK)
			return false;
		n = bpf_probe_read_kernel_str(scratch->data + from, NAME_CAP, BPF_CORE_READ(bprm, interp));
		at = from + length_in(&head->interpreter_len, n > 0 ? n : 0);
	}

	from = at & PATH_MASK;
	at = write_path(scratch->data, from, BPF_CORE_READ(fs, pwd.dentry), BPF_CORE_READ(fs, pwd.mnt), fs, &head->flags, EXEC_CWD_CUT);
	at = from + length_in(&head->cwd_len, at - from);

	from = at & PATH_MASK;
	opaque(from);
	if (from > PATH_MASK)
		return false;
	args = BPF_CORE_READ(task, mm, arg_start);
	size = BPF_CORE_READ(task, mm, arg_end) - args;
	head->args_total = size;
	head->argc = BPF_CORE_READ(bprm, argc);
	at = from + length_in(&head->args_len, write_args(scratch->data + from, args, size, &head->flags));

	if (head->rule)
		head->flags |= EXEC_REFUSED;
	size = sizeof(*head) + (at & 0xffff);
	opaque(size);
	return size <= sizeof(*scratch) && !bpf_ringbuf_output(&records, scratch, size, 0);
}

static __always_inline int execute(struct task_struct *task, struct linux_binprm *bprm, u32 copy)
{
	u32 slot = bpf_get_smp_processor_id() * 2 + copy;
	u64 execution = BPF_CORE_READ(task, self_exec_id);
	struct tag *tag = watched(task);
	struct exec_scratch *scratch;
	struct executed *head;
	bool script;

	if (!tag || tag->execution == execution)
		return 0;
	tag->execution = execution;
	if (silent(tag)) {
		if (closed(tag))
			bpf_send_signal(SIGKILL);
		return 0;
	}
	count(&seen, KIND_EXECUTED);
	tag->executed = bpf_ktime_get_boot_ns();
	tag->exited = 0;
	tag->untold = 0;
	scratch = bpf_map_lookup_elem(&exec_scratch, &slot);
	if (!scratch || full())
		goto lost;
	head = &scratch->head;
	script = BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename);
	head->flags = script ? EXEC_SCRIPT : 0;
	/* By LSM it was asked before, of the script too, and the exec failed. */
	head->rule = closed(tag) ? RULE_CLOSED : judge_program(tag, BPF_CORE_READ(bprm, file), script, &head->flags);
	if (!tell_executed(task, bprm, tag, scratch))
		goto lost;
	if (head->rule)
		bpf_send_signal(SIGKILL);
	return 0;
lost:
	tag->untold = 1;
	count(&lost, KIND_EXECUTED);
	bpf_send_signal(SIGKILL);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	return execute(task, bprm, 0);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec_again, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	return execute(task, bprm, 1);
}

/* One end for each process, told by whichever thread is last to see that none lives. `live` alone doesn't do: threads that end
 * together all find it zero, and the leader may be gone long before. */
static __always_inline int end(struct task_struct *task)
{
	struct signal_struct *signal = BPF_CORE_READ(task, signal);
	struct task_struct *leader = task->group_leader;
	struct tag *tag = watched(task), *process;
	bool last = !BPF_CORE_READ(signal, live.counter);
	struct exited *record;
	u32 pid;

	if (!tag || silent(tag) || !leader)
		return 0;
	if (last || task == leader)
		tell_opened_again(task, leader, tag);
	if (!last)
		return 0;
	process = bpf_task_storage_get(&tags, leader, 0, 0);
	if (!process)
		process = tag;
	if (__sync_val_compare_and_swap(&process->exited, 0, 1))
		return 0;
	pid = task->tgid;
	bpf_map_delete_elem(&processes, &pid);
	count(&seen, KIND_EXITED);
	/* The ends of programs that couldn't be told don't take the room of those that were. */
	record = 0;
	if (!process->untold || !full())
		record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_EXITED);
		return 0;
	}
	fill_subject(&record->who, KIND_EXITED, task, process);
	record->executed = process->executed;
	/* Since 5.18 the last thread's code is the group's; before, the leader's own is what wait(2) gives. */
	if (BPF_CORE_READ(signal, flags) & SIGNAL_GROUP_EXIT)
		record->status = BPF_CORE_READ(signal, group_exit_code);
	else
		record->status = BPF_CORE_READ(leader, exit_code);
	record->reserved = 0;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	return end(task);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit_again, struct task_struct *task)
{
	return end(task);
}
