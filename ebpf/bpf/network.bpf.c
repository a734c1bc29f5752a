/* What a session's processes connect to.
 *
 * Before: the cgroup hooks connect4/6 and sendmsg4/6 at the root of cgroup2 see each address after the kernel has copied it (so no
 * other thread swaps it), for TCP with and without Fast Open, MPTCP, UDP, io_uring; they answer EPERM. After: the tracepoint
 * inet_sock_set_state tells what became of it; the socket's storage carries whose it is, since it may fire in any process's context.
 * A kind of socket whose sends neither sees (raw, SCTP, ping) is refused to sessions under rules. */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct net_key);
	__type(value, struct net_rule);
} denied SEC(".maps"), allowed SEC(".maps");

/* Live connections of sessions by socket cookie: so that user space can take down what becomes denied. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct flows);
} flows SEC(".maps");

static __always_inline bool in_ranges(struct net_rule *net, u16 port, u32 protocol, u32 *rule)
{
#pragma unroll
	for (u32 i = 0; i < RANGES_MAX; i++) {
		struct port_range *range = &net->range[i];

		if (i >= net->count)
			break;
		if (range->low <= port && port <= range->high && (!range->protocol || range->protocol == protocol)) {
			*rule = range->rule;
			return true;
		}
	}
	return false;
}

/* Deny wins; where there is an allow list, what it doesn't hold is denied; a policy that nobody has set allows nothing. */
static __always_inline bool denies(struct tag *tag, u8 *address, u16 port, u32 protocol, u32 *rule, u32 *flags)
{
	struct policy *policy = bpf_map_lookup_elem(&policies, &tag->policy);
	struct net_key key = {.prefix_len = 160};
	struct net_rule *net;

	if (!policy) {
		*rule = RULE_NO_POLICY;
		return true;
	}
	if (policy->flags & POLICY_ENDS_SESSION)
		*flags |= CONNECTION_ENDS_SESSION;
	key.rules = policy->rules;
	__builtin_memcpy(key.address, address, 16);
	net = bpf_map_lookup_elem(&denied, &key);
	if (net && in_ranges(net, port, protocol, rule))
		return true;
	if (!(policy->flags & POLICY_ALLOW_LIST))
		return false;
	net = bpf_map_lookup_elem(&allowed, &key);
	if (net && in_ranges(net, port, protocol, rule))
		return false;
	*rule = RULE_NOT_ALLOWED;
	return true;
}

/* A connect to no address reaches this host: it is judged, and told, as that. */
static __always_inline void name_loopback(u8 *address)
{
	u64 *half = (u64 *)address;
	u32 *word = (u32 *)address;

	if (half[0])
		return;
	if (!half[1])
		address[15] = 1;
	else if (word[2] == bpf_htonl(0xffff) && !word[3])
		word[3] = bpf_htonl(0x7f000001);
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
	if (state->role == ROLE_ACCEPTED)
		record->flags = CONNECTION_IN_PLACE;
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

/* ---- before ---- */

struct attempt {
	u8 remote[16];
	u16 port;
	bool datagram; /* sent without a connect */
};

static __always_inline void tell_denied(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt,
					u32 rule, u32 flags)
{
	struct connection *record;

	count(&seen, KIND_CONNECTION_DENIED);
	record = full() ? 0 : bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_CONNECTION_DENIED);
		return;
	}
	__builtin_memset(record, 0, sizeof(*record));
	fill_subject(&record->who, KIND_CONNECTION_DENIED, task, tag);
	__builtin_memcpy(record->remote, attempt->remote, 16);
	record->remote_port = attempt->port;
	record->protocol = ctx->protocol;
	record->flags = flags | (attempt->datagram ? CONNECTION_UNCONNECTED : 0);
	record->error = EPERM;
	record->rule = rule;
	record->cookie = bpf_get_socket_cookie(ctx);
	bpf_ringbuf_submit(record, 0);
}

/* A datagram socket has got a peer: nothing more will be heard of it until it is closed. */
static __always_inline void open_datagram(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	struct socket_state *state;
	struct connection *record;

	if (!ctx->sk)
		return;
	state = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	count(&seen, KIND_CONNECTION_OPENED);
	if (!state) {
		count(&lost, KIND_CONNECTION_OPENED);
		return;
	}
	fill_subject(&state->who, KIND_CONNECTION_OPENED, task, tag);
	state->role = ROLE_DATAGRAM;
	state->opened = state->who.time;
	state->sent = 0;
	state->received = 0;
	__builtin_memcpy(state->remote, attempt->remote, 16);
	state->remote_port = attempt->port;
	remember(bpf_get_socket_cookie(ctx), state, IPPROTO_UDP);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_CONNECTION_OPENED);
		return;
	}
	fill_connection(record, state, KIND_CONNECTION_OPENED);
	record->protocol = IPPROTO_UDP;
	record->cookie = bpf_get_socket_cookie(ctx);
	bpf_ringbuf_submit(record, 0);
}

static __always_inline void tell_flow(struct socket_state *state, struct flow *flow, u16 kind, u64 cookie)
{
	struct connection *record;

	count(&seen, kind);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, kind);
		return;
	}
	fill_connection(record, state, kind);
	__builtin_memcpy(record->remote, flow->remote, 16);
	record->remote_port = flow->remote_port;
	record->opened = flow->opened;
	record->protocol = IPPROTO_UDP;
	record->flags = CONNECTION_UNCONNECTED;
	record->cookie = cookie;
	if (kind == KIND_CONNECTION_CLOSED) {
		record->datagrams = flow->datagrams;
		record->sent = flow->sent;
		record->received = flow->received;
	}
	bpf_ringbuf_submit(record, 0);
}

static __always_inline bool same_16(const u8 *a, const u8 *b)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

/* Datagrams of one socket to one destination are one connection: opened with the first, closed with their count when the socket goes,
 * or when its place is needed for another destination. */
static __always_inline void fold_datagram(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	struct socket_state *state;
	struct flows *table;
	struct flow *flow;
	u64 cookie;
	u32 slot;

	if (!ctx->sk)
		return;
	state = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	table = bpf_sk_storage_get(&flows, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state || !table) {
		count(&seen, KIND_CONNECTION_OPENED);
		count(&lost, KIND_CONNECTION_OPENED);
		return;
	}
#pragma unroll
	for (u32 i = 0; i < FLOWS_MAX; i++) {
		flow = &table->flow[i];
		if (flow->used && flow->remote_port == attempt->port && same_16(flow->remote, attempt->remote)) {
			__sync_fetch_and_add(&flow->datagrams, 1);
			return;
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
}

static __always_inline void tell_attempt(struct socket_state *state, u64 cookie)
{
	struct connection *record;

	if (state->role != ROLE_ATTEMPTS)
		return;
	state->role = 0;
	count(&seen, KIND_CONNECTION_FAILED);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_CONNECTION_FAILED);
		return;
	}
	fill_connection(record, state, KIND_CONNECTION_FAILED);
	record->who.time = state->who.time;
	record->protocol = IPPROTO_TCP;
	record->cookie = cookie;
	bpf_ringbuf_submit(record, 0);
}

/* Where there is no way to the address the kernel changes no state and says so to the caller only. So each attempt is kept with the
 * socket until something is sent, and else told by the next attempt, or when the socket goes; what the error was is not known then. */
static __always_inline void keep_attempt(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	struct socket_state *state;

	if (!ctx->sk)
		return;
	state = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return; /* if something is sent, that says that it couldn't be told */
	tell_attempt(state, bpf_get_socket_cookie(ctx));
	fill_subject(&state->who, 0, task, tag);
	state->role = ROLE_ATTEMPTS;
	state->opened = 0;
	__builtin_memset(state->local, 0, sizeof(state->local));
	state->local_port = 0;
	state->net_namespace = 0;
	__builtin_memcpy(state->remote, attempt->remote, 16);
	state->remote_port = attempt->port;
}

#define REFUSE 0
#define PROCEED 1

static __always_inline int judge(struct bpf_sock_addr *ctx, struct tag *tag, struct attempt *attempt)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 rule = 0, flags = 0;

	if (!tag || is_agent(task))
		return PROCEED;
	name_loopback(attempt->remote);
	if (closed(tag))
		rule = RULE_CLOSED;
	else if (!denies(tag, attempt->remote, attempt->port, ctx->protocol == IPPROTO_MPTCP ? IPPROTO_TCP : ctx->protocol, &rule, &flags))
		goto proceed;
	if (!quiet() && !silent(tag))
		tell_denied(ctx, task, tag, attempt, rule, flags);
	return REFUSE;
proceed:
	if (quiet() || silent(tag))
		return PROCEED;
	if (ctx->type == SOCK_DGRAM) {
		if (attempt->datagram)
			fold_datagram(ctx, task, tag, attempt);
		else
			open_datagram(ctx, task, tag, attempt);
	} else if (ctx->protocol == IPPROTO_TCP) {
		keep_attempt(ctx, task, tag, attempt);
	}
	return PROCEED;
}

static __always_inline int judge4(struct bpf_sock_addr *ctx, struct tag *tag, bool datagram)
{
	struct attempt attempt = {.port = bpf_ntohs(ctx->user_port), .datagram = datagram};

	map_address(attempt.remote, ctx->user_ip4);
	return judge(ctx, tag, &attempt);
}

static __always_inline int judge6(struct bpf_sock_addr *ctx, struct tag *tag, bool datagram)
{
	struct attempt attempt = {.port = bpf_ntohs(ctx->user_port), .datagram = datagram};
	u32 *words = (u32 *)attempt.remote;

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	return judge(ctx, tag, &attempt);
}

/* Each twice: by the task's storage where the kernel lets these programs read it, else by the table of processes. */
#define JUDGES(hook, name, judge, datagram)                                                                                          \
	SEC("cgroup/" hook)                                                                                                          \
	int network_##name(struct bpf_sock_addr *ctx)                                                                                \
	{                                                                                                                            \
		return judge(ctx, tag_of(bpf_get_current_task_btf()), datagram);                                                     \
	}                                                                                                                            \
	SEC("cgroup/" hook)                                                                                                          \
	int network_##name##_table(struct bpf_sock_addr *ctx)                                                                        \
	{                                                                                                                            \
		return judge(ctx, tag_by_process(), datagram);                                                                       \
	}

JUDGES("connect4", connect4, judge4, false)
JUDGES("connect6", connect6, judge6, false)
JUDGES("sendmsg4", send4, judge4, true)
JUDGES("sendmsg6", send6, judge6, true)

/* Sockets whose destinations no hook sees. A session whose policy restricts nothing may have them. */
static __always_inline int judge_socket(struct task_struct *task, struct tag *tag, u32 protocol)
{
	struct connection *record;
	struct policy *policy;

	if (!tag || is_agent(task))
		return PROCEED;
	policy = bpf_map_lookup_elem(&policies, &tag->policy);
	if (policy && !(policy->flags & POLICY_RESTRICTS) && !closed(tag))
		return PROCEED;
	if (quiet() || silent(tag))
		return REFUSE;
	count(&seen, KIND_CONNECTION_DENIED);
	record = full() ? 0 : bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_CONNECTION_DENIED);
		return REFUSE;
	}
	__builtin_memset(record, 0, sizeof(*record));
	fill_subject(&record->who, KIND_CONNECTION_DENIED, task, tag);
	record->protocol = protocol;
	record->error = EPERM;
	record->rule = RULE_PROTOCOL;
	bpf_ringbuf_submit(record, 0);
	return REFUSE;
}

static __always_inline bool judged_later(struct bpf_sock *ctx)
{
	return ctx->type == SOCK_STREAM || (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP);
}

SEC("cgroup/sock_create")
int network_socket(struct bpf_sock *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return judged_later(ctx) ? PROCEED : judge_socket(task, tag_of(task), ctx->protocol);
}

SEC("cgroup/sock_create")
int network_socket_table(struct bpf_sock *ctx)
{
	return judged_later(ctx) ? PROCEED : judge_socket(bpf_get_current_task_btf(), tag_by_process(), ctx->protocol);
}

/* Families that no cgroup hook sees: packets on the wire above all. */
SEC("lsm/socket_create")
int BPF_PROG(network_family_lsm, int family, int type, int protocol, int kernel, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (ret)
		return ret;
	if (kernel || family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK)
		return 0;
	return deny_if(judge_socket(task, tag_of(task), protocol) == REFUSE);
}

SEC("cgroup/sock_release")
int network_release(struct bpf_sock *ctx)
{
	struct socket_state *state;
	struct connection *record;
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
	if (!state->opened)
		return PROCEED;
	bpf_map_delete_elem(&connections, &cookie);
	count(&seen, KIND_CONNECTION_CLOSED);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_CONNECTION_CLOSED);
		return PROCEED;
	}
	fill_connection(record, state, KIND_CONNECTION_CLOSED);
	record->protocol = IPPROTO_UDP;
	record->cookie = cookie;
	record->sent = state->sent;
	record->received = state->received;
	bpf_ringbuf_submit(record, 0);
	return PROCEED;
}

/* ---- after ---- */

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

static __always_inline void tell_state(struct sock *sk, struct socket_state *state, u16 kind)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;
	u64 cookie = bpf_get_socket_cookie(sk);
	struct connection *record;

	count(&seen, kind);
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, kind);
		return;
	}
	fill_connection(record, state, kind);
	record->protocol = IPPROTO_TCP;
	record->cookie = cookie;
	if (kind == KIND_CONNECTION_FAILED) {
		record->error = BPF_CORE_READ(sk, sk_err);
		if (!record->error)
			record->error = BPF_CORE_READ(sk, sk_err_soft);
	}
	if (kind == KIND_CONNECTION_CLOSED) {
		record->sent = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans);
		record->received = BPF_CORE_READ(tcp, bytes_received);
		/* The kernel counts the peer's FIN as a byte. */
		if (record->received && BPF_CORE_READ(sk, __sk_common.skc_flags) & (1 << SOCK_DONE))
			record->received--;
	}
	if (kind == KIND_CONNECTION_ACCEPTED)
		remember(cookie, state, IPPROTO_TCP);
	bpf_ringbuf_submit(record, 0);
}

static __always_inline void start_socket(struct sock *sk, u32 role, u32 told)
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
		/* The twin may have more luck, and may not come: it is counted rather once too often. */
		if (!tag)
			return;
		count(&seen, KIND_CONNECTION_OPENED);
		count(&lost, KIND_CONNECTION_OPENED);
		return;
	}
	state->told = told;
	fill_subject(&state->who, 0, task, tag ? tag : &nobody);
	state->role = tag ? role : ROLE_PROMISED;
	state->opened = 0;
	if (state->role == ROLE_CONNECTS) {
		fill_addresses(state, sk);
		remember(bpf_get_socket_cookie(sk), state, IPPROTO_TCP);
	}
}

/* The handshake is done. */
static __always_inline bool established(u32 state)
{
	return 1u << state & (1u << TCP_ESTABLISHED | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK |
			      1u << TCP_CLOSING);
}

static __always_inline void change_state(struct sock *sk, u32 old, u32 new)
{
	struct socket_state *state;
	u64 cookie;

	if (sk->sk_protocol != IPPROTO_TCP || quiet())
		return;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (state) {
		if (state->told == new)
			return;
		state->told = new;
		if (state->role == ROLE_ATTEMPTS)
			state->role = 0;
	}
	if (new == TCP_SYN_SENT) {
		start_socket(sk, ROLE_CONNECTS, new);
		return;
	}
	if (new == TCP_LISTEN) {
		start_socket(sk, ROLE_LISTENS, new);
		return;
	}
	if (!state || state->role == ROLE_PROMISED)
		return;
	/* Whoever closes what TCP Fast Open brought before the handshake's end passes by TCP_ESTABLISHED. */
	if (!state->opened && (established(new) || established(old))) {
		fill_addresses(state, sk);
		state->opened = bpf_ktime_get_boot_ns();
		if (state->role == ROLE_LISTENS)
			state->role = ROLE_ACCEPTED;
		tell_state(sk, state, state->role == ROLE_ACCEPTED ? KIND_CONNECTION_ACCEPTED : KIND_CONNECTION_OPENED);
	}
	if (new != TCP_CLOSE || state->role == ROLE_LISTENS)
		return;
	cookie = bpf_get_socket_cookie(sk);
	bpf_map_delete_elem(&connections, &cookie);
	if (state->opened) {
		tell_state(sk, state, KIND_CONNECTION_CLOSED);
		state->opened = 0;
	} else if (old == TCP_SYN_SENT) {
		fill_addresses(state, sk);
		tell_state(sk, state, KIND_CONNECTION_FAILED);
	}
}

/* Twice at the same hook. The kernel doesn't run a program that is active on the CPU already, and a softirq (a packet, a timer) may
 * interrupt it to change another socket's state: that call finds this copy active, and the other not. It goes no deeper: a tracepoint's
 * programs aren't preempted, a softirq isn't interrupted by another, and what interrupts softirqs changes no socket's state. So one of
 * the two sees each change, and what the kernel counts as skipped (recursion_misses) isn't lost. Where both see it, the second finds it
 * done: a socket's lock brings its changes in order, and none leads to the state that it is in. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(network_state, struct sock *sk, int old, int new)
{
	change_state(sk, old, new);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(network_state_twin, struct sock *sk, int old, int new)
{
	change_state(sk, old, new);
	return 0;
}
