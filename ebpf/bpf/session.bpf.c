/* Which process belongs to which session.
 *
 * The agent puts the four-tuple of a connection that the proxy is about to open into `tuples`. Whoever first reads from the accepted
 * socket is the session's, and so are the processes above it that have that socket too, up to the listener (session.h). Which part of a
 * server reads first is its own affair: of sshd it was the child that is forked for the connection, from 9.8 on the sshd-session that this runs,
 * and from 10.3 on it is a child of that one, sshd-auth, which ends at the login; what the session runs descends from sshd-session.
 * The hook is sock_recv_length (since 6.3): it runs in the reader's context, with the socket, whatever the system call was. The side
 * that connected has the mirrored tuple and never matches, so both ends may be on one host.
 *
 * From then on the tag is inherited: sched_process_fork (as old as tracing) runs in the parent for each fork, clone and thread. */

#include "session.h"

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

static __always_inline void control_set(u32 slot, u64 value)
{
	u64 *place = bpf_map_lookup_elem(&control, &slot);

	if (place)
		*place = value;
}

/* A thread of the agent becomes a session for a moment; what it starts inherits that. It shows which root directory and which mounts are
 * the host's. An agent that was started in a session is of that one until it has been tried. */
static __always_inline void accept_self_test(struct task_struct *task, struct expected *expected)
{
	struct tag *tag = bpf_task_storage_get(&tags, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	control_set(CONTROL_ROOT, (u64)BPF_CORE_READ(task, fs, root.dentry));
	control_set(CONTROL_MOUNTS, (u64)BPF_CORE_READ(task, nsproxy, mnt_ns));
	if (tag)
		begin_tag(tag, expected);
}

/* Somebody reads from a session's connection who isn't of it: he was given the socket. Who couldn't be tagged would be free: he is stopped,
 * which the counter tells. */
static __always_inline void take_in_later(struct task_struct *task, struct sock *sk, struct expected *session)
{
	struct expected expected = *session;

	if (tag_of(task) || quiet())
		return;
	if (take_in(task, sk, &expected, true) != TAKEN_IN_PART)
		return;
	count(&seen, KIND_FORKED);
	count(&lost, KIND_FORKED);
	bpf_send_signal(SIGKILL);
}

/* One tuple is one accept: who removes it has it. */
static __always_inline bool use_up(struct tuple *tuple, u64 *used)
{
	if (bpf_map_delete_elem(&tuples, tuple))
		return false;
	__sync_fetch_and_add(used, 1);
	return true;
}

static __always_inline void lose_accept(void)
{
	count(&seen, KIND_ACCEPTED);
	count(&lost, KIND_ACCEPTED);
}

static __always_inline void accept_by(struct sock *sk)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct expected *found, expected;
	u32 slot = CONTROL_ACCEPTED;
	struct accepted *record;
	struct tuple tuple = {};
	struct tag *tag, told;
	enum taken taken;
	u64 *used;

	/* Every read of every socket comes by here: at most times it is no session's, and nothing is awaited. */
	if (sk->sk_protocol != IPPROTO_TCP)
		return;
	found = bpf_sk_storage_get(&sessions, sk, 0, 0);
	if (found)
		take_in_later(task, sk, found);
	used = bpf_map_lookup_elem(&control, &slot);
	if (!used || control_get(CONTROL_EXPECTED) == *(volatile u64 *)used)
		return;
	if (!tuple_of(sk, &tuple))
		return;
	found = bpf_map_lookup_elem(&tuples, &tuple);
	if (!found || quiet())
		return;
	expected = *found;
	if (expected.policy >= POLICY_RESERVED) {
		if (use_up(&tuple, used))
			accept_self_test(task, &expected);
		return;
	}
	/* A process of one session never becomes another's: it would act in the name of whoever connected, and under his policy. He is
	 * refused, since nobody is told of an accept. */
	tag = tag_of(task);
	if (tag && !same_16(tag->session, expected.session))
		return;
	if (!tag) {
		taken = take_in(task, sk, &expected, false);
		if (taken == NOT_TAKEN)
			return; /* a later read may show whose it is, or the proxy gives up */
		if (taken == TAKEN_IN_PART) {
			/* Nobody is told of an accept, and the proxy opens no session. */
			if (use_up(&tuple, used))
				lose_accept();
			return;
		}
	}
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		/* They are the session's from now on: it is told by a later read of theirs, or the proxy gives up. */
		if (!tag)
			lose_accept();
		return;
	}
	if (!use_up(&tuple, used)) {
		bpf_ringbuf_discard(record, 0);
		return;
	}
	count(&seen, KIND_ACCEPTED);
	begin_tag(&told, &expected);
	fill_subject(&record->who, KIND_ACCEPTED, top_of(task, &expected), &told);
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

/* In the listener's process, at its accept: shows who the listener is, also if it listened before we came, or was given what listens. */
SEC("lsm/sock_graft")
int BPF_PROG(session_graft_lsm, struct sock *sk)
{
	struct expected *found;
	struct tuple tuple = {};

	if (control_get(CONTROL_EXPECTED) == control_get(CONTROL_ACCEPTED))
		return 0;
	if (!sk || sk->sk_protocol != IPPROTO_TCP || !tuple_of(sk, &tuple))
		return 0;
	found = bpf_map_lookup_elem(&tuples, &tuple);
	if (found)
		found->acceptor = bpf_get_current_pid_tgid() >> 32;
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
