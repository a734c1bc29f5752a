/* Which process belongs to which session.
 *
 * The agent puts the four-tuple of a connection that the proxy is about to open into `tuples`. Whoever first reads from the accepted
 * socket is the session's: in sshd that is the child that was forked for the connection, before it has read a byte of the client's.
 * The hook is sock_recv_length (since 6.3): it runs in the reader's context, with the socket, whatever the system call was. The side
 * that connected has the mirrored tuple and never matches, so both ends may be on one host.
 *
 * From then on the tag is inherited: sched_process_fork (as old as tracing) runs in the parent for each fork, clone and thread. */

static __always_inline void map_address(u8 *to, u32 v4)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &v4, 4);
}

static __always_inline bool tuple_of(struct sock *sk, struct tuple *tuple)
{
	u16 family = sk->__sk_common.skc_family;

	if (family == AF_INET) {
		map_address(tuple->local, sk->__sk_common.skc_rcv_saddr);
		map_address(tuple->remote, sk->__sk_common.skc_daddr);
	} else if (family == AF_INET6) {
		BPF_CORE_READ_INTO(&tuple->local, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&tuple->remote, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		return false;
	}
	tuple->local_port = sk->__sk_common.skc_num;
	tuple->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	return true;
}

static __always_inline bool tag_task(struct task_struct *task, struct expected *expected)
{
	struct tag *tag = bpf_task_storage_get(&tags, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!tag)
		return false;
	__builtin_memcpy(tag->session, expected->session, sizeof(tag->session));
	tag->policy = expected->policy;
	tag->exited = 0;
	tag->executed = 0;
	tag->untold = 0;
	return true;
}

static __always_inline void control_set(u32 slot, u64 value)
{
	u64 *place = bpf_map_lookup_elem(&control, &slot);

	if (place)
		*place = value;
}

/* A thread of the agent becomes a session for a moment; what it starts inherits that. It shows which root directory and which mounts are
 * the host's. */
static __always_inline void accept_self_test(struct task_struct *task, struct expected *expected)
{
	control_set(CONTROL_ROOT, (u64)BPF_CORE_READ(task, fs, root.dentry));
	control_set(CONTROL_MOUNTS, (u64)BPF_CORE_READ(task, nsproxy, mnt_ns));
	tag_task(task, expected);
}

static __always_inline void accept_by(struct sock *sk)
{
	u32 slot = CONTROL_ACCEPTED, pid;
	struct task_struct *task;
	struct socket_state *state;
	struct accepted *record;
	struct expected *found, expected;
	struct tag tag = {};
	struct tuple tuple = {};
	u64 *used;

	/* Every read of every socket comes by here: nothing is awaited at most times. */
	used = bpf_map_lookup_elem(&control, &slot);
	if (!used || control_get(CONTROL_EXPECTED) == *(volatile u64 *)used)
		return;
	if (sk->sk_protocol != IPPROTO_TCP || !tuple_of(sk, &tuple))
		return;
	found = bpf_map_lookup_elem(&tuples, &tuple);
	if (!found || quiet())
		return;
	task = bpf_get_current_task_btf();
	expected = *found;
	if (expected.policy >= POLICY_RESERVED) {
		if (bpf_map_delete_elem(&tuples, &tuple))
			return;
		__sync_fetch_and_add(used, 1);
		accept_self_test(task, &expected);
		return;
	}
	/* A process of one session never becomes another's: it would act in the name of whoever connected, and under his policy. He is
	 * refused, since nobody is told of an accept. */
	if (tag_of(task))
		return;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (state && state->role == ROLE_PROMISED && state->who.pid == (u32)task->tgid)
		return; /* the listener itself has read: what it forks next would be of this session too */

	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		/* Not tagged, the tuple stays: the next read tries again, or the proxy gives up. */
		count(&seen, KIND_ACCEPTED);
		count(&lost, KIND_ACCEPTED);
		return;
	}
	/* One tuple is one accept: who removes it has it. */
	if (bpf_map_delete_elem(&tuples, &tuple)) {
		bpf_ringbuf_discard(record, 0);
		return;
	}
	__sync_fetch_and_add(used, 1);
	count(&seen, KIND_ACCEPTED);
	__builtin_memcpy(tag.session, expected.session, sizeof(tag.session));
	tag.policy = expected.policy;
	pid = task->tgid;
	/* Without both nobody is told of an accept, and the proxy opens no session. */
	if (bpf_map_update_elem(&processes, &pid, &tag, BPF_ANY) || !tag_task(task, &expected)) {
		bpf_map_delete_elem(&processes, &pid);
		count(&lost, KIND_ACCEPTED);
		bpf_ringbuf_discard(record, 0);
		return;
	}
	/* The process's leader answers for threads that have no tag. */
	if (task->group_leader != task)
		tag_task(task->group_leader, &expected);
	fill_subject(&record->who, KIND_ACCEPTED, task, &tag);
	record->tuple = tuple;
	record->reserved = 0;
	bpf_ringbuf_submit(record, 0);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(session_accept, struct sock *sk)
{
	if (sk)
		accept_by(sk);
	return 0;
}

/* The same in the tier of LSM hooks, which has it from 5.7 on: before the read. */
SEC("lsm/socket_recvmsg")
int BPF_PROG(session_accept_lsm, struct socket *sock)
{
	struct sock *sk = sock->sk;

	if (sk)
		accept_by(sk);
	return 0;
}

/* In the listener's process, at its accept: shows who the listener is, also if it listened before we came. */
SEC("lsm/sock_graft")
int BPF_PROG(session_graft_lsm, struct sock *sk)
{
	struct socket_state *state;
	struct tuple tuple = {};

	if (control_get(CONTROL_EXPECTED) == control_get(CONTROL_ACCEPTED))
		return 0;
	if (!sk || sk->sk_protocol != IPPROTO_TCP || !tuple_of(sk, &tuple) || !bpf_map_lookup_elem(&tuples, &tuple))
		return 0;
	state = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return 0;
	state->role = ROLE_PROMISED;
	state->who.pid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

/* Two copies of a program may both come by, and two generations: whoever is second finds it done. */
static __always_inline int inherit(struct task_struct *parent, struct task_struct *child)
{
	struct tag *from = tag_of(parent), copy;

	if (!from || bpf_task_storage_get(&tags, child, 0, 0))
		return 0;
	if (!silent(from) && !quiet())
		count(&seen, KIND_FORKED);
	copy = *from;
	copy.exited = 0;
	copy.executed = 0;
	copy.untold = 0;
	if (bpf_task_storage_get(&tags, child, &copy, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return 0;
	count(&lost, KIND_FORKED);
	return -EPERM;
}

/* A child that couldn't be tagged would be free: its parent is stopped, which the counter tells. */
static __always_inline int make_child(struct task_struct *parent, struct task_struct *child)
{
	struct tag *tag;
	u32 pid = child->tgid;

	if (inherit(parent, child))
		goto stop;
	if (child->pid != child->tgid)
		return 0;
	tag = bpf_task_storage_get(&tags, child, 0, 0);
	if (!tag) {
		/* A number may come again before its last owner's end was seen. */
		bpf_map_delete_elem(&processes, &pid);
		return 0;
	}
	if (silent(tag) || !bpf_map_update_elem(&processes, &pid, tag, BPF_ANY))
		return 0;
	count(&lost, KIND_FORKED);
stop:
	bpf_send_signal(SIGKILL);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(session_fork, struct task_struct *parent, struct task_struct *child)
{
	return make_child(parent, child);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(session_fork_again, struct task_struct *parent, struct task_struct *child)
{
	return make_child(parent, child);
}

/* In the tier of LSM hooks it isn't made at all; io_uring's workers come by here too. */
SEC("lsm/task_alloc")
int BPF_PROG(session_fork_lsm, struct task_struct *task, unsigned long clone_flags, int ret)
{
	if (ret)
		return ret;
	return inherit(bpf_get_current_task_btf(), task);
}
