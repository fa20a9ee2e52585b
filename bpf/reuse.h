/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One socket, one connection after the other, as connect() with AF_UNSPEC allows.
 *
 * tcp_disconnect() empties TCP's queues and leaves the one of redirected bytes, and the socket's
 * place in the map, as they are: on its next connection it would read bytes of the last one. So it
 * is taken out of the map, which throws that queue away as TCP does its own,
 *
 *  - when it is dissolved, if the connection was still there: then TCP_CLOSE tells us;
 *  - else (the peer had reset it, or both directions had ended) when it is to connect or to listen.
 *
 * A sender that came upon the socket in the map before may hand its bytes over after that. So a
 * socket that has had a connection never comes back: those bytes meet no queue.
 */
#ifndef SOCKREDIR_REUSE_H
#define SOCKREDIR_REUSE_H

#include "reader.h"

/*
 * What tells it at the end of the handshake: a limit of the congestion window that limits nothing.
 * Nothing else that we may write stays for so long; the kernel's own value is twice that.
 */
#define USED_BEFORE 0x7fffffff

static __always_inline bool is_used(const struct tcp_sock *tp)
{
	return tp->snd_cwnd_clamp == USED_BEFORE;
}

/* TCP_CLOSE without an error, and not because both ends have said their last: tcp_disconnect(). */
static __always_inline bool is_dissolved(const struct sock *sk, __u32 old_state)
{
	if (sk->sk_err)
		return false;
	return old_state == BPF_TCP_ESTABLISHED || old_state == BPF_TCP_CLOSE_WAIT ||
	       !(sk->sk_shutdown & RCV_SHUTDOWN);
}

#define LINKS_LOOKED_AT 4

/* The name under which it is in the map is that of a connection that is gone: the map has it. */
static __always_inline void take_out(struct sock *sk)
{
	struct sk_psock *psock = psock_of(sk);
	__u64 offset = bpf_core_field_offset(struct bpf_shtab_elem, key);
	struct list_head *at = BPF_CORE_READ(psock, link.next);
	struct sk_psock_link *link;
	struct bpf_shtab_elem *place;
	struct sockredir_key key;

	for (int i = 0; i < LINKS_LOOKED_AT && at; i++) {
		link = (void *)at - bpf_core_field_offset(struct sk_psock_link, list);
		place = BPF_CORE_READ(link, link_raw);
		at = BPF_CORE_READ(at, next);
		if (BPF_CORE_READ(place, sk) == sk &&
		    !bpf_probe_read_kernel(&key, sizeof(key), (void *)place + offset))
			peers_delete(&key);
	}
}

/* The socket is about to connect or to listen. */
static __always_inline void begins(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	int mark = USED_BEFORE;

	if (likely(!tp->rcv_nxt))
		return;
	bpf_setsockopt(ctx, SOL_TCP, TCP_BPF_SNDCWND_CLAMP, &mark, sizeof(mark));
	take_out(as_sock(tp));
}

#endif /* SOCKREDIR_REUSE_H */
