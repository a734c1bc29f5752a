/* What datagram sockets of sessions send to their peers and get from them: how many bytes. And what name servers answer, by datagrams and
 * by TCP.
 *
 * At the root of cgroup2, for each packet that has a socket: on its way out before it is taken apart, on its way in when it has been put
 * together and before the socket's buffer takes it. What is neither leaves at the first look, what isn't of a session's socket at
 * the second. What goes where a session may not go is refused here too (packet.h). */

#include "answer.h"
#include "packet.h"

struct datagram {
	u8 remote[16];
	u32 remote_port;
	u32 payload; /* where it begins */
};

static __always_inline bool read_datagram(struct __sk_buff *skb, bool in, struct datagram *datagram)
{
	u16 port;
	u32 at;

	if (!skip_network(skb, IPPROTO_UDP, &at))
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		u32 address;

		if (bpf_skb_load_bytes(skb, in ? 12 : 16, &address, sizeof(address)))
			return false;
		map_address(datagram->remote, address);
	} else if (bpf_skb_load_bytes(skb, in ? 8 : 24, datagram->remote, sizeof(datagram->remote))) {
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

static __always_inline void count_datagram(struct __sk_buff *skb, struct bpf_sock *sk, struct socket_state *state, bool in)
{
	struct datagram datagram;
	u32 bytes;

	if (state->role != ROLE_DATAGRAM || quiet())
		return;
	if (!read_datagram(skb, in, &datagram) || skb->len < datagram.payload)
		return;
	bytes = skb->len - datagram.payload;
	if (count_bytes(sk, state, &datagram, in, bytes) && in && datagram.remote_port == PORT_OF_NAMES)
		tell_answer(skb, state, datagram.payload, bytes);
}

static __always_inline int arrive(struct __sk_buff *skb, struct bpf_sock *sk)
{
	bool datagram = sk->protocol == IPPROTO_UDP && sk->type == SOCK_DGRAM;
	struct socket_state *state;
	u32 at;

	if (!datagram && (sk->protocol != IPPROTO_TCP || sk->dst_port != bpf_htons(PORT_OF_NAMES)))
		return PROCEED;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!state)
		return PROCEED;
	if (datagram)
		count_datagram(skb, sk, state, true);
	else if (state->role == ROLE_CONNECTS && !quiet() && skip_network(skb, IPPROTO_TCP, &at))
		follow_answers(skb, state, at);
	return PROCEED;
}

static __always_inline int leave(struct __sk_buff *skb, struct bpf_sock *sk)
{
	bool datagram = sk->protocol == IPPROTO_UDP && sk->type == SOCK_DGRAM;
	struct socket_state *state;

	if (!datagram && sk->protocol != IPPROTO_TCP)
		return PROCEED;
	state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!state || !state->role || state->role == ROLE_PROMISED)
		return PROCEED; /* no session's, or not in use by one yet */
	if (refuses_packet(skb, sk, state))
		return REFUSE;
	if (datagram)
		count_datagram(skb, sk, state, false);
	return PROCEED;
}

SEC("cgroup_skb/ingress")
int datagram_in(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;

	return sk ? arrive(skb, sk) : PROCEED;
}

SEC("cgroup_skb/egress")
int datagram_out(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;

	return sk ? leave(skb, sk) : PROCEED;
}
