/* Whose a connection is, among the processes that have it: the listener hands it down, and of those below it that have it in hand any may
 * run what the session runs. Who has it is read from their tables of descriptors, once for each session. */
#pragma once

#include "connection.h"
#include "path.h"

/* Which session's connection a socket is, for whoever reads from it later. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct expected);
} sessions SEC(".maps");

/* So many processes above the one that reads are looked at; the last of them isn't of the session, or there is none. */
#define ABOVE_MAX 4
/* A longer table of descriptors isn't read to its end. */
#define DESCRIPTORS_MAX 16384

/* What is among a process's descriptors. */
#define HOLDS 1u   /* the connection */
#define LISTENS 2u /* a socket that listens */
#define LONGER 4u  /* more than was looked at */

struct descriptors {
	struct file **files;
	u64 socket;
	u32 count;
	u32 found;
};

static long descriptor_step(u32 index, void *context)
{
	struct descriptors *descriptors = context;
	struct socket *socket;
	struct file *file = 0;
	struct sock *sk;
	u16 family;

	if (index >= descriptors->count || bpf_probe_read_kernel(&file, sizeof(file), descriptors->files + index))
		return 1;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	if ((u64)socket == descriptors->socket)
		descriptors->found |= HOLDS;
	sk = BPF_CORE_READ(socket, sk);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if ((family == AF_INET || family == AF_INET6) && BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN)
		descriptors->found |= LISTENS;
	return 0;
}

/* What a task has among its descriptors. A function of its own to the verifier too, which looks at it once and takes what it finds for
 * any number. */
__noinline u32 descriptors_of(u64 task, u64 socket)
{
	struct fdtable *table = BPF_CORE_READ((struct task_struct *)task, files, fdt);
	struct descriptors descriptors = {
		.files = BPF_CORE_READ(table, fd),
		.socket = socket,
		.count = BPF_CORE_READ(table, max_fds),
	};

	bpf_loop(DESCRIPTORS_MAX, descriptor_step, &descriptors, 0);
	if (descriptors.count > DESCRIPTORS_MAX)
		descriptors.found |= LONGER;
	return descriptors.found;
}

/* The process that accepted the connection, which only the LSM hook shows; else the one that had the listener listen, if that was seen: it
 * may be gone, or have given the listener to another. 0: not known. */
static __always_inline u32 listener_of(struct sock *sk, struct expected *expected)
{
	struct socket_state *state;

	if (expected->acceptor)
		return expected->acceptor;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	return state && state->role == ROLE_PROMISED ? state->who.pid : 0;
}

/* Whether a process that has the connection is surely the session's. The listener isn't, as long as it has it: it may go on with it, and would run
 * what nobody sees. Where it wasn't seen who accepted, a process with a listener may be the one that did, or have been forked with
 * it in hand. Servers close what they have handed down, so that all of this is clear a moment later. */
static __always_inline bool is_of_session(u32 pid, u32 has, u32 listener, struct expected *expected)
{
	return pid != listener && (!(has & LISTENS) || expected->acceptor);
}

/* Finds the processes above a task that have the connection too, up to the listener: each by its thread that forked the one below. False:
 * of one of them it isn't clear what it is. Who hasn't got the connection isn't of the session: a service manager, who adopts an orphan, a
 * server that has closed it. */
static __always_inline bool find_above(struct task_struct *task, u64 socket, u32 listener, struct expected *expected,
				       struct task_struct **above)
{
	struct task_struct *leader = task->group_leader, *thread;
	struct tag *tag;
	u32 has, pid;

#pragma unroll
	for (u32 i = 0; i < ABOVE_MAX; i++) {
		thread = leader->real_parent;
		leader = thread->group_leader;
		pid = leader->tgid;
		if (pid <= 1 || is_agent(leader))
			return true;
		has = descriptors_of(number_of(thread), socket);
		if (!(has & HOLDS))
			return !(has & LONGER);
		tag = tag_of(thread);
		if (tag)
			return same_16(tag->session, expected->session);
		if (!is_of_session(pid, has, listener, expected))
			return false;
		above[i] = thread;
	}
	return false;
}

static __always_inline void begin_tag(struct tag *tag, struct expected *expected)
{
	__builtin_memset(tag, 0, sizeof(*tag));
	__builtin_memcpy(tag->session, expected->session, sizeof(tag->session));
	tag->policy = expected->policy;
}

/* The tag is whole from its first moment: the process may be forking on another CPU. */
static __always_inline bool tag_process(struct task_struct *leader, struct tag *tag)
{
	u32 pid = leader->tgid;

	if (!bpf_task_storage_get(&tags, leader, tag, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return false;
	if (bpf_map_update_elem(&processes, &pid, tag, BPF_ANY))
		return false;
	/* One that has ended meanwhile may have had no tag by then, and doesn't end again. */
	if (!BPF_CORE_READ(leader, signal, live.counter))
		bpf_map_delete_elem(&processes, &pid);
	return true;
}

/* The process's leader answers for threads that have no tag; but one that runs a new program takes its place, and needs a tag of its own. */
static __always_inline bool tag_thread(struct task_struct *thread, struct tag *tag)
{
	return bpf_task_storage_get(&tags, thread, tag, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

enum taken { TAKEN, NOT_TAKEN, TAKEN_IN_PART };

/* Makes the task that reads from a connection its session's, with the processes above it that are. Where those aren't clear, nobody; but
 * `later`, when the session has others, at least who reads. */
static __noinline enum taken take_in(struct task_struct *task, struct sock *sk, struct expected *expected, bool later)
{
	struct task_struct *above[ABOVE_MAX] = {};
	u64 socket = number_of(BPF_CORE_READ(sk, sk_socket));
	u32 listener = listener_of(sk, expected), pid = task->tgid;
	struct expected *kept;
	struct tag tag;

	/* The listener itself has read: what it forks next would be of this session too. */
	if (pid <= 1 || pid == listener)
		return NOT_TAKEN;
	if (!is_of_session(pid, descriptors_of(number_of(task), socket), listener, expected))
		return NOT_TAKEN;
	if (!find_above(task, socket, listener, expected, above) && !later)
		return NOT_TAKEN;
	begin_tag(&tag, expected);
	if (!tag_thread(task, &tag) || !tag_process(task->group_leader, &tag))
		return TAKEN_IN_PART;
#pragma unroll
	for (u32 i = 0; i < ABOVE_MAX; i++) {
		if (!above[i])
			break;
		if (!tag_thread(above[i], &tag) || !tag_process(above[i]->group_leader, &tag))
			return TAKEN_IN_PART;
	}
	kept = bpf_sk_storage_get(&sessions, sk, expected, BPF_SK_STORAGE_GET_F_CREATE);
	return kept ? TAKEN : TAKEN_IN_PART;
}

/* The process from which the session's others descend. */
static __always_inline struct task_struct *top_of(struct task_struct *task, struct expected *expected)
{
	struct task_struct *top = task->group_leader;

#pragma unroll
	for (u32 i = 0; i < ABOVE_MAX; i++) {
		struct task_struct *parent = top->real_parent->group_leader;
		struct tag *tag = bpf_task_storage_get(&tags, parent, 0, 0);

		if (!tag || !same_16(tag->session, expected->session))
			break;
		top = parent;
	}
	return top;
}
