/* What is told of a connection, and what is kept with its socket until then. */
#pragma once

#include "maps.h"

/* Live connections of sessions by socket cookie: so that user space can take down what becomes denied. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

static __always_inline bool same_16(const u8 *a, const u8 *b)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline void fill_connection(struct connection *record, struct socket_state *state, u16 kind)
{
	__builtin_memset(record, 0, sizeof(*record));
	record->who = state->who;
	record->who.kind = kind;
	record->who.time = bpf_ktime_get_boot_ns();
	__builtin_memcpy(record->local, state->local, 16);
	__builtin_memcpy(record->remote, state->remote, 16);
	record->local_port = state->local_port;
	record->remote_port = state->remote_port;
	record->net_namespace = state->net_namespace;
	record->opened = state->opened;
	if (state->role == ROLE_ACCEPTED || state->role == ROLE_LISTENS)
		record->flags = CONNECTION_IN_PLACE;
}

/* A record of a connection, in the ring: to be completed and submitted. Where there is no room for it, that is counted. */
static __always_inline struct connection *reserve_connection(struct socket_state *state, u16 kind, u32 protocol, u64 cookie)
{
	struct connection *record;

	count(&seen, kind);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, kind);
		return 0;
	}
	fill_connection(record, state, kind);
	record->protocol = protocol;
	record->cookie = cookie;
	return record;
}

/* So that user space finds it when its peer becomes denied. */
static __always_inline void remember(u64 cookie, struct socket_state *state, u32 protocol)
{
	struct connection connection;

	fill_connection(&connection, state, KIND_CONNECTION_OPENED);
	connection.protocol = protocol;
	connection.cookie = cookie;
	bpf_map_update_elem(&connections, &cookie, &connection, BPF_ANY);
}

struct attempt {
	u8 remote[16];
	u16 port;
	bool datagram; /* sent without a connect */
};

static __always_inline void tell_attempt(struct socket_state *state, u64 cookie)
{
	struct connection *record;

	if (state->role != ROLE_ATTEMPTS)
		return;
	state->role = 0;
	record = reserve_connection(state, KIND_CONNECTION_FAILED, IPPROTO_TCP, cookie);
	if (!record)
		return;
	record->who.time = state->who.time;
	bpf_ringbuf_submit(record, 0);
}

/* Where there is no way to the address the kernel changes no state and says so to the caller only. So each attempt is kept with the
 * socket until something is sent, and else told by the next attempt, or when the socket goes; what the error was is not known then.
 * False, here and where datagrams begin: nothing can be kept with the socket, so nothing could be told of it. */
static __always_inline bool keep_attempt(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	struct socket_state *state;

	if (!ctx->sk)
		return false;
	state = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return false;
	tell_attempt(state, bpf_get_socket_cookie(ctx));
	fill_subject(&state->who, 0, task, tag);
	state->role = ROLE_ATTEMPTS;
	state->opened = 0;
	__builtin_memset(state->local, 0, sizeof(state->local));
	state->local_port = 0;
	state->net_namespace = 0;
	__builtin_memcpy(state->remote, attempt->remote, 16);
	state->remote_port = attempt->port;
	return true;
}
