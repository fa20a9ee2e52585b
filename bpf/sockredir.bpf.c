// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * sockredir: TCP between processes of one host, past the TCP/IP stack.
 *
 * `sockops` puts both sockets of a local connection in a map as they are established and takes
 * note of them in a flow record. `verdict` sees each message before TCP does and hands it to the
 * receiving socket, or leaves it to TCP: whatever is not surely right and worth it is TCP's.
 * `receive` has the bytes that come by TCP lie in the same queue as redirected ones.
 */
#include "dialect.h"

/* Atomics that return the old value: kernels have them since 5.12, clang 14 unless told not. */
#pragma clang attribute push(__attribute__((target("arch=v3"))), apply_to = function)

#include "endpoint.h"
#include "policy.h"
#include "look.h"
#include "pressure.h"
#include "flow.h"
#include "demotion.h"
#include "reuse.h"
#include "trace.h"

/* Kinds of sockets that we keep away from whatever their addresses say. */
static __always_inline bool odd_kind(const struct tcp_sock *tp)
{
	/*
	 * With VRFs one namespace can have the same addresses and ports twice. MPTCP subflows
	 * and kTLS sockets bring a protocol of their own. See reuse.h for the used ones.
	 */
	return tp->inet_conn.icsk_inet.sk.__sk_common.skc_bound_dev_if || tp->inet_conn.icsk_ulp_ops ||
	       is_used(tp);
}

/* Asks for callbacks and remembers which were not on before, for somebody else. */
static __always_inline void ask_callbacks(struct bpf_sock_ops *ctx, struct sockredir_side *side)
{
	__u32 on = ctx->bpf_sock_ops_cb_flags;
	__u64 ours = 0;

	if (!(on & BPF_SOCK_OPS_STATE_CB_FLAG))
		ours |= SOCKREDIR_SIDE_STATE_CB;
	if (!(on & BPF_SOCK_OPS_RTT_CB_FLAG))
		ours |= SOCKREDIR_SIDE_RTT_CB;
	__sync_fetch_and_or(&side->flags, ours);
	bpf_sock_ops_cb_flags_set(ctx, on | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
}

/*
 * A direction that turns to TCP may find its reader's buffer overrun by redirected bytes. What TCP
 * sends then is dropped, but for one segment in an empty queue, and the window closes. With a first
 * flight of just one segment nothing is dropped, so nothing has to wait for a retransmission: the
 * reader comes to that segment after the redirected bytes, and reading it reopens the window.
 */
static __always_inline void begin_tcp_gently(struct bpf_sock_ops *ctx)
{
	int segments = 1;

	bpf_setsockopt(ctx, SOL_TCP, TCP_BPF_IW, &segments, sizeof(segments));
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

	if (odd_kind(tp) || index < 0)
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
	side = &flow->side[index & 1];
	side->sk = (__u64)tp;
	if (server)
		__sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_SERVER);
	ask_callbacks(ctx, side);
	begin_tcp_gently(ctx);
	/* From here on the other end may send to us. */
	__sync_lock_test_and_set(&side->cookie, cookie);
	return 0;
}

static __always_inline void established(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	bool server = ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
	struct sockredir_settings *s = get_settings();
	struct names names;
	__u32 why;

	name_ends(&names, tp, bpf_get_netns_cookie(ctx));
	why = policy(s, &names, server);
	if (!why)
		why = add_socket(ctx, tp, &names, server);
	count(why ? why : SOCKREDIR_SOCKET_ADDED, 0);
	if (!why && s)
		trace(s, &names.self, ctx->op);
}

/* The record of this socket's flow, if it is its own; the names become those it has there. */
static __always_inline struct sockredir_flow *own_flow(struct names *names, int index, __u64 cookie)
{
	const struct sockredir_key *id = flow_key(names, index == 1);
	struct sockredir_flow *flow = flow_find(id);

	if (unlikely(!flow)) {
		names->self.netns = names->peer.netns = 0;
		flow = flow_find(id);
	}
	return flow && flow->side[index & 1].cookie == cookie ? flow : NULL;
}

/* What happens to a socket of ours. */
enum occasion {
	OCCASION_ACKED,	   /* bytes that it sent by TCP */
	OCCASION_SHUTDOWN, /* it will send no more */
	OCCASION_CLOSED,
	OCCASION_DISSOLVED, /* closed to be used again */
};

static __always_inline void closed(struct sockredir_flow *flow, const struct sockredir_key *id, int index)
{
	struct sockredir_side *own = &flow->side[index & 1];
	struct sockredir_pressure *p = get_pressure();

	if (!(own->flags & SOCKREDIR_SIDE_LEFT))
		count(SOCKREDIR_SOCKET_CLOSED, 0);
	__sync_lock_test_and_set(&own->cookie, 0);
	/* What we have not read is freed with us. */
	if (p)
		uncharge(p, &flow->side[!(index & 1)]);
	flow_exit(flow, id, index);
}

static __always_inline void try_leave(struct bpf_sock_ops *ctx, struct sockredir_key *self,
				      struct sockredir_side *own, struct sockredir_side *peer)
{
	if (!leave(self, own, peer))
		return;
	if (own->flags & SOCKREDIR_SIDE_RTT_CB)
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_RTT_CB_FLAG);
	count(SOCKREDIR_SOCKET_LEFT, 0);
}

static __always_inline void follow(struct bpf_sock_ops *ctx, struct tcp_sock *tp, enum occasion occasion)
{
	struct sockredir_side *own, *peer;
	struct sockredir_flow *flow;
	struct names names;
	int index;

	name_ends(&names, tp, bpf_get_netns_cookie(ctx));
	index = side_index(&names.self);
	if (index < 0)
		return;
	flow = own_flow(&names, index, bpf_get_socket_cookie(ctx));
	if (!flow)
		return;
	own = &flow->side[index & 1];
	peer = &flow->side[!(index & 1)];
	if (occasion >= OCCASION_CLOSED) {
		if (occasion == OCCASION_DISSOLVED && tp->inet_conn.icsk_inet.sk.sk_user_data)
			peers_delete(&names.self);
		closed(flow, flow_key(&names, index), index);
		return;
	}
	/*
	 * A reader that blocks in a mapped socket gets EAGAIN when anything but data wakes it,
	 * and after shutdown() the acknowledged FIN does: out before it can block.
	 */
	if (occasion == OCCASION_SHUTDOWN || done_here(get_settings(), own, peer))
		try_leave(ctx, &names.self, own, peer);
}

static __always_inline void state_changed(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	__u32 before = ctx->args[0], state = ctx->args[1];

	if (state == BPF_TCP_CLOSE)
		follow(ctx, tp, is_dissolved(sk, before) ? OCCASION_DISSOLVED : OCCASION_CLOSED);
	else if (state == BPF_TCP_FIN_WAIT1)
		follow(ctx, tp, OCCASION_SHUTDOWN);
}

/* Not plain "sockops": clang refuses a function that is called like its section. */
SEC("sockops/tcp")
int sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	if (!tp)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		begins(ctx, tp);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(ctx, tp);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changed(ctx, tp);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		follow(ctx, tp, OCCASION_ACKED);
		break;
	}
	return 1;
}

/* TCP carries this direction already, or is about to: redirected bytes would overtake them. */
static __always_inline bool sent_by_tcp(const struct tcp_sock *tp)
{
	return tp->bytes_sent || tp->write_seq != tp->snd_una;
}

/*
 * The rule of a direction: it is redirected from its first byte or never, and once it went to TCP
 * it stays there. Observing, WOULD_REDIRECT stands for REDIRECTED: the bytes are TCP's.
 *
 * The peer is looked for once; gone later, it is not in `peers` either. What it writes stays in its
 * CPU's cache, and so it is elsewhere on a message's way.
 */
static __always_inline __u32 decide(const struct tcp_sock *tp, const struct sockredir_side *own,
				    const struct sockredir_side *peer, __u32 mode)
{
	bool observed = own->state == SOCKREDIR_WOULD_REDIRECT && mode == SOCKREDIR_MODE_OBSERVE;

	if (unlikely(own->state > SOCKREDIR_WOULD_REDIRECT))
		return own->state;
	if (unlikely(mode == SOCKREDIR_MODE_DRAIN))
		return SOCKREDIR_DRAINED;
	if (unlikely(sent_by_tcp(tp) && !observed))
		return SOCKREDIR_SENT_BEFORE;
	if (unlikely(tp->inet_conn.icsk_ulp_ops))
		return SOCKREDIR_ULP;
	if (unlikely(own->state == SOCKREDIR_UNDECIDED && !peer->cookie))
		return SOCKREDIR_NO_PEER;
	return mode == SOCKREDIR_MODE_OBSERVE ? SOCKREDIR_WOULD_REDIRECT : SOCKREDIR_REDIRECTED;
}

/* Hands the message to the peer: SOCKREDIR_REDIRECTED or why that was not to be. */
static __always_inline __u32 redirect(struct sk_msg_md *msg, struct sockredir_key *peer,
				      struct sockredir_side *own, struct sockredir_side *other, __u32 size,
				      __u64 budget)
{
	__u32 why = admit(own, other, size, budget);

	if (unlikely(why != SOCKREDIR_REDIRECTED))
		return why;
	if (__sync_fetch_and_or(&own->flags, SOCKREDIR_SIDE_STARTED) & SOCKREDIR_SIDE_BARRED)
		return SOCKREDIR_DEMOTED;
	if (unlikely(peers_redirect(msg, peer) != SK_PASS))
		return SOCKREDIR_REFUSED;
	own->bytes += size;
	return SOCKREDIR_REDIRECTED;
}

/* What becomes of this message: SOCKREDIR_REDIRECTED or why it goes by TCP. */
static __always_inline __u32 handle(struct sk_msg_md *msg, const struct tcp_sock *tp, __u32 size)
{
	struct sockredir_settings *s = get_settings();
	struct sockredir_side *own, *peer;
	struct sockredir_flow *flow;
	struct names names;
	__u32 why;
	int index;

	/* What bpf_get_netns_cookie() returns, for a third of the time. */
	name_ends(&names, tp, tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net->net_cookie);
	index = side_index(&names.self);
	flow = own_flow(&names, index, tp->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter);
	if (!flow || !s)
		return SOCKREDIR_NO_FLOW;
	own = &flow->side[index & 1];
	peer = &flow->side[!(index & 1)];
	own->messages++;
	why = decide(tp, own, peer, mode_of(s));
	if (unlikely(overrun(s, own, peer, size)) &&
	    (why != SOCKREDIR_REDIRECTED || may_demote(tp, own, peer))) {
		bar(peer);
		if (why <= SOCKREDIR_WOULD_REDIRECT)
			why = SOCKREDIR_DEMOTED;
	}
	if (likely(why == SOCKREDIR_REDIRECTED)) {
		why = redirect(msg, &names.peer, own, peer, size, s->budget);
		if (why != SOCKREDIR_REDIRECTED)
			bar(peer);
	}
	own->state = why;
	return why;
}

SEC("sk_msg")
int verdict(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	__u32 size = msg->size;
	__u32 why = tp ? handle(msg, tp, size) : SOCKREDIR_NO_FLOW;

	count(why, size);
	return SK_PASS;
}

/*
 * Lets every byte pass. That it is there makes the kernel put what comes by TCP behind what was
 * redirected, into one queue: so poll, FIONREAD and reads see all that has arrived, in its order.
 */
SEC("sk_skb/stream_verdict")
int receive(struct __sk_buff *skb)
{
	(void)skb;
	return SK_PASS;
}

#pragma clang attribute pop
