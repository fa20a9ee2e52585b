/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Looking at a socket other than the one a program runs for: what has it not read, is its lock
 * taken, has all that was sent to it by TCP arrived?
 *
 * Its address was stored when it was put in the map. The memory of TCP sockets serves TCP sockets
 * only and stays while a BPF program runs (RCU, SLAB_TYPESAFE_BY_RCU); the same holds for a psock.
 * The cookie, never used twice, tells before and after a look whether it is still the same socket.
 * Reads are bpf_probe_read_kernel(): a wrong address fails, it does not fault.
 */
#ifndef SOCKREDIR_READER_H
#define SOCKREDIR_READER_H

#include "dialect/dialect.h"
#include "sleeper.h"

enum look {
	LOOK_GONE,  /* the socket is not there any more, or cannot be read */
	LOOK_EMPTY, /* it has read all that is in its queue */
	LOOK_SOME,  /* it has not */
};

struct glance {
	enum look look;
	__u64 unread; /* bytes, an upper bound; 0: this kernel does not count them */
};

static __always_inline struct sock *sock_of(const struct sockredir_side *side)
{
	return (struct sock *)side->sk;
}

static __always_inline bool still_there(const struct sockredir_side *side)
{
	__u64 cookie = *(volatile __u64 *)&side->cookie;

	return cookie && (__u64)BPF_CORE_READ(sock_of(side), __sk_common.skc_cookie.counter) == cookie;
}

/* What sockmap keeps for a socket; NULL when it is in no map. */
static __always_inline struct sk_psock *psock_of(struct sock *sk)
{
	return (struct sk_psock *)((__u64)BPF_CORE_READ(sk, sk_user_data) & ~7ULL);
}

/* Bytes in the queue, if the kernel tells: an upper bound of those that were redirected. */
static __always_inline __u64 queued_bytes(struct sock *sk, struct sk_psock *psock)
{
	__u64 counted = counted_bytes(psock);

	/* Counts redirected bytes from 6.13 on, and where 54f89b3178d5 was brought back. */
	return counted ? counted : BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
}

/* How much of its queue has the socket not read? */
static __always_inline struct glance look_at(const struct sockredir_side *side)
{
	struct sock *sk = sock_of(side);
	struct glance seen = {};
	struct sk_psock *psock;
	void *first = NULL;

	if (!still_there(side))
		return seen;
	psock = psock_of(sk);
	if (!psock || bpf_core_read(&first, sizeof(first), &psock->ingress_msg.next) || !first)
		return seen;
	if (first == (void *)__builtin_preserve_access_index(&psock->ingress_msg)) {
		seen.look = LOOK_EMPTY;
	} else {
		seen.unread = queued_bytes(sk, psock);
		seen.look = LOOK_SOME;
	}
	if (!still_there(side))
		seen.look = LOOK_GONE;
	return seen;
}

/* Is a thread inside a call that holds the socket's lock? Who appends to its queue would sleep. */
static __always_inline bool is_owned(const struct sockredir_side *side)
{
	return BPF_CORE_READ(sock_of(side), sk_lock.owned);
}

/* Does a thread wait for the socket's lock? */
static __always_inline bool is_waited_for(const struct sockredir_side *side)
{
	struct sock *sk = sock_of(side);

	return BPF_CORE_READ(sk, sk_lock.wq.head.next) !=
	       __builtin_preserve_access_index(&sk->sk_lock.wq.head);
}

/* Nobody is in a section of the socket's lock, no thread and no incoming segment. */
static __always_inline bool is_unlocked(const struct sockredir_side *side)
{
	return !is_owned(side) && !slock_of(sock_of(side));
}

/* Do TCP's bytes go through the queue of redirected ones there (program `receive`)? */
static __always_inline bool has_one_queue(const struct sockredir_side *side)
{
	struct sk_psock *psock = psock_of(sock_of(side));

	return psock && BPF_CORE_READ(psock, progs.stream_verdict);
}

/* The sequence number that the socket expects next from its peer. */
static __always_inline __u32 expects(const struct sockredir_side *side)
{
	return BPF_CORE_READ((struct tcp_sock *)sock_of(side), rcv_nxt);
}

/* Received by TCP, but not in the queue that redirected bytes are appended to. */
static __always_inline __u32 not_yet_queued(const struct sockredir_side *side)
{
	struct sock *sk = sock_of(side);
	struct sk_psock *psock = psock_of(sk);

	if (!psock)
		return 1;
	return BPF_CORE_READ(sk, sk_receive_queue.qlen) + BPF_CORE_READ(psock, ingress_skb.qlen);
}

/* The file through which programs use the socket; NULL before it is accepted, and once it is closed. */
static __always_inline struct file *file_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file);
}

/* Do calls of recv return at once when there is nothing? */
static __always_inline bool never_waits(const struct file *file)
{
	return BPF_CORE_READ(file, f_flags) & O_NONBLOCK;
}

/*
 * Inside a call: can no other thread make one? A process with more than one holds a reference for
 * each call; so does whoever has the file as well.
 */
static __always_inline bool used_by_one(const struct file *file)
{
	return uses_of(file) == 1;
}

/* Does a thread sleep in a call on this socket, such as recv? `sk` is only probed. */
static __always_inline bool has_sleeper(struct sock *sk)
{
	return queue_has_sleeper(BPF_CORE_READ(sk, sk_wq));
}

#endif /* SOCKREDIR_READER_H */
