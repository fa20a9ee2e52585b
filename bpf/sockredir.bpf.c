// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * sockredir: TCP between processes of one host, past the TCP/IP stack.
 *
 * `sockops` puts both sockets of a local connection in a map as they are established and takes
 * note of them in a flow record. `verdict` sees each message before TCP does and hands it to the
 * receiving socket, or leaves it to TCP: whatever is not surely right and worth it is TCP's.
 */
#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

/* Atomics that return the old value: kernels have them since 5.12, clang 14 unless told not. */
#pragma clang attribute push(__attribute__((target("arch=v3"))), apply_to = function)

#define AF_INET 2
#define E2BIG	7

#include "kernel.h"
#include "sockredir.h"
#include "endpoint.h"
#include "maps.h"
#include "policy.h"
#include "flow.h"
#include "trace.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* The loader writes "sha256:<hex>" of all that makes this program what it is. */
const volatile char bpf_metadata_digest[72] SEC(".rodata") = "";

/* Kinds of sockets that we keep away from whatever their addresses say. */
static __always_inline bool odd_kind(struct tcp_sock *tp)
{
	/*
	 * With VRFs one namespace can have the same addresses and ports twice. MPTCP subflows
	 * and kTLS sockets bring a protocol of their own.
	 */
	return tp->inet_conn.icsk_inet.sk.__sk_common.skc_bound_dev_if || tp->inet_conn.icsk_ulp_ops;
}

/* Puts the socket in the map. 0, or why not. */
static __always_inline __u32 add_socket(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					struct sockredir_key *self, bool server)
{
	int index = side_index(self);
	struct sockredir_key id = flow_key(self, index == 1);
	struct sockredir_side *side;
	struct sockredir_flow *flow;
	__u64 cookie;
	__u32 flags;
	long err;

	if (odd_kind(tp) || index < 0)
		return SOCKREDIR_SKIP_KIND;

	cookie = bpf_get_socket_cookie(ctx);
	flow = flow_enter(&id, index, cookie);
	if (!flow)
		return SOCKREDIR_SKIP_FULL;
	err = peers_add(ctx, self);
	if (err) {
		flow_exit(flow, &id, index);
		return err == -E2BIG ? SOCKREDIR_SKIP_FULL : SOCKREDIR_SKIP_FAILED;
	}

	flags = ctx->bpf_sock_ops_cb_flags;
	side = &flow->side[index & 1];
	side->sk = (__u64)tp;
	side->state = SOCKREDIR_UNDECIDED;
	side->run = 0;
	side->since_empty = 0;
	side->messages = 0;
	side->bytes = 0;
	side->flags = server ? SOCKREDIR_SIDE_SERVER : 0;
	if (!(flags & BPF_SOCK_OPS_STATE_CB_FLAG)) {
		side->flags |= SOCKREDIR_SIDE_STATE_CB;
		bpf_sock_ops_cb_flags_set(ctx, flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	}
	/* From here on the other end may send to us. */
	__sync_lock_test_and_set(&side->cookie, cookie);
	return 0;
}

static __always_inline void established(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	bool server = ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
	struct sockredir_settings *s = get_settings();
	struct sockredir_key self = self_key(tp, bpf_get_netns_cookie(ctx));
	__u32 why = policy(s, &self, server);

	if (!why)
		why = add_socket(ctx, tp, &self, server);
	count(why ? why : SOCKREDIR_SOCKET_ADDED, 0);
	if (!why && s)
		trace(s, &self, ctx->op);
}

/* The record of this socket's flow, if it is its own; `self` becomes the key it has there. */
static __always_inline struct sockredir_flow *own_flow(struct sockredir_key *self, int index,
						       struct sockredir_key *id, __u64 cookie)
{
	struct sockredir_flow *flow;

	*id = flow_key(self, index == 1);
	flow = flow_find(id);
	if (!flow) {
		self->netns = id->netns = 0;
		flow = flow_find(id);
	}
	return flow && flow->side[index & 1].cookie == cookie ? flow : NULL;
}

static __always_inline void closed(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	struct sockredir_key self = self_key(tp, bpf_get_netns_cookie(ctx)), id;
	int index = side_index(&self);
	struct sockredir_flow *flow;

	if (index < 0)
		return;
	flow = own_flow(&self, index, &id, bpf_get_socket_cookie(ctx));
	if (!flow)
		return;
	flow->side[index & 1].cookie = 0;
	flow_exit(flow, &id, index);
	count(SOCKREDIR_SOCKET_CLOSED, 0);
}

/* clang refuses a function of its section's name; the loader pins it without the underscore. */
SEC("sockops")
int sockops_(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	if (!tp)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(ctx, tp);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			closed(ctx, tp);
		break;
	}
	return 1;
}

/* TCP carries this direction already, or is about to: redirected bytes would overtake them. */
static __always_inline bool sent_by_tcp(struct tcp_sock *tp)
{
	return tp->bytes_sent || tp->write_seq != tp->snd_una;
}

/*
 * The rule of a direction: it is redirected from its first byte or never, and once it went to TCP
 * it stays there. Observing, WOULD_REDIRECT stands for REDIRECTED: the bytes are TCP's.
 */
static __always_inline __u32 decide(struct tcp_sock *tp, struct sockredir_side *own,
				    struct sockredir_side *peer, __u32 mode)
{
	bool observed = own->state == SOCKREDIR_WOULD_REDIRECT && mode == SOCKREDIR_MODE_OBSERVE;

	if (own->state > SOCKREDIR_WOULD_REDIRECT)
		return own->state;
	if (mode == SOCKREDIR_MODE_DRAIN)
		return SOCKREDIR_DRAINED;
	if (sent_by_tcp(tp) && !observed)
		return SOCKREDIR_SENT_BEFORE;
	if (tp->inet_conn.icsk_ulp_ops)
		return SOCKREDIR_ULP;
	if (!peer->cookie)
		return SOCKREDIR_NO_PEER;
	return mode == SOCKREDIR_MODE_OBSERVE ? SOCKREDIR_WOULD_REDIRECT : SOCKREDIR_REDIRECTED;
}

/* What becomes of this message: SOCKREDIR_REDIRECTED or why it goes by TCP. */
static __always_inline __u32 handle(struct sk_msg_md *msg, struct tcp_sock *tp)
{
	struct sockredir_key self = self_key(tp, bpf_get_netns_cookie(msg)), id, peer;
	struct sockredir_side *own, *other;
	int index = side_index(&self);
	struct sockredir_settings *s;
	struct sockredir_flow *flow;
	__u32 why;

	flow = own_flow(&self, index, &id, tp->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter);
	if (!flow)
		return SOCKREDIR_NO_FLOW;
	own = &flow->side[index & 1];
	other = &flow->side[!(index & 1)];
	s = get_settings();
	why = decide(tp, own, other, mode_of(s));
	if (why == SOCKREDIR_REDIRECTED) {
		peer = peer_key(&self);
		if (peers_redirect(msg, &peer) != SK_PASS)
			why = SOCKREDIR_REFUSED;
	}
	own->state = why;
	if (why == SOCKREDIR_REDIRECTED) {
		own->messages++;
		own->bytes += msg->size;
	}
	return why;
}

SEC("sk_msg")
int verdict(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	__u32 why = tp ? handle(msg, tp) : SOCKREDIR_NO_FLOW;

	count(why, msg->size);
	return SK_PASS;
}

#pragma clang attribute pop
