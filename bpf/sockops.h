/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A connection's beginning and end: which sockets come into the map, and how they leave it. All of
 * this runs with the socket locked.
 */
#ifndef SOCKREDIR_SOCKOPS_H
#define SOCKREDIR_SOCKOPS_H

#include "comeback.h"
#include "flow.h"
#include "kernels.h"
#include "leave.h"
#include "policy.h"
#include "reuse.h"
#include "trace.h"

/* Has the program asked for what only TCP does: see docs/limits.md? It may also do so later. */
static __always_inline bool needs_tcp(const struct sock *sk)
{
	return sk->sk_peek_off >= 0 || sk->sk_tsflags || sk->sk_rcvlowat > 1 ||
	       has_sock_flag(sk, SOCK_RCVTSTAMP) || has_sock_flag(sk, SOCK_ZEROCOPY);
}

/* Kinds of sockets that are left alone, whatever their addresses. */
static __always_inline bool odd_kind(const struct tcp_sock *tp)
{
	/*
	 * With VRFs one namespace can have the same addresses and ports twice. MPTCP subflows
	 * and kTLS sockets bring a protocol of their own. See reuse.h for the used ones.
	 */
	return as_sock(tp)->__sk_common.skc_bound_dev_if || tp->inet_conn.icsk_ulp_ops || is_used(tp) ||
	       needs_tcp(as_sock(tp));
}

/*
 * What tells that something has come by TCP, or goes. No callback tells of everything that comes:
 * segments that bring just what was expected have none, acknowledgements of bytes of its own have
 * the first. The last is that of a reader, who acknowledges.
 */
#define SEGMENT_FLAGS                                                                                        \
	(BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG |                                 \
	 BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)

/* Enables callbacks and remembers whether another program had enabled some before. */
static __always_inline void ask_callbacks(struct bpf_sock_ops *ctx, struct sockredir_side *side)
{
	__u32 on = ctx->bpf_sock_ops_cb_flags;

	if (!(on & SEGMENT_FLAGS))
		__sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_SEGMENT_CB);
	bpf_sock_ops_cb_flags_set(ctx, on | BPF_SOCK_OPS_STATE_CB_FLAG | SEGMENT_FLAGS);
}

/* Puts the socket in the map. 0, or why not. */
static __always_inline __u32 add_socket(struct bpf_sock_ops *ctx, struct tcp_sock *tp, struct names *names,
					bool server)
{
	int index = side_index(&names->self);
	const struct sockredir_key *id = flow_key(names, index == 1);
	struct sockredir_side *side;
	struct sockredir_flow *flow;
	__u64 cookie;
	__u32 why;
	long err;

	if (odd_kind(tp) || is_kernels(ctx, tp, server) || index < 0)
		return SOCKREDIR_SKIP_KIND;
	cookie = bpf_get_socket_cookie(ctx);
	why = flow_enter(id, index, cookie, server, &flow);
	if (why)
		return why;
	err = peers_add(ctx, &names->self);
	if (err) {
		flow_exit(flow, id, index);
		return err == -E2BIG ? SOCKREDIR_SKIP_FULL : SOCKREDIR_SKIP_FAILED;
	}
	side = flow_side(flow, index);
	side->sk = (__u64)tp;
	side->queued = tp->copied_seq;
	if (server)
		__sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_SERVER);
	ask_callbacks(ctx, side);
	/* From here on the other end may send to us. */
	__sync_lock_test_and_set(&side->cookie, cookie);
	return 0;
}

/* Mode observe: the socket stays out of the map, and is heard of once more, when it ends. */
static __always_inline __u32 observe_socket(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	return SOCKREDIR_OBSERVED;
}

static __always_inline void established(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	bool server = ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
	struct sockredir_settings *s = get_settings();
	struct names names;
	__u32 why;

	name_ends(&names, tp, bpf_get_netns_cookie(ctx));
	why = policy(s, &names, server);
	if (!why && mode_of(s) == SOCKREDIR_MODE_OBSERVE)
		why = observe_socket(ctx);
	if (!why && s && !server && left_alone(s, names.self.remote_port))
		why = SOCKREDIR_SKIP_VAIN;
	if (!why)
		why = add_socket(ctx, tp, &names, server);
	count(why ? why : SOCKREDIR_SOCKET_ADDED, 0);
	if (s && (!why || why == SOCKREDIR_OBSERVED))
		trace(s, &names.self, ctx->op);
}

static __always_inline void closed(struct sockredir_flow *flow, const struct sockredir_key *id, int index)
{
	struct sockredir_side *own = flow_side(flow, index);
	struct sockredir_pressure *p = get_pressure();

	if (!(own->flags & SOCKREDIR_SIDE_LEFT))
		count(SOCKREDIR_SOCKET_CLOSED, 0);
	__sync_lock_test_and_set(&own->cookie, 0);
	/* What we have not read is freed with us. */
	if (p)
		uncharge(p, flow_side(flow, !index));
	flow_exit(flow, id, index);
}

static __always_inline void try_leave(struct bpf_sock_ops *ctx, const struct tcp_sock *tp,
				      struct sockredir_key *self, struct sockredir_side *own,
				      struct sockredir_side *peer, enum occasion occasion)
{
	if (!leave(self, tp, own, peer, occasion))
		return;
	/* Out of the map, only its end is of interest. */
	if (own->flags & SOCKREDIR_SIDE_SEGMENT_CB)
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~SEGMENT_FLAGS);
	count(SOCKREDIR_SOCKET_LEFT, 0);
}

/*
 * An observed socket has ended. Which end it was is not known any more; neither would be here, but
 * for another program's callbacks, if the policy had not let it in.
 */
static __always_inline void observed(const struct tcp_sock *tp, struct names *names)
{
	struct sockredir_settings *s = get_settings();
	struct sockredir_count *c;

	if (mode_of(s) != SOCKREDIR_MODE_OBSERVE || (policy(s, names, true) && policy(s, names, false)))
		return;
	c = counter_find(SOCKREDIR_WOULD_REDIRECT);
	if (c) {
		__sync_fetch_and_add(&c->events, tp->data_segs_out);
		__sync_fetch_and_add(&c->bytes, tp->bytes_sent);
	}
}

/* Of a segment to be sent. There is none yet when the kernel asks how much fits in one. */
static __always_inline bool acknowledges_only(const struct bpf_sock_ops *ctx)
{
	return ctx->skb_tcp_flags == TCPHDR_ACK && !ctx->skb_len;
}

static __always_inline void follow(struct bpf_sock_ops *ctx, struct tcp_sock *tp, enum occasion occasion)
{
	struct sockredir_side *own, *peer;
	struct sockredir_flow *flow;
	struct names names;
	int index;

	flow = flow_of(tp, bpf_get_netns_cookie(ctx), bpf_get_socket_cookie(ctx), &names, &index);
	if (index < 0)
		return;
	if (!flow) {
		if (occasion >= OCCASION_CLOSED)
			observed(tp, &names);
		return;
	}
	own = flow_side(flow, index);
	peer = flow_side(flow, !index);
	if (occasion >= OCCASION_CLOSED) {
		if (occasion == OCCASION_DISSOLVED && as_sock(tp)->sk_user_data)
			peers_delete(&names.self);
		closed(flow, flow_key(&names, index), index);
		return;
	}
	/*
	 * A reader that blocks in a mapped socket gets EAGAIN when anything but data wakes it,
	 * and after shutdown() the acknowledged FIN does: out before it can block.
	 */
	if (occasion == OCCASION_SHUTDOWN ||
	    done_here(get_settings(), own, peer, occasion == OCCASION_SEGMENT))
		try_leave(ctx, tp, &names.self, own, peer, occasion);
	if (occasion == OCCASION_SEGMENT)
		limit_unsent(ctx, tp, own);
}

/*
 * A socket that is closed with bytes unread resets its peer, on TCP. Those in its queue do not count
 * for that. A peer that goes on sending is told then; one whose TCP waits for the window to open
 * would wait forever: the queue's memory is released only after the FIN, which announces the window.
 * So the receive buffer is given room first: the FIN opens the window, and what the peer sends is
 * answered by a reset.
 */
static __always_inline void open_window(struct bpf_sock_ops *ctx, const struct sock *sk)
{
	int most = 0x7fffffff; /* cut down to what the system allows */

	if ((sk->sk_shutdown & RCV_SHUTDOWN) && sk->sk_backlog.rmem_alloc.counter)
		bpf_setsockopt(ctx, SOL_SOCKET, rcvbuf_is_fixed(sk) ? SO_RCVBUF : SO_RCVLOWAT, &most,
			       sizeof(most));
}

static __always_inline void state_changed(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	const struct sock *sk = as_sock(tp);
	__u32 before = ctx->args[0], state = ctx->args[1];

	if (state == BPF_TCP_CLOSE)
		follow(ctx, tp, is_dissolved(sk, before) ? OCCASION_DISSOLVED : OCCASION_CLOSED);
	else if (state == BPF_TCP_FIN_WAIT1) {
		open_window(ctx, sk);
		follow(ctx, tp, OCCASION_SHUTDOWN);
	}
}

#endif /* SOCKREDIR_SOCKOPS_H */
