// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * sockredir: TCP between processes of one host, past the TCP/IP stack.
 *
 * `sockops` puts both sockets of a local connection in a map as they are established and takes
 * note of them in a flow record. `verdict` sees each message before TCP does and hands it to the
 * receiving socket, or leaves it to TCP unless redirecting is certain to be right and worth it.
 */
#include "dialect/dialect.h"

/* Atomics that return the old value: kernels have them since 5.12, clang 14 unless told not. */
#pragma clang attribute push(__attribute__((target("arch=v3"))), apply_to = function)

#include "piece.h"
#include "receive.h"
#include "sockops.h"
#include "verdict.h"

/* Half of the calls for a connection ask for settings that are not ours to give: they end at once. */
#define OURS                                                                                                 \
	(1U << BPF_SOCK_OPS_TCP_CONNECT_CB | 1U << BPF_SOCK_OPS_TCP_LISTEN_CB |                              \
	 1U << BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | 1U << BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB |              \
	 1U << BPF_SOCK_OPS_STATE_CB | 1U << BPF_SOCK_OPS_RTT_CB | 1U << BPF_SOCK_OPS_PARSE_HDR_OPT_CB |     \
	 1U << BPF_SOCK_OPS_HDR_OPT_LEN_CB)

/* Not plain "sockops": clang refuses a function that is called like its section. */
SEC("sockops/tcp")
int sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;
	struct tcp_sock *tp;

	if (!(OURS >> ctx->op & 1))
		return 1;
	sk = ctx->sk;
	tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	if (!tp)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		mark_listener(ctx, tp);
		begins(ctx, tp);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
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
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		follow(ctx, tp, OCCASION_SEGMENT);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (as_sock(tp)->sk_lock.owned)
			follow(ctx, tp, acknowledges_only(ctx) ? OCCASION_READ : OCCASION_ANSWER);
		break;
	}
	return 1;
}

SEC("sk_msg")
int verdict(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	__u32 size = msg->size;
	__u32 why = tp ? handle(msg, tp, size) : SOCKREDIR_NO_FLOW;

	if (why != SOCKREDIR_REDIRECTED && tp)
		in_one_piece(msg, tp, size);
	count(why, size);
	return SK_PASS;
}

SEC("sk_skb/stream_verdict")
int receive(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	return !tp || take(skb, tp) ? SK_PASS : SK_DROP;
}

#pragma clang attribute pop
