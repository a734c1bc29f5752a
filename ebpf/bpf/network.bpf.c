/* What a session's processes may connect to.
 *
 * The cgroup hooks connect4/6 and sendmsg4/6 at the root of cgroup2 see each address after the kernel has copied it (so no other thread
 * swaps it), for TCP with and without Fast Open, MPTCP, UDP, io_uring; they answer EPERM. A kind of socket whose sends they don't see
 * (raw, SCTP, ping; MPTCP, to which the kernel itself adds connections) is refused to sessions under rules. What becomes of what may be is
 * told in socket.bpf.c, of datagrams in flow.h: by what is kept with the socket. Where nothing can be kept, nothing may be. */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct net_key);
	__type(value, struct net_rule);
} denied SEC(".maps"), allowed SEC(".maps");

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

static __always_inline bool on_list(void *list, u32 rules, u8 *address, u16 port, u32 protocol, u32 *rule)
{
	struct net_key key = {.prefix_len = 160, .rules = rules};
	struct net_rule *net;

	__builtin_memcpy(key.address, address, 16);
	net = bpf_map_lookup_elem(list, &key);
	return net && in_ranges(net, port, protocol, rule);
}

/* Deny wins; where there is an allow list, what it doesn't hold is denied; a policy that nobody has set allows nothing. */
static __always_inline bool denies(struct tag *tag, u8 *address, u16 port, u32 protocol, u32 *rule, u32 *flags)
{
	struct policy *policy = bpf_map_lookup_elem(&policies, &tag->policy);

	if (!policy) {
		*rule = RULE_NO_POLICY;
		return true;
	}
	if (policy->flags & POLICY_ENDS_SESSION)
		*flags |= CONNECTION_ENDS_SESSION;
	if (on_list(&denied, policy->rules, address, port, protocol, rule))
		return true;
	if (!(policy->flags & POLICY_ALLOW_LIST) || on_list(&allowed, policy->rules, address, port, protocol, rule))
		return false;
	*rule = RULE_NOT_ALLOWED;
	return true;
}

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

/* A socket that may not be made, or may not listen: it has no peer yet. */
static __always_inline void tell_kept_back(struct task_struct *task, struct tag *tag, u32 protocol, u32 rule)
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
	record->protocol = protocol;
	record->error = EPERM;
	record->rule = rule;
	bpf_ringbuf_submit(record, 0);
}

#define REFUSE 0
#define PROCEED 1

/* What may be is told from here on, if it can be. */
static __always_inline bool begin_to_tell(struct bpf_sock_addr *ctx, struct task_struct *task, struct tag *tag, struct attempt *attempt)
{
	if (ctx->type == SOCK_DGRAM)
		return attempt->datagram ? fold_datagram(ctx, task, tag, attempt) : open_datagram(ctx, task, tag, attempt);
	return ctx->protocol != IPPROTO_TCP || keep_attempt(ctx, task, tag, attempt);
}

static __always_inline int judge(struct bpf_sock_addr *ctx, struct tag *tag, struct attempt *attempt)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 rule = RULE_CLOSED, flags = 0;

	if (!closed(tag) &&
	    !denies(tag, attempt->remote, attempt->port, ctx->protocol == IPPROTO_MPTCP ? IPPROTO_TCP : ctx->protocol, &rule, &flags)) {
		if (quiet() || silent(tag) || begin_to_tell(ctx, task, tag, attempt))
			return PROCEED;
		rule = RULE_CLOSED;
		flags = 0;
	}
	if (!quiet() && !silent(tag))
		tell_denied(ctx, task, tag, attempt, rule, flags);
	return REFUSE;
}

/* Whoever names no address reaches this host: where the socket is bound, or by loopback, which is all that IPv6 knows. It is named in the
 * kernel's place, so that what is judged and told is what is connected to. */

#define LOOPBACK bpf_htonl(0x7f000001)
#define MAPPED bpf_htonl(0xffff)

static __always_inline void name_host4(struct bpf_sock_addr *ctx)
{
	u32 own = ctx->sk ? ctx->sk->src_ip4 : 0;

	ctx->user_ip4 = own ? own : LOOPBACK;
}

static __always_inline bool bound_to_mapped(struct bpf_sock *sk)
{
	return sk && !sk->src_ip6[0] && !sk->src_ip6[1] && sk->src_ip6[2] == MAPPED;
}

static __always_inline void name_host6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (ctx->user_ip6[2] == MAPPED) {
		u32 own = bound_to_mapped(sk) ? sk->src_ip6[3] : 0;

		ctx->user_ip6[3] = own ? own : LOOPBACK;
	} else if (bound_to_mapped(sk)) {
		ctx->user_ip6[2] = MAPPED;
		ctx->user_ip6[3] = LOOPBACK;
	} else {
		ctx->user_ip6[3] = bpf_htonl(1);
	}
}

static __always_inline bool names_nobody(struct bpf_sock_addr *ctx)
{
	u32 third = ctx->user_ip6[2];

	return !ctx->user_ip6[0] && !ctx->user_ip6[1] && (!third || third == MAPPED) && !ctx->user_ip6[3];
}

static __always_inline bool is_judged(struct tag *tag)
{
	return tag && !is_agent(bpf_get_current_task_btf());
}

static __always_inline int judge4(struct bpf_sock_addr *ctx, struct tag *tag, bool datagram)
{
	struct attempt attempt = {.port = bpf_ntohs(ctx->user_port), .datagram = datagram};

	if (!is_judged(tag))
		return PROCEED;
	if (!ctx->user_ip4)
		name_host4(ctx);
	map_address(attempt.remote, ctx->user_ip4);
	return judge(ctx, tag, &attempt);
}

static __always_inline int judge6(struct bpf_sock_addr *ctx, struct tag *tag, bool datagram)
{
	struct attempt attempt = {.port = bpf_ntohs(ctx->user_port), .datagram = datagram};
	u32 *words = (u32 *)attempt.remote;

	if (!is_judged(tag))
		return PROCEED;
	if (names_nobody(ctx))
		name_host6(ctx);
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

/* A socket that is about to be made. */
struct made {
	u32 family;
	u32 type; /* with flags of socket(2) perhaps */
	u32 protocol;
};

static __always_inline void tell_socket(struct task_struct *task, struct tag *tag, struct made *made)
{
	struct act *record = act_begin(KIND_SOCKET, task, tag);

	if (!record)
		return;
	record->number[0] = made->family;
	record->number[1] = made->type & SOCK_TYPE_MASK;
	record->number[2] = made->protocol;
	bpf_ringbuf_submit(record, 0);
}

/* Sockets whose destinations no hook sees. A session whose policy restricts nothing may have them, which is told; of MPTCP its first connection
 * is. */
static __always_inline int judge_socket(struct task_struct *task, struct tag *tag, struct made *made)
{
	struct policy *policy;
	bool shut;

	if (!tag || is_agent(task))
		return PROCEED;
	policy = bpf_map_lookup_elem(&policies, &tag->policy);
	shut = closed(tag);
	if (policy && !(policy->flags & POLICY_RESTRICTS) && !shut) {
		__sync_fetch_and_or(&policy->flags, POLICY_UNFOLLOWED);
		if (!quiet() && !silent(tag) && made->protocol != IPPROTO_MPTCP)
			tell_socket(task, tag, made);
		return PROCEED;
	}
	if (!quiet() && !silent(tag))
		tell_kept_back(task, tag, made->protocol, shut ? RULE_CLOSED : policy ? RULE_PROTOCOL : RULE_NO_POLICY);
	return REFUSE;
}

/* Of streams, those of TCP alone: SCTP has them too, and connects without the hooks above, as do the further connections of MPTCP, which a
 * worker of the kernel makes when the peer or a setting says so: nobody's process. */
static __always_inline bool judged_later(struct bpf_sock *ctx)
{
	if (ctx->type == SOCK_STREAM)
		return ctx->protocol == IPPROTO_TCP;
	return ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP;
}

/* Places with a new socket for what there will be to tell. They are charged to the memory that it may have for options (net.core.optmem_max),
 * which whoever has the socket can use up from then on: by a filter of some thousand instructions. */
static __always_inline bool make_places(struct bpf_sock *ctx, struct task_struct *task, struct tag *tag)
{
	struct socket_state *state = bpf_sk_storage_get(&sockets, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!state)
		return false;
	fill_subject(&state->who, 0, task, tag);
	if (ctx->type != SOCK_DGRAM)
		return true;
	return bpf_sk_storage_get(&flows, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

static __always_inline int judge_made(struct bpf_sock *ctx, struct tag *tag)
{
	struct made made = {.family = ctx->family, .type = ctx->type, .protocol = ctx->protocol};
	struct task_struct *task = bpf_get_current_task_btf();

	if (!judged_later(ctx))
		return judge_socket(task, tag, &made);
	if (!is_judged(tag) || quiet() || silent(tag) || make_places(ctx, task, tag))
		return PROCEED;
	tell_kept_back(task, tag, made.protocol, RULE_CLOSED);
	return REFUSE;
}

SEC("cgroup/sock_create")
int network_socket(struct bpf_sock *ctx)
{
	return judge_made(ctx, tag_of(bpf_get_current_task_btf()));
}

SEC("cgroup/sock_create")
int network_socket_table(struct bpf_sock *ctx)
{
	return judge_made(ctx, tag_by_process());
}

/* Families that a cgroup hook sees, or that lead nowhere but to this host. */
static __always_inline bool judged_elsewhere(u32 family)
{
	return family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK;
}

/* And those that none does: packets on the wire above all. */
SEC("lsm/socket_create")
int BPF_PROG(network_family_lsm, int family, int type, int protocol, int kernel)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct made made = {.family = family, .type = type, .protocol = protocol};

	if (kernel || judged_elsewhere(family))
		return 0;
	return deny_if(judge_socket(task, tag_of(task), &made) == REFUSE);
}

/* A listener that a session hasn't made itself may have no place for what there will be to tell, which it also gives to whom it accepts. By
 * tracepoints whoever listens with such a one is killed (socket.bpf.c). */
SEC("lsm/socket_listen")
int BPF_PROG(network_listen_lsm, struct socket *socket)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tag *tag = watched(task);
	struct sock *sk = socket->sk;
	bool refuse;

	if (!tag || silent(tag) || !sk || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	refuse = !bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (refuse)
		tell_kept_back(task, tag, IPPROTO_TCP, RULE_CLOSED);
	return deny_if(refuse);
}
