/* Datagrams: of a socket that has a peer, and of one that sends to whomever. */
#pragma once

#include "connection.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct flows);
} flows SEC(".maps");

/* The socket and its peer have done with each other. */
static __always_inline void close_datagram(struct socket_state *state, u64 cookie)
{
	struct connection *record;

	if (!state->opened)
		return;
	bpf_map_delete_elem(&connections, &cookie);
	record = reserve_connection(state, KIND_CONNECTION_CLOSED, IPPROTO_UDP, cookie);
	if (!record)
		return;
	record->sent = state->sent;
	record->received = state->received;
	bpf_ringbuf_submit(record, 0);
}

/* A datagram socket has got a peer: nothing more will be heard of it until it is closed, or gets another. */
static __always_inline bool open_datagram(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	u64 cookie = bpf_get_socket_cookie(ctx);
	struct socket_state *state;
	struct connection *record;

	if (!ctx->sk)
		return false;
	state = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return false;
	if (state->role == ROLE_DATAGRAM)
		close_datagram(state, cookie);
	fill_subject(&state->who, KIND_CONNECTION_OPENED, task, tag);
	state->role = ROLE_DATAGRAM;
	state->opened = state->who.time;
	state->sent = 0;
	state->received = 0;
	__builtin_memcpy(state->remote, attempt->remote, 16);
	state->remote_port = attempt->port;
	remember(cookie, state, IPPROTO_UDP);
	record = reserve_connection(state, KIND_CONNECTION_OPENED, IPPROTO_UDP, cookie);
	if (record)
		bpf_ringbuf_submit(record, 0);
	return true;
}

static __always_inline void tell_flow(struct socket_state *state, struct flow *flow, u16 kind, u64 cookie)
{
	struct connection *record = reserve_connection(state, kind, IPPROTO_UDP, cookie);

	if (!record)
		return;
	__builtin_memcpy(record->remote, flow->remote, 16);
	record->remote_port = flow->remote_port;
	record->opened = flow->opened;
	record->flags = CONNECTION_UNCONNECTED;
	if (kind == KIND_CONNECTION_CLOSED) {
		record->datagrams = flow->datagrams;
		record->sent = flow->sent;
		record->received = flow->received;
	}
	bpf_ringbuf_submit(record, 0);
}

/* Datagrams of one socket to one destination are one connection: opened with the first, closed with their count when the socket goes,
 * or when its place is needed for another destination. */
static __always_inline bool fold_datagram(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	struct socket_state *state;
	struct flows *table;
	struct flow *flow;
	u64 cookie;
	u32 slot;

	if (!ctx->sk)
		return false;
	state = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	table = bpf_sk_storage_get(&flows, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state || !table)
		return false;
#pragma unroll
	for (u32 i = 0; i < FLOWS_MAX; i++) {
		flow = &table->flow[i];
		if (flow->used && flow->remote_port == attempt->port && same_16(flow->remote, attempt->remote)) {
			__sync_fetch_and_add(&flow->datagrams, 1);
			return true;
		}
	}
	if (state->role != ROLE_DATAGRAM) {
		fill_subject(&state->who, KIND_CONNECTION_OPENED, task, tag);
		state->role = ROLE_DATAGRAM;
		state->opened = 0;
	}
	cookie = bpf_get_socket_cookie(ctx);
	slot = table->next % FLOWS_MAX;
	table->next = slot + 1;
	flow = &table->flow[slot];
	if (flow->used)
		tell_flow(state, flow, KIND_CONNECTION_CLOSED, cookie);
	flow->used = 1;
	__builtin_memcpy(flow->remote, attempt->remote, 16);
	flow->remote_port = attempt->port;
	flow->opened = bpf_ktime_get_boot_ns();
	flow->datagrams = 1;
	flow->sent = 0;
	flow->received = 0;
	tell_flow(state, flow, KIND_CONNECTION_OPENED, cookie);
	return true;
}
