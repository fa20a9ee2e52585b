/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Signs of calls that a socket in a map answers otherwise than TCP does: in the state of the socket, in
 * the arguments of the call that the thread is in, in who sleeps on the socket.
 */
#ifndef SOCKREDIR_LEARN_SIGNS_H
#define SOCKREDIR_LEARN_SIGNS_H

#include "learn.h"
#include "learn_kernel.h"
#include "sleeper.h"

static __always_inline void sign(struct learn_socket *record, enum learn_sign which)
{
	record->counts.signs[which]++;
}

static __always_inline bool has_kernel_tls(struct tcp_sock *tp)
{
	const struct tcp_ulp_ops *ulp = tp->inet_conn.icsk_ulp_ops;

	return ulp && ulp->name[0] == 't' && ulp->name[1] == 'l' && ulp->name[2] == 's';
}

/* What has been set or used on the socket at any time shows in its state. */
static __always_inline void look_at_state(struct learn_counts *counts, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (sk->sk_rcvlowat > 1)
		counts->signs[LEARN_LOW_WATER]++;
	if (sk->sk_peek_off >= 0)
		counts->signs[LEARN_PEEK_OFFSET]++;
	if (sk->sk_tsflags || has_sock_flag(sk, SOCK_RCVTSTAMP))
		counts->signs[LEARN_TIMESTAMPS]++;
	if (sk->sk_zckey.counter)
		counts->signs[LEARN_ZERO_COPY]++;
	if (!tp)
		return;
	if (tp->urg_data)
		counts->signs[LEARN_URGENT]++;
	if (has_kernel_tls(tp))
		counts->signs[LEARN_KERNEL_TLS]++;
}

#define ALWAYS_LOOKED_AT 32
#define SELDOM		 15

/* The first messages tell; of a connection with many, now and then one, and its end (see closed). */
static __always_inline bool is_time_to_look(const struct learn_counts *counts)
{
	__u64 messages = counts->sent_messages + counts->received_messages;

	return messages < ALWAYS_LOOKED_AT || !(messages & SELDOM);
}

/* Does another thread sleep in a call on this socket? The current one is out of the queue already. */
static __always_inline bool has_sleeper(const struct sock *sk)
{
	struct socket_wq *wq = sk->sk_wq;

	/* Mostly none; entries on other threads' stacks are only probed. */
	return wq->wait.head.next != &wq->wait.head && queue_has_sleeper(wq);
}

/* Was it a signal that the program lives on after? */
static __always_inline bool interrupted(int result)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	return (result == -EINTR || result == -ERESTARTSYS) && !(task->signal->flags & SIGNAL_GROUP_EXIT);
}

static __always_inline void look_at_receive_call(struct learn_socket *record, const struct sock *sk,
						 int result, int flags)
{
	if (flags & MSG_WAITALL && result > 0)
		sign(record, LEARN_WAITALL);
	if (flags & MSG_OOB)
		sign(record, LEARN_URGENT);
	if (flags & MSG_DONTWAIT)
		return;
	if (interrupted(result))
		sign(record, LEARN_INTERRUPTED);
	if (has_sleeper(sk))
		sign(record, LEARN_TWO_SLEPT);
}

static __always_inline void look_at_send_call(struct learn_socket *record)
{
	struct call_seen seen = current_call();
	__u64 flags = 0;

	if (seen.call == CALL_SENDMSG)
		flags = seen.third;
	else if (seen.call == CALL_SENDTO || seen.call == CALL_SENDMMSG)
		flags = seen.fourth;
	else if (seen.call == CALL_SENDFILE)
		record->counts.files++;
	if (flags & MSG_OOB)
		sign(record, LEARN_URGENT);
	if (flags & MSG_ZEROCOPY)
		sign(record, LEARN_ZERO_COPY);
}

#endif /* SOCKREDIR_LEARN_SIGNS_H */
