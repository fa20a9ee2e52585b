/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One queue: bytes that come to a mapped socket by TCP go where redirected ones go. That is what
 * order.h builds on, and what makes FIONREAD, poll and recv right whichever way bytes came.
 *
 * The kernel hands over whole segments, even one whose beginning it has received before, as a
 * retransmission that was merged with the segment behind it (tcp_read_skb(), at least 6.0 to 7.2;
 * a reader on plain TCP skips that part). Its beginning is cut off here, else the reader would get
 * those bytes twice.
 */
#ifndef SOCKREDIR_RECEIVE_H
#define SOCKREDIR_RECEIVE_H

#include "flow.h"

/* The kernel cuts off no more at once, and may be short of memory for a moment. */
#define CUT_MOST  4095
#define CUT_TRIES 64

struct cut {
	struct __sk_buff *skb;
	__u32 left;
};

static long cut_piece(__u32 turn, struct cut *c)
{
	__s32 piece = c->left < CUT_MOST ? c->left : CUT_MOST;

	(void)turn;
	if (!bpf_skb_adjust_room(c->skb, -piece, 0, 0))
		c->left -= piece;
	return !c->left;
}

/* Cuts off the first `size` bytes; false if the kernel would not. */
static __always_inline bool cut_head(struct __sk_buff *skb, __u32 size)
{
	struct cut c = {.skb = skb, .left = size};

	repeat(CUT_TRIES, cut_piece, &c);
	return !c.left;
}

/* The side of the socket that a segment has come to. */
static __always_inline struct sockredir_side *side_of(const struct tcp_sock *tp)
{
	struct sockredir_flow *flow;
	struct names names;
	int index;

	flow = flow_of_mapped(tp, &names, &index);
	return flow ? flow_side(flow, index) : NULL;
}

/* Takes a segment into the queue, less what is there already. */
static __always_inline bool take(struct __sk_buff *skb, const struct tcp_sock *tp)
{
	struct sockredir_side *own = side_of(tp);
	__u32 begin = skb->cb[0], end = skb->cb[1]; /* TCP_SKB_CB(skb)->seq and end_seq */
	__s32 again;

	if (!own)
		return true;
	own->run = 0; /* the peer has sent */
	again = own->queued - begin;
	own->queued = end;
	if (likely(again <= 0))
		return true;
	count(SOCKREDIR_CUT, again);
	return cut_head(skb, again);
}

#endif /* SOCKREDIR_RECEIVE_H */
