/* Packets on their way out of sockets of sessions under rules: where they really go.
 *
 * What the hooks of connect and sendmsg judge is the address that a process names. The kernel may send to another one: by a source route
 * among the socket's options, or where somebody has it translate addresses. And a datagram socket that has a peer goes on sending to it
 * when that becomes denied. */
#pragma once

#include "connection.h"

/* When something was told last of a socket whose packets are refused: they are sent again and again. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} packets_refused SEC(".maps");

#define TOLD_AGAIN_AFTER 1000000000ull
#define TCP_FLAG_SYN 2

struct packet {
	u8 remote[16];
	u16 port;
	bool first; /* of a connection; each datagram is */
	bool detours; /* has options that may lead it elsewhere */
};

/* Behind the headers that may stand between that of IPv6 and the transport's. */
static __always_inline bool skip_extensions(struct __sk_buff *skb, u8 transport, u8 next, u32 *at)
{
	for (u32 i = 0; i < 4 && next != transport; i++) {
		u8 head[2];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			return false;
		if (bpf_skb_load_bytes(skb, *at, head, sizeof(head)))
			return false;
		next = head[0];
		*at += 8 * (head[1] + 1);
	}
	return next == transport;
}

/* Where the header of the transport begins. */
static __always_inline bool skip_network(struct __sk_buff *skb, u8 transport, u32 *at)
{
	u8 first, next;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &first, sizeof(first)))
			return false;
		*at = (first & 0xf) * 4;
		return true;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, 6, &next, sizeof(next)))
		return false;
	*at = 40;
	return skip_extensions(skb, transport, next, at);
}

/* Where a packet goes. */
static __always_inline bool read_packet(struct __sk_buff *skb, u32 protocol, struct packet *packet)
{
	u8 flags, within;
	u32 address, at;
	u16 port;

	if (!skip_network(skb, protocol, &at))
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		packet->detours = at > 20;
		/* What is encrypted, or carried within another packet, was judged before that. */
		if (bpf_skb_load_bytes(skb, 9, &within, sizeof(within)) || within != protocol)
			return false;
		if (bpf_skb_load_bytes(skb, 16, &address, sizeof(address)))
			return false;
		map_address(packet->remote, address);
	} else {
		packet->detours = at > 40;
		if (bpf_skb_load_bytes(skb, 24, packet->remote, sizeof(packet->remote)))
			return false;
	}
	if (bpf_skb_load_bytes(skb, at + 2, &port, sizeof(port)))
		return false;
	packet->port = bpf_ntohs(port);
	packet->first = true;
	if (protocol != IPPROTO_TCP)
		return true;
	if (bpf_skb_load_bytes(skb, at + 13, &flags, sizeof(flags)))
		return false;
	packet->first = flags & TCP_FLAG_SYN;
	return true;
}

static __always_inline void tell_packet(struct __sk_buff *skb, struct bpf_sock *sk, struct socket_state *state, struct packet *packet,
					u32 rule, u32 flags)
{
	u64 *told = bpf_sk_storage_get(&packets_refused, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	u64 now = bpf_ktime_get_boot_ns();
	struct connection *record;

	if (told && *told && now - *told < TOLD_AGAIN_AFTER)
		return;
	if (told)
		*told = now;
	count(&seen, KIND_CONNECTION_DENIED);
	record = full() ? 0 : bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		count(&lost, KIND_CONNECTION_DENIED);
		return;
	}
	fill_connection(record, state, KIND_CONNECTION_DENIED);
	__builtin_memcpy(record->remote, packet->remote, 16);
	record->remote_port = packet->port;
	record->protocol = sk->protocol;
	record->flags |= flags;
	record->error = EPERM;
	record->rule = rule;
	record->cookie = bpf_get_socket_cookie(skb);
	bpf_ringbuf_submit(record, 0);
}

/* Of a connection the first packet is judged by the lists, and each one for options: they can be set when it stands. Under a list of what is
 * allowed, what a packet's address was translated to isn't asked for: that is how services are reached that have one address and several
 * machines. What a peer has begun isn't judged by the lists here. Under a policy that nobody has set, or that was dropped, nothing leaves. */
static __always_inline bool refuses_packet(struct __sk_buff *skb, struct bpf_sock *sk, struct socket_state *state)
{
	struct policy *policy = bpf_map_lookup_elem(&policies, &state->who.policy);
	u32 rule = RULE_NO_POLICY, flags = 0;
	struct packet packet = {};
	bool readable;

	if (policy && (!(policy->flags & POLICY_RESTRICTS) || state->role == ROLE_ACCEPTED || state->role == ROLE_LISTENS))
		return false;
	readable = read_packet(skb, sk->protocol, &packet);
	if (policy) {
		rule = RULE_PROTOCOL;
		if (!readable)
			return false;
		if (!packet.detours &&
		    (!packet.first || !on_list(&denied, policy->rules, packet.remote, packet.port, sk->protocol, &rule)))
			return false;
		flags = policy->flags & POLICY_ENDS_SESSION ? CONNECTION_ENDS_SESSION : 0;
	}
	if (!quiet())
		tell_packet(skb, sk, state, &packet, rule, flags);
	return true;
}
