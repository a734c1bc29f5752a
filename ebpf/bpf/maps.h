/* The maps, and the few questions that every program asks of them: whose process is this, is there room, may it go on. */
#pragma once

#include "kernel.h"
#include "shared.h"

/* Set by the loader. `generation`: which set of programs this is; when two are attached while one hands over, only one sends. */
const volatile u64 generation = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CONTROL_SLOTS);
	__type(key, u32);
	__type(value, u64);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tuple);
	__type(value, struct expected);
} tuples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tag);
} tags SEC(".maps");

/* The same by process, for programs that may not read a task's storage: cgroup programs before 6.16. Large, since a process
 * that finds no room here is nobody's to those programs: who started it is killed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct tag);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct policy);
} policies SEC(".maps");

/* Cloned from a listener to what it accepts. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct socket_state);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024); /* the loader sets it */
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KIND_COUNT);
	__type(key, u32);
	__type(value, u64);
} seen SEC(".maps"), lost SEC(".maps");

/* Tell clang that the value may be anything, so that it keeps the bound check that follows and the verifier sees it. */
#define opaque(x) asm volatile("" : "+r"(x))

/* For LSM programs: clang would make -EPERM out of a bool in 32 bits, which the verifier takes for a large number. */
static __always_inline int deny_if(bool refuse)
{
	if (refuse) {
		asm volatile("" ::: "memory");
		return -EPERM;
	}
	return 0;
}

/* Bytes of the ring that nothing new may use. */
#define ROOM (16 * 1024)

static __always_inline u64 control_get(u32 slot)
{
	u64 *value = bpf_map_lookup_elem(&control, &slot);
	return value ? *(volatile u64 *)value : 0;
}

static __always_inline void count(void *counters, u32 kind)
{
	u64 *value = bpf_map_lookup_elem(counters, &kind);
	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Another generation of programs sends; this one is on its way in or out. */
static __always_inline bool quiet(void)
{
	return control_get(CONTROL_GENERATION) != generation;
}

/* The tag of a task; io_uring's workers are made without a fork that can be seen, so the process's leader answers for them. */
static __always_inline struct tag *tag_of(struct task_struct *task)
{
	struct tag *tag = bpf_task_storage_get(&tags, task, 0, 0);
	struct task_struct *leader;

	if (tag)
		return tag;
	leader = task->group_leader;
	if (!leader)
		return 0;
	return bpf_task_storage_get(&tags, leader, 0, 0);
}

/* The tag of the current process, from the table. */
static __always_inline struct tag *tag_by_process(void)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&processes, &pid);
}

static __always_inline bool is_agent(struct task_struct *task)
{
	return (u32)task->tgid == control_get(CONTROL_AGENT_PID) &&
	       task->group_leader->start_boottime / 10000000 == control_get(CONTROL_AGENT_START);
}

/* The agent's self-test: refused like everyone, told to nobody. */
static __always_inline bool silent(struct tag *tag)
{
	return tag->policy >= POLICY_RESERVED;
}

/* The tag of the task if what it does is evidence. */
static __always_inline struct tag *watched(struct task_struct *task)
{
	struct tag *tag = tag_of(task);

	if (!tag || quiet() || is_agent(task))
		return 0;
	return tag;
}

/* What is left of the ring is for the ends of what already runs. */
static __always_inline bool full(void)
{
	return bpf_ringbuf_query(&records, BPF_RB_RING_SIZE) - bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) < ROOM;
}

/* Half of the ring is left for what isn't of files: who opens a thousand of them doesn't keep others from running programs. */
static __always_inline bool crowded(void)
{
	return bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&records, BPF_RB_RING_SIZE) / 2;
}

/* No evidence could be kept now: the ring is all but full, the agent is gone, or says that it can't take more. */
static __always_inline bool closed(struct tag *tag)
{
	u64 now = bpf_ktime_get_boot_ns(), beat = control_get(CONTROL_HEARTBEAT);

	if (tag->policy == POLICY_CLOSED || control_get(CONTROL_CLOSED))
		return true;
	if (beat < now && now - beat > control_get(CONTROL_LIMIT))
		return true;
	return full();
}

static __always_inline void fill_subject(struct subject *who, u16 kind, struct task_struct *task, struct tag *tag)
{
	who->kind = kind;
	who->flags = 0;
	who->pid = task->tgid;
	who->tid = task->pid;
	who->ppid = BPF_CORE_READ(task, group_leader, real_parent, tgid);
	who->time = bpf_ktime_get_boot_ns();
	who->start = BPF_CORE_READ(task, group_leader, start_boottime);
	__builtin_memcpy(who->session, tag->session, sizeof(who->session));
	who->policy = tag->policy;
	who->uid = BPF_CORE_READ(task, cred, uid.val);
	bpf_probe_read_kernel(who->comm, sizeof(who->comm), task->comm);
}
