/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The verdict on a message: redirected, or left to TCP and why. It runs with the sending socket
 * locked, before TCP has seen anything of the message.
 */
#ifndef SOCKREDIR_VERDICT_H
#define SOCKREDIR_VERDICT_H

#include "budget.h"
#include "comeback.h"
#include "demotion.h"
#include "flow.h"
#include "order.h"
#include "policy.h"
#include "wait.h"

/* Is the connection better left to TCP as a whole? Not for bytes that were there before we were. */
static __always_inline bool gives_up(const struct sockredir_side *own)
{
	return own->state != SOCKREDIR_NO_PEER && own->state != SOCKREDIR_SENT_BEFORE;
}

/* 0: nothing speaks against redirecting in this direction; or the reason that does, for good. */
static __always_inline __u32 against(const struct tcp_sock *tp, struct sockredir_side *own,
				     const struct sockredir_side *peer, const struct sockredir_settings *s)
{
	if (unlikely(for_good(own)))
		return own->state;
	if (unlikely(mode_of(s) != SOCKREDIR_MODE_ENFORCE))
		return SOCKREDIR_DRAINED;
	if (unlikely(tp->inet_conn.icsk_ulp_ops))
		return SOCKREDIR_ULP;
	if (likely(own->state != SOCKREDIR_UNDECIDED))
		return 0;
	if (unlikely(!peer->cookie))
		return SOCKREDIR_NO_PEER;
	if (unlikely(sent_by_tcp(tp)))
		return SOCKREDIR_SENT_BEFORE;
	begin_direction(tp, own, peer);
	return 0;
}

/* A bound of what will lie unread with this message; looked up if it matters. */
static __always_inline __u64 unread_with(struct sockredir_side *own, const struct sockredir_side *peer,
					 __u32 size)
{
	if (unlikely(own->unread + size > LOOK_ABOVE))
		own->unread = unread_bound(own, look_at(peer));
	return own->unread + size;
}

/*
 * Would turning to TCP show? It may make the writer sleep until there is room in the send buffer.
 * That wakes a thread that sleeps in recv on the same socket too, and it would return EAGAIN. And a
 * message of io_uring that TCP takes only in part continues at the wrong byte (MSG_WAITALL in a
 * socket of a map, at least 6.12 to 6.18).
 */
static __always_inline bool shows_turning(const struct tcp_sock *tp)
{
	return has_sleeper(as_sock(tp)) || uses_uring();
}

/* Then only the budget limits, unless TCP would have to drop what comes to a full buffer. */
static __always_inline __u64 window_for(const struct tcp_sock *tp, const struct sockredir_side *own,
					const struct sockredir_side *peer, __u32 size)
{
	__u64 window = window_of(own, peer);

	if (unlikely(own->unread + size > window) && takes_one_when_full() && shows_turning(tp))
		return NO_WINDOW;
	return window;
}

/*
 * TCP of the whole host is short of memory: what a redirect charges the reader for is refused then,
 * and the writer told ENOMEM, where TCP would wait.
 */
static __always_inline bool host_is_short(const struct tcp_sock *tp)
{
	unsigned long *flag = as_sock(tp)->__sk_common.skc_prot->memory_pressure;
	unsigned long pressure = 0;

	bpf_probe_read_kernel(&pressure, sizeof(pressure), flag);
	return pressure;
}

/* Is there room before the reader, or soon? 0, or why not. */
static __always_inline __u32 make_room(const struct tcp_sock *tp, struct sockredir_side *own,
				       const struct sockredir_side *peer, __u32 size, __u64 budget)
{
	__u64 window;

	if (unlikely(host_is_short(tp)))
		return SOCKREDIR_OVER_BUDGET;
	if (likely(unread_with(own, peer, size) <= LOOK_ABOVE)) {
		wait_for_reader(own, peer, LOOK_ABOVE);
	} else {
		window = window_for(tp, own, peer, size);
		if (size > window)
			return SOCKREDIR_AHEAD;
		wait_for_reader(own, peer, window - size);
		if (own->unread + size > window)
			return SOCKREDIR_AHEAD;
	}
	return pay(own, size, budget) ? 0 : SOCKREDIR_OVER_BUDGET;
}

/* Hands the message to the peer: SOCKREDIR_REDIRECTED or why that was not to be. */
static __always_inline __u32 redirect(struct sk_msg_md *msg, struct sockredir_key *peer,
				      struct sockredir_side *own, __u32 size)
{
	if (__sync_fetch_and_or(&own->flags, SOCKREDIR_SIDE_STARTED) & SOCKREDIR_SIDE_BARRED)
		return SOCKREDIR_DEMOTED;
	if (unlikely(peers_redirect(msg, peer) != SK_PASS))
		return SOCKREDIR_REFUSED;
	own->bytes += size;
	return SOCKREDIR_REDIRECTED;
}

static __always_inline __u32 choose(struct sk_msg_md *msg, const struct tcp_sock *tp, struct names *names,
				    struct sockredir_flow *flow, int index,
				    const struct sockredir_settings *s, __u32 size)
{
	struct sockredir_side *own = flow_side(flow, index);
	struct sockredir_side *peer = flow_side(flow, !index);
	bool long_run = overrun(s, own, peer, size);
	__u32 why = against(tp, own, peer, s);

	if (!why && unlikely(long_run) && may_demote(tp, own))
		why = SOCKREDIR_DEMOTED;
	if (!why)
		why = order(tp, own, peer);
	if (!why)
		why = make_room(tp, own, peer, size, s->budget);
	if (!why)
		why = redirect(msg, &names->peer, own, size);
	if (likely(why == SOCKREDIR_REDIRECTED))
		earn(own, &names->self);
	own->state = why;
	spare_uring(own);
	if (unlikely(for_good(own)) && (long_run || gives_up(own)))
		bar(peer);
	return why;
}

/* How this message goes: SOCKREDIR_REDIRECTED, or the reason why by TCP. */
static __always_inline __u32 handle(struct sk_msg_md *msg, const struct tcp_sock *tp, __u32 size)
{
	struct sockredir_settings *s = get_settings();
	struct sockredir_flow *flow;
	struct names names;
	int index;

	flow = flow_of_mapped(tp, &names, &index);
	if (!flow || !s)
		return SOCKREDIR_NO_FLOW;
	flow_side(flow, index)->messages++;
	return choose(msg, tp, &names, flow, index, s, size);
}

#endif /* SOCKREDIR_VERDICT_H */
