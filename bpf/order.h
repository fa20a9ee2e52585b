/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Order: when may a message be redirected after others went by TCP?
 *
 * Only when all of those lie in the queue that a redirect appends to. That queue takes TCP's bytes
 * too where program `receive` is attached (one queue); S is the sending socket, locked while its
 * verdict runs, P its peer.
 *
 *  1. P's rcv_nxt equals S's write_seq: TCP has brought P every byte that S ever gave it. Who
 *     moved rcv_nxt there did so in a section of P's lock, and in the same section gives the bytes
 *     to `receive`, which puts them in the queue, or in ingress_skb if memory is short.
 *  2. Then P's lock was seen free: that section is over.
 *  3. Then sk_receive_queue and ingress_skb were seen empty: nothing was left behind (a socket
 *     that nobody has accepted yet), and what was short of memory is in the queue by now: it is
 *     taken off ingress_skb after it was put there.
 *  4. The redirect itself locks P, after all of that, and appends.
 *
 * S sends nothing meanwhile: another thread that does on the same socket has no order to this one.
 * `edge` is the write_seq of which 1 to 3 were seen; unchanged, nothing needs to be looked up.
 */
#ifndef SOCKREDIR_ORDER_H
#define SOCKREDIR_ORDER_H

#include "budget.h"

/* Orders what was read before it and what is read after it, on every architecture. */
static __always_inline void read_barrier(struct sockredir_side *own)
{
	__sync_fetch_and_or(&own->flags, 0);
}

static __always_inline bool all_queued(const struct tcp_sock *tp, struct sockredir_side *own,
				       const struct sockredir_side *peer)
{
	if (expects(peer) != tp->write_seq)
		return false;
	read_barrier(own);
	if (!is_unlocked(peer))
		return false;
	read_barrier(own);
	return !not_yet_queued(peer) && still_there(peer);
}

/* Before the first message: TCP carries this direction already, or is about to (fast open). */
static __always_inline bool sent_by_tcp(const struct tcp_sock *tp)
{
	return tp->bytes_sent || tp->write_seq != tp->snd_una;
}

/*
 * The first message: from here on `edge` is kept. There is a way back from TCP where P has one
 * queue, and where both ends number the bytes alike (a proxy of SYN packets may come between).
 */
static __always_inline void begin_direction(const struct tcp_sock *tp, struct sockredir_side *own,
					    const struct sockredir_side *peer)
{
	own->edge = tp->write_seq;
	own->way_back = has_one_queue(peer) && expects(peer) == tp->write_seq;
}

/* 0: this message may be redirected, as far as order goes; or why not. */
static __always_inline __u32 order(const struct tcp_sock *tp, struct sockredir_side *own,
				   const struct sockredir_side *peer)
{
	if (likely(tp->write_seq == own->edge))
		return 0;
	if (!own->way_back)
		return SOCKREDIR_SENT_BEFORE;
	if (!all_queued(tp, own, peer))
		return SOCKREDIR_BEHIND;
	own->edge = tp->write_seq;
	widen(own, peer);
	return 0;
}

#endif /* SOCKREDIR_ORDER_H */
