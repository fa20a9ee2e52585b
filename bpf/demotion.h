/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Patterns that redirection does not pay for, and the way out of the map.
 *
 * One-way runs of small messages are TCP's: it coalesces them, a redirect wakes the reader for
 * each. A direction with such a run goes to TCP, and the opposite one is barred from redirecting,
 * so that the socket can leave the map and costs nothing from then on.
 *
 * Leaving throws away what was redirected to the socket and not read, so nothing may be there or
 * on its way. leave() runs in a callback of the leaving socket S, with S locked; P is its peer.
 *
 *  - P's program sets STARTED on its side before each redirect and gives up if BARRED was set; we
 *    set BARRED and look at STARTED. Both are one atomic operation on the same word, hence:
 *  - STARTED not seen: P never redirected, and will find BARRED when it comes to it.
 *  - STARTED seen: a sender in P that did not find BARRED set STARTED before us. It holds a
 *    reference to P's psock from before its program ran until its bytes lie in S's queue. P in the
 *    map holds one more. So one reference, read after setting BARRED, means that no such sender is
 *    left; none at all (no psock) says the same. P may be about to lose the map's reference:
 *    P says LEFT, or clears its cookie, before that, and we read these after the references.
 *  - What such senders queued is in S's queue, which they append to with S locked, as it is now:
 *    S's queue being empty, nothing is lost.
 */
#ifndef SOCKREDIR_DEMOTION_H
#define SOCKREDIR_DEMOTION_H

#include "look.h"
#include "policy.h"
#include "pressure.h"

/*
 * Notes a message; true when the run has become too long. Big messages count only on TCP. Whether
 * the peer has sent meanwhile is asked at the end of a run, not at each message: its CPU writes there.
 */
static __always_inline bool overrun(const struct sockredir_settings *s, struct sockredir_side *own,
				    const struct sockredir_side *peer, __u32 size)
{
	__u16 heard;

	if (!s->demote_below || (own->state <= SOCKREDIR_WOULD_REDIRECT && size >= s->demote_below)) {
		own->run = 0;
		return false;
	}
	if (likely(own->run < s->demote_after && own->run < 0xffff)) {
		own->run++;
		return false;
	}
	heard = *(volatile __u32 *)&peer->messages;
	if (heard == own->heard)
		return true;
	own->heard = heard;
	own->run = 1;
	return false;
}

/*
 * May a redirected direction turn to TCP for no reason but speed? Not while a thread waits in recv
 * on the sending socket, or soon may, having left bytes unread: once its writer blocks on TCP, room
 * in the send buffer wakes that recv too, which then says EAGAIN.
 */
static __always_inline bool may_demote(const struct tcp_sock *tp, struct sockredir_side *own,
				       const struct sockredir_side *peer)
{
	if (!brim_ahead(own, peer) && look_at(own).look == LOOK_EMPTY &&
	    !has_sleeper((struct sock *)&tp->inet_conn.icsk_inet.sk))
		return true;
	own->run = 0; /* ask again after as many messages */
	return false;
}

static __always_inline void bar(struct sockredir_side *side)
{
	if (!(side->flags & SOCKREDIR_SIDE_BARRED))
		__sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_BARRED);
}

/* Nobody is between the verdict of `side`'s socket and the peer's queue. BARRED is set. */
static __always_inline bool no_redirect_in_flight(struct sockredir_side *side)
{
	struct sk_psock *psock;
	int references = 0;
	__u64 flags;

	if (!still_there(side))
		return false;
	psock = psock_of(side);
	if (psock && bpf_core_read(&references, sizeof(references), &psock->refcnt.refs.counter))
		return false;
	flags = __sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_BARRED); /* orders the reads */
	if (!still_there(side))
		return false;
	return psock ? references == 1 && !(flags & SOCKREDIR_SIDE_LEFT) : true;
}

static __always_inline bool may_leave(struct sockredir_side *own, struct sockredir_side *peer)
{
	__u64 before = __sync_fetch_and_or(&peer->flags, SOCKREDIR_SIDE_BARRED);

	if ((before & SOCKREDIR_SIDE_STARTED) && !no_redirect_in_flight(peer))
		return false;
	return look_at(own).look == LOOK_EMPTY;
}

/* Does the socket have no use for the map any more? */
static __always_inline bool done_here(const struct sockredir_settings *s, const struct sockredir_side *own,
				      const struct sockredir_side *peer)
{
	if (own->state <= SOCKREDIR_WOULD_REDIRECT)
		return false;
	/* No peer when our first bytes were acknowledged: it is not in the map and will not be. */
	return (peer->flags & SOCKREDIR_SIDE_BARRED) || mode_of(s) == SOCKREDIR_MODE_DRAIN ||
	       (own->state == SOCKREDIR_NO_PEER && !peer->cookie);
}

/* Takes the socket out of the map, unless that could lose a byte. */
static __always_inline bool leave(struct sockredir_key *self, struct sockredir_side *own,
				  struct sockredir_side *peer)
{
	if ((own->flags & SOCKREDIR_SIDE_LEFT) || !may_leave(own, peer))
		return false;
	__sync_fetch_and_or(&own->flags, SOCKREDIR_SIDE_LEFT);
	peers_delete(self);
	return true;
}

#endif /* SOCKREDIR_DEMOTION_H */
