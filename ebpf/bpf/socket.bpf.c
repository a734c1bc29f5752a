/* What becomes of a session's sockets: TCP's changes of state tell it of TCP, the end of the socket of datagrams. The socket's storage
 * carries whose it is, since states may change in any process's context. */

static __always_inline void fill_addresses(struct socket_state *state, struct sock *sk)
{
	struct tuple tuple = {};

	if (!tuple_of(sk, &tuple))
		return;
	__builtin_memcpy(state->local, tuple.local, 16);
	__builtin_memcpy(state->remote, tuple.remote, 16);
	state->local_port = tuple.local_port;
	state->remote_port = tuple.remote_port;
	state->net_namespace = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

static __always_inline void tell_state(struct sock *sk, u64 cookie, struct socket_state *state, u16 kind)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;
	struct connection *record = reserve_connection(state, kind, IPPROTO_TCP, cookie);

	if (!record)
		return;
	if (kind == KIND_CONNECTION_FAILED) {
		record->error = BPF_CORE_READ(sk, sk_err);
		if (!record->error)
			record->error = BPF_CORE_READ(sk, sk_err_soft);
	}
	if (kind == KIND_CONNECTION_CLOSED) {
		u64 sent = BPF_CORE_READ(tcp, bytes_sent), again = BPF_CORE_READ(tcp, bytes_retrans);

		/* What there was no memory for to send again is counted as sent again, and not as sent. */
		record->sent = sent > again ? sent - again : 0;
		record->received = BPF_CORE_READ(tcp, bytes_received);
		/* The kernel counts the peer's FIN as a byte. */
		if (record->received && BPF_CORE_READ(sk, __sk_common.skc_flags) & (1 << SOCK_DONE))
			record->received--;
	}
	if (kind == KIND_CONNECTION_ACCEPTED)
		remember(cookie, state, IPPROTO_TCP);
	bpf_ringbuf_submit(record, 0);
}

/* A process wants a connection; also where the tracepoint's programs were left out for it. */
static __always_inline void start_attempt(struct sock *sk, struct socket_state *state, u64 cookie)
{
	state->role = ROLE_CONNECTS;
	state->told = TCP_SYN_SENT;
	fill_addresses(state, sk);
	remember(cookie, state, IPPROTO_TCP);
}

/* A process listens; likewise. */
static __always_inline void start_listening(struct socket_state *state, u32 role)
{
	state->role = role;
	state->told = TCP_LISTEN;
}

/* Nothing can be kept with a socket that begins, and no hook could refuse it: by tracepoints there is none for whoever listens, and by LSM none
 * for the socket that the kernel has made below one of MPTCP. Whoever does it is killed, which the first copy that comes by tells. */
static __always_inline void stop_untold(struct task_struct *task, struct tag *tag)
{
	if (BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT)
		return;
	tell_kept_back(task, tag, IPPROTO_TCP, RULE_CLOSED);
	bpf_send_signal(SIGKILL);
}

static __always_inline void start_socket(struct sock *sk, u32 role)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = tag_of(task), nobody = {};
	struct socket_state *state;

	if (tag && (is_agent(task) || silent(tag)))
		tag = 0;
	if (!tag && role == ROLE_CONNECTS)
		return;
	state = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state) {
		if (tag)
			stop_untold(task, tag);
		return;
	}
	fill_subject(&state->who, 0, task, tag ? tag : &nobody);
	state->opened = 0;
	if (role == ROLE_CONNECTS)
		start_attempt(sk, state, bpf_get_socket_cookie(sk));
	else
		start_listening(state, tag ? ROLE_LISTENS : ROLE_PROMISED);
}

/* The handshake is done. */
static __always_inline bool established(u32 state)
{
	return 1u << state & (1u << TCP_ESTABLISHED | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK |
			      1u << TCP_CLOSING);
}

/* What a change says of a socket that was begun; `asked` is whom the kernel tells a socket's cookie of. Whoever comes second finds it done:
 * a socket's lock brings its changes in order, and none leads to the state that it is in. */
static __always_inline void change_state(struct sock *sk, struct socket_state *state, void *asked, u32 old, u32 new)
{
	u64 cookie;

	if (!state->role || state->told == new || state->role == ROLE_PROMISED)
		return;
	state->told = new;
	cookie = bpf_get_socket_cookie(asked);
	/* Whoever closes what TCP Fast Open brought before the handshake's end passes by TCP_ESTABLISHED. */
	if (!state->opened && (established(new) || established(old))) {
		fill_addresses(state, sk);
		state->opened = bpf_ktime_get_boot_ns();
		if (state->role == ROLE_LISTENS)
			state->role = ROLE_ACCEPTED;
		tell_state(sk, cookie, state, state->role == ROLE_ACCEPTED ? KIND_CONNECTION_ACCEPTED : KIND_CONNECTION_OPENED);
	}
	if (new != TCP_CLOSE || state->role == ROLE_LISTENS)
		return;
	bpf_map_delete_elem(&connections, &cookie);
	if (state->opened) {
		tell_state(sk, cookie, state, KIND_CONNECTION_CLOSED);
		state->opened = 0;
	} else if (old == TCP_SYN_SENT) {
		fill_addresses(state, sk);
		tell_state(sk, cookie, state, KIND_CONNECTION_FAILED);
	}
}

/* Where sockets of sessions begin, which processes do, so that no interrupt finds it active. */
static __always_inline int change(struct sock *sk, int old, int new)
{
	struct socket_state *state;

	if (sk->sk_protocol != IPPROTO_TCP || quiet())
		return 0;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (state && state->told == (u32)new && state->role != ROLE_ATTEMPTS)
		return 0;
	if (state && state->role == ROLE_ATTEMPTS)
		state->role = ROLE_CONNECTS;
	if (new == TCP_SYN_SENT)
		start_socket(sk, ROLE_CONNECTS);
	else if (new == TCP_LISTEN)
		start_socket(sk, ROLE_LISTENS);
	else if (state)
		change_state(sk, state, sk, old, new);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(socket_change, struct sock *sk, int old, int new)
{
	return change(sk, old, new);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(socket_change_again, struct sock *sk, int old, int new)
{
	return change(sk, old, new);
}

/* What becomes of them is told by the kernel's TCP itself: it asks a control group's programs at each change of a socket that wants it,
 * whatever interrupts whatever. A tracepoint's program is skipped where it is active on the CPU already, and under load it was seen not to
 * be called at all for a moment, nor was perf. What came about before this program was there is seen by the tracepoint only. */
SEC("sockops")
int socket_follow(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *socket = ctx->sk;
	struct socket_state *state;
	struct tcp_sock *tcp;

	if (!socket || quiet())
		return PROCEED;
	state = bpf_sk_storage_get(&sockets, socket, 0, 0);
	if (!state)
		return PROCEED;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB || ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	tcp = bpf_skc_to_tcp_sock(socket);
	if (tcp && ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB && state->role == ROLE_ATTEMPTS)
		start_attempt((struct sock *)tcp, state, bpf_get_socket_cookie(ctx));
	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB && state->role != ROLE_LISTENS && state->role != ROLE_PROMISED)
		start_listening(state, ROLE_LISTENS);
	if (tcp && ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] != TCP_SYN_SENT && ctx->args[1] != TCP_LISTEN)
		change_state((struct sock *)tcp, state, ctx, ctx->args[0], ctx->args[1]);
	return PROCEED;
}

SEC("cgroup/sock_release")
int socket_release(struct bpf_sock *ctx)
{
	struct socket_state *state;
	struct flows *table;
	u64 cookie;

	if (quiet())
		return PROCEED;
	state = bpf_sk_storage_get(&sockets, ctx, 0, 0);
	if (!state)
		return PROCEED;
	cookie = bpf_get_socket_cookie(ctx);
	tell_attempt(state, cookie);
	if (state->role != ROLE_DATAGRAM)
		return PROCEED;
	table = bpf_sk_storage_get(&flows, ctx, 0, 0);
	if (table) {
#pragma unroll
		for (u32 i = 0; i < FLOWS_MAX; i++)
			if (table->flow[i].used)
				tell_flow(state, &table->flow[i], KIND_CONNECTION_CLOSED, cookie);
	}
	close_datagram(state, cookie);
	return PROCEED;
}
