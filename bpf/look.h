/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Looking at a socket other than the one a program runs for.
 *
 * Its address was stored when it was put in the map. The memory of TCP sockets serves TCP sockets
 * only and stays while a BPF program runs (RCU, SLAB_TYPESAFE_BY_RCU); the same holds for a psock.
 * The cookie, never used twice, tells before and after a look whether it is still the same socket.
 * Reads are bpf_probe_read_kernel(): a wrong address fails, it does not fault.
 */
#ifndef SOCKREDIR_LOOK_H
#define SOCKREDIR_LOOK_H

#include "dialect.h"

enum look {
	LOOK_GONE,  /* the socket is not there any more, or cannot be read */
	LOOK_EMPTY, /* it has read all that was redirected to it */
	LOOK_SOME,  /* it has not */
};

struct glance {
	enum look look;
	__u64 unread; /* bytes; 0: this kernel does not count them */
};

static __always_inline bool still_there(const struct sockredir_side *side)
{
	struct sock *sk = (struct sock *)side->sk;
	__u64 cookie = *(volatile __u64 *)&side->cookie;

	return cookie && (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == cookie;
}

/* What sockmap keeps for a socket; NULL when it is in no map. */
static __always_inline struct sk_psock *psock_of_socket(struct sock *sk)
{
	return (struct sk_psock *)((__u64)BPF_CORE_READ(sk, sk_user_data) & ~7ULL);
}

static __always_inline struct sk_psock *psock_of(const struct sockredir_side *side)
{
	return psock_of_socket((struct sock *)side->sk);
}

/* What has the socket not read of what was redirected to it? */
static __always_inline struct glance look_at(const struct sockredir_side *side)
{
	struct sock *sk = (struct sock *)side->sk;
	struct glance seen = {};
	struct sk_psock *psock;
	void *first = NULL;

	if (!still_there(side))
		return seen;
	psock = psock_of(side);
	if (!psock || bpf_core_read(&first, sizeof(first), &psock->ingress_msg.next) || !first)
		return seen;
	if (first == (void *)__builtin_preserve_access_index(&psock->ingress_msg)) {
		seen.look = LOOK_EMPTY;
	} else {
		/* Counts redirected bytes from 6.13 on, and where 54f89b3178d5 was backported. */
		seen.unread = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
		seen.look = LOOK_SOME;
	}
	if (!still_there(side))
		seen.look = LOOK_GONE;
	return seen;
}

#define WAITERS_LOOKED_AT 4
#define STACK_MOST	  (64ULL << 10)

/* Is this a thread asleep, not a poll or epoll? Such a one keeps its entry on its own stack. */
static __always_inline bool is_sleeper(const struct wait_queue_entry *entry)
{
	struct task_struct *task = BPF_CORE_READ(entry, private);

	return (__u64)entry - (__u64)BPF_CORE_READ(task, stack) < STACK_MOST;
}

/* Does a thread sleep in a call on this socket, such as recv? `sk` is only probed. */
static __always_inline bool has_sleeper(struct sock *sk)
{
	struct socket_wq *wq = BPF_CORE_READ(sk, sk_wq);
	struct list_head *head = __builtin_preserve_access_index(&wq->wait.head);
	struct list_head *at = BPF_CORE_READ(head, next);
	__u64 offset = bpf_core_field_offset(struct wait_queue_entry, entry);

	for (int i = 0; i < WAITERS_LOOKED_AT && at && at != head; i++) {
		if (is_sleeper((void *)at - offset))
			return true;
		at = BPF_CORE_READ(at, next);
	}
	return false;
}

#endif /* SOCKREDIR_LOOK_H */
