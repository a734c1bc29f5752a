/* What datagram sockets of sessions send to their peers and get from them: how many bytes, and a copy of what name servers answer, from
 * which user space learns by which name a session knows an address.
 *
 * At the root of cgroup2, for each packet that has a socket: on its way out before it is taken apart, on its way in when it has been put
 * together and before the socket's buffer takes it. What isn't a datagram leaves at the first look, what isn't of a session's socket at
 * the second. Nothing is refused here. */

struct datagram {
	u8 remote[16];
	u32 remote_port;
	u32 payload; /* where it begins */
};

/* Behind the headers that may stand between that of IPv6 and the datagram's own. */
static __always_inline bool skip_extensions(struct __sk_buff *skb, u8 next, u32 *at)
{
	for (u32 i = 0; i < 4 && next != IPPROTO_UDP; i++) {
		u8 head[2];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			return false;
		if (bpf_skb_load_bytes(skb, *at, head, sizeof(head)))
			return false;
		next = head[0];
		*at += 8 * (head[1] + 1);
	}
	return next == IPPROTO_UDP;
}

static __always_inline bool read_datagram(struct __sk_buff *skb, bool in, struct datagram *datagram)
{
	u16 port;
	u32 at;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		u32 address;
		u8 first;

		if (bpf_skb_load_bytes(skb, 0, &first, sizeof(first)) || bpf_skb_load_bytes(skb, in ? 12 : 16, &address, sizeof(address)))
			return false;
		map_address(datagram->remote, address);
		at = (first & 0xf) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		u8 next;

		if (bpf_skb_load_bytes(skb, 6, &next, sizeof(next)) ||
		    bpf_skb_load_bytes(skb, in ? 8 : 24, datagram->remote, sizeof(datagram->remote)))
			return false;
		at = 40;
		if (!skip_extensions(skb, next, &at))
			return false;
	} else {
		return false;
	}
	if (bpf_skb_load_bytes(skb, in ? at : at + 2, &port, sizeof(port)))
		return false;
	datagram->remote_port = bpf_ntohs(port);
	datagram->payload = at + 8;
	return true;
}

static __always_inline bool is_with(struct datagram *datagram, u8 *remote, u16 port)
{
	return datagram->remote_port == port && same_16(datagram->remote, remote);
}

/* Whether the socket has spoken to that peer first, so that it is one connection; then the bytes are counted. */
static __always_inline bool count_bytes(struct bpf_sock *sk, struct socket_state *state, struct datagram *datagram, bool in, u32 bytes)
{
	struct flows *table;

	if (state->opened && is_with(datagram, state->remote, state->remote_port)) {
		__sync_fetch_and_add(in ? &state->received : &state->sent, bytes);
		return true;
	}
	table = bpf_sk_storage_get(&flows, sk, 0, 0);
	if (!table)
		return false;
#pragma unroll
	for (u32 i = 0; i < FLOWS_MAX; i++) {
		struct flow *flow = &table->flow[i];

		if (flow->used && is_with(datagram, flow->remote, flow->remote_port)) {
			__sync_fetch_and_add(in ? &flow->received : &flow->sent, bytes);
			return true;
		}
	}
	return false;
}

#define ANSWER_MIN 12 /* its header */

/* Half of the ring is for evidence alone. */
static __always_inline void tell_answer(struct __sk_buff *skb, struct socket_state *state, u32 at, u32 length)
{
	struct answer *record;

	if (length < ANSWER_MIN || bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&records, BPF_RB_RING_SIZE) / 2)
		return;
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record)
		return;
	if (length > ANSWER_MAX)
		length = ANSWER_MAX;
	opaque(length);
	if (length > ANSWER_MAX || bpf_skb_load_bytes(skb, at, record->message, length)) {
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return;
	}
	record->who = state->who;
	record->who.kind = KIND_ANSWERED;
	record->who.time = bpf_ktime_get_boot_ns();
	record->length = length;
	record->reserved = 0;
	bpf_ringbuf_submit(record, 0);
}

#define PORT_OF_NAMES 53

static __always_inline int pass(struct __sk_buff *skb, bool in)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_state *state;
	struct datagram datagram;
	u32 bytes;

	if (!sk)
		return PROCEED;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_UDP || sk->type != SOCK_DGRAM)
		return PROCEED;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!state || state->role != ROLE_DATAGRAM || quiet())
		return PROCEED;
	if (!read_datagram(skb, in, &datagram) || skb->len < datagram.payload)
		return PROCEED;
	bytes = skb->len - datagram.payload;
	if (count_bytes(sk, state, &datagram, in, bytes) && in && datagram.remote_port == PORT_OF_NAMES)
		tell_answer(skb, state, datagram.payload, bytes);
	return PROCEED;
}

SEC("cgroup_skb/ingress")
int datagram_in(struct __sk_buff *skb)
{
	return pass(skb, true);
}

SEC("cgroup_skb/egress")
int datagram_out(struct __sk_buff *skb)
{
	return pass(skb, false);
}
