/* What name servers answer to sockets of sessions: a copy for user space, which learns from it by which name a session knows an address. */
#pragma once

#include "connection.h"

#define PORT_OF_NAMES 53
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
	if (length < ANSWER_MIN || length > ANSWER_MAX || bpf_skb_load_bytes(skb, at, record->message, length)) {
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

/* The beginning of TCP's header (RFC 9293, 3.1). */
struct segment_head {
	u16 ports[2];
	u32 sequence;
	u32 acknowledged;
	u8 words; /* of the header, in the upper half */
	u8 flags;
	u16 window;
};
#define SEGMENT_SYN 0x02

/* So many in one packet are told. */
#define ANSWERS_MAX 8

/* In a stream each message stands behind its length (RFC 1035, 4.2.2), in the same packet or not. Where a packet is lost, or a length is cut in two,
 * what follows isn't told. */
static __always_inline void follow_answers(struct __sk_buff *skb, struct socket_state *state, u32 at)
{
	struct segment_head head;
	u32 sequence, begin, bytes;

	if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
		return;
	sequence = bpf_ntohl(head.sequence);
	if (head.flags & SEGMENT_SYN) {
		state->answer_at = sequence + 1;
		state->answer_length = 0;
		return;
	}
	begin = at + (head.words >> 4) * 4;
	if (skb->len <= begin)
		return;
	bytes = skb->len - begin;
	for (u32 i = 0; i < ANSWERS_MAX; i++) {
		u32 before = state->answer_at - sequence, left;

		if (before >= bytes)
			return;
		if (!state->answer_length) {
			u8 length[2];

			if (bytes - before < sizeof(length) || bpf_skb_load_bytes(skb, begin + before, length, sizeof(length)))
				return;
			state->answer_length = length[0] << 8 | length[1];
			state->answer_at += sizeof(length);
			before += sizeof(length);
			if (before >= bytes)
				return;
		}
		left = bytes - before;
		tell_answer(skb, state, begin + before, left < state->answer_length ? left : state->answer_length);
		state->answer_at += state->answer_length;
		state->answer_length = 0;
	}
}
