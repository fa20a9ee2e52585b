/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way out of the map, for a live socket.
 *
 * Leaving discards what is in the socket's queue, so nothing may be there or on its way.
 * leave() runs in a callback of the leaving socket S, with S locked; P is its peer.
 *
 *  - P's program sets STARTED on its side before each redirect and gives up if BARRED was set; we
 *    set BARRED and look at STARTED. Both are one atomic operation on the same word, hence:
 *  - STARTED not seen: P never redirected, and will find BARRED when it comes to it.
 *  - STARTED seen: a sender in P that did not find BARRED set STARTED before us. It holds a
 *    reference to P's psock from before its program ran until its bytes lie in S's queue. P in the
 *    map holds one more. So one reference, read after setting BARRED, means that no such sender is
 *    left; none at all (no psock) says the same. P may be about to lose the map's reference:
 *    P sets LEFT, or clears its cookie, before that, and these are read after the references.
 *  - What such senders queued is in S's queue, which they append to with S locked, as it is now:
 *    S's queue being empty, nothing is lost. What TCP has brought goes there with S locked too,
 *    or waits for memory in ingress_skb, which must be empty.
 *
 * With one queue (program `receive`), a thread that is inside recv on S would not see what TCP
 * brings after S has left: it waits for the queue that is gone, and returns EAGAIN. It takes a
 * reference to S's psock before it takes S's lock, so also while we look and take S out. Hence:
 *  - S is non-blocking: its recv never waits.
 *  - S is used by one thread: it leaves inside a call on S, whose thread cannot enter recv now. What
 *    came meanwhile (sk_backlog) may be dealt with in calls that are not on S, but look at it.
 *  - S may be used by others: it leaves as a reader acknowledges, on its way out of recv. Or inside
 *    a call that has room to end at once, if no other thread is in a call on S and nothing has come
 *    while thousands of messages went: who would read there is in recv already, and seen there.
 * No thread is in recv if nobody but the map and this call holds a reference, nobody sleeps there,
 * and nobody waits for the lock.
 *
 * A socket with a ULP (kernel TLS) stays. While a thread is inside a call on it, sock_map_del_link()
 * puts the map's functions in place of the ULP's, and nobody takes them back: close() then finds
 * neither and does not close (seen on Linux 6.1.192). At its own close() the ULP's go first.
 */
#ifndef SOCKREDIR_LEAVE_H
#define SOCKREDIR_LEAVE_H

#include "demotion.h"

/* In the send buffer: whoever writes a small message there does not have to wait. */
#define ROOM_TO_END (128 << 10)

/* What happens to a socket in the map. */
enum occasion {
	OCCASION_SEGMENT,  /* something has come by TCP: bytes, or an acknowledgement of its own */
	OCCASION_ANSWER,   /* it sends a segment by TCP, from inside a call */
	OCCASION_READ,	   /* the same, and that acknowledges only */
	OCCASION_SHUTDOWN, /* it will send no more, says a call */
	OCCASION_CLOSED,
	OCCASION_DISSOLVED, /* closed to be used again */
};

/* The map's own reference to what sockmap keeps for a socket, and those of who is inside a call. */
static __always_inline int references(const struct sk_psock *psock)
{
	int refs = 0;

	bpf_core_read(&refs, sizeof(refs), &psock->refcnt.refs.counter);
	return refs;
}

/* The references to a psock that are no reader's: the map's, and that of the call this runs in. */
static __always_inline int harmless_references(const struct sockredir_side *side, enum occasion occasion)
{
	return occasion == OCCASION_SHUTDOWN ? 1 : 1 + is_owned(side);
}

/* Does the program only write there, and is the call that does so about to end? */
static __always_inline bool only_writes(const struct sockredir_side *own, struct sock *sk,
					const struct file *file)
{
	int room = BPF_CORE_READ(sk, sk_sndbuf) - BPF_CORE_READ(sk, sk_wmem_queued);

	return own->run >= RUN_LONG && uses_of(file) <= 2 && room > ROOM_TO_END;
}

/* Can no thread enter recv on the socket and wait there while it leaves? */
static __always_inline bool nobody_enters(const struct sockredir_side *own, struct sock *sk,
					  enum occasion occasion)
{
	struct file *file = file_of(sk);

	if (never_waits(file) || occasion == OCCASION_SHUTDOWN)
		return true;
	return occasion != OCCASION_SEGMENT && !BPF_CORE_READ(sk, sk_backlog.len) &&
	       (occasion == OCCASION_READ || used_by_one(file) || only_writes(own, sk, file));
}

/* With one queue: no thread waits in recv on the socket, nor is about to. */
static __always_inline bool nobody_receives(const struct sockredir_side *side, enum occasion occasion)
{
	struct sock *sk = sock_of(side);

	if (!has_one_queue(side))
		return true;
	if (!nobody_enters(side, sk, occasion))
		return false;
	return references(psock_of(sk)) <= harmless_references(side, occasion) && !has_sleeper(sk) &&
	       !is_waited_for(side);
}

/* Nobody is between the verdict of `side`'s socket and the peer's queue. BARRED is set. */
static __always_inline bool no_redirect_in_flight(struct sockredir_side *side)
{
	struct sk_psock *psock;
	int refs = 0;
	__u64 flags;

	if (!still_there(side))
		return false;
	psock = psock_of(sock_of(side));
	if (psock)
		refs = references(psock);
	flags = __sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_BARRED); /* orders the reads */
	if (!still_there(side))
		return false;
	return psock ? refs == 1 && !(flags & SOCKREDIR_SIDE_LEFT) : true;
}

/*
 * Has everything that TCP brought been read, by TCP's own count? That goes wrong in the map where
 * several threads read one socket (tcp_bpf_recvmsg_parser() keeps it while it waits). Outside, TCP
 * would look for bytes that are gone.
 */
static __always_inline bool count_is_right(const struct tcp_sock *tp, const struct sockredir_side *own)
{
	return tp->copied_seq == tp->rcv_nxt || !has_one_queue(own);
}

/* TCP's bytes that wait for memory to be queued. */
static __always_inline bool short_of_memory(const struct sockredir_side *own)
{
	struct sk_psock *psock = psock_of(sock_of(own));

	return psock && BPF_CORE_READ(psock, ingress_skb.qlen);
}

static __always_inline bool may_leave(struct sockredir_side *own, struct sockredir_side *peer,
				      enum occasion occasion)
{
	__u64 before = __sync_fetch_and_or(&peer->flags, SOCKREDIR_SIDE_BARRED);

	if ((before & SOCKREDIR_SIDE_STARTED) && !no_redirect_in_flight(peer))
		return false;
	return look_at(own).look == LOOK_EMPTY && !short_of_memory(own) && nobody_receives(own, occasion);
}

/* Does the socket have no use for the map any more? `heard`: something has come by TCP. */
static __always_inline bool done_here(const struct sockredir_settings *s, const struct sockredir_side *own,
				      const struct sockredir_side *peer, bool heard)
{
	if (!for_good(own) && !(own->flags & SOCKREDIR_SIDE_BARRED))
		return false;
	/* No peer when our first bytes were acknowledged: it is not in the map and will not be. */
	return (peer->flags & SOCKREDIR_SIDE_BARRED) || for_good(peer) ||
	       mode_of(s) != SOCKREDIR_MODE_ENFORCE ||
	       (own->state == SOCKREDIR_NO_PEER && !peer->cookie && heard);
}

/* Takes the socket out of the map, unless that could lose a byte. */
static __always_inline bool leave(struct sockredir_key *self, const struct tcp_sock *tp,
				  struct sockredir_side *own, struct sockredir_side *peer,
				  enum occasion occasion)
{
	if ((own->flags & SOCKREDIR_SIDE_LEFT) || tp->inet_conn.icsk_ulp_ops || !count_is_right(tp, own) ||
	    !may_leave(own, peer, occasion))
		return false;
	__sync_fetch_and_or(&own->flags, SOCKREDIR_SIDE_LEFT);
	peers_delete(self);
	return true;
}

#endif /* SOCKREDIR_LEAVE_H */
