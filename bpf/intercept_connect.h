/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * connect() and the first datagram: where the program wants to go, and where it is sent.
 */
#ifndef SOCKREDIR_INTERCEPT_CONNECT_H
#define SOCKREDIR_INTERCEPT_CONNECT_H

#include "intercept_rules.h"

/* What a program of these hooks returns. */
#define REFUSE	0 /* the caller gets EPERM */
#define PROCEED 1

static __always_inline struct intercept_end v4_end(const struct bpf_sock_addr *ctx)
{
	return (struct intercept_end){.addr = mapped(ctx->user_ip4), .port = bpf_ntohs(ctx->user_port)};
}

static __always_inline struct intercept_end v6_end(const struct bpf_sock_addr *ctx)
{
	struct intercept_end end = {.port = bpf_ntohs(ctx->user_port)};

	end.addr.word[0] = ctx->user_ip6[0];
	end.addr.word[1] = ctx->user_ip6[1];
	end.addr.word[2] = ctx->user_ip6[2];
	end.addr.word[3] = ctx->user_ip6[3];
	return end;
}

static __always_inline void put_v4(struct bpf_sock_addr *ctx, const struct intercept_end *end)
{
	ctx->user_ip4 = end->addr.word[3];
	ctx->user_port = bpf_htons(end->port);
}

static __always_inline void put_v6(struct bpf_sock_addr *ctx, const struct intercept_end *end)
{
	ctx->user_ip6[0] = end->addr.word[0];
	ctx->user_ip6[1] = end->addr.word[1];
	ctx->user_ip6[2] = end->addr.word[2];
	ctx->user_ip6[3] = end->addr.word[3];
	ctx->user_port = bpf_htons(end->port);
}

static __always_inline bool is_listening(struct bpf_sock_addr *ctx, const struct intercept_end *to,
					 int family)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size = sizeof(tuple.ipv4);
	bool found;

	if (family == INTERCEPT_V4) {
		tuple.ipv4.daddr = to->addr.word[3];
		tuple.ipv4.dport = bpf_htons(to->port);
	} else {
		size = sizeof(tuple.ipv6);
		__builtin_memcpy(tuple.ipv6.daddr, &to->addr, sizeof(to->addr));
		tuple.ipv6.dport = bpf_htons(to->port);
	}
	sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	found = sk->state == BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return found;
}

/* Has the socket remember where it wanted to go. REFUSE: it cannot. */
static __always_inline int remember(struct bpf_sock_addr *ctx, const struct question *q,
				    const struct intercept_rule *r, const struct intercept_end *to)
{
	struct intercept_note note = {.asked = q->asked, .to = *to, .slot = r->slot, .flags = r->flags};
	struct intercept_note *kept;

	kept = bpf_sk_storage_get(&outgoing, ctx->sk, &note, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return REFUSE;
	*kept = note;
	return PROCEED;
}

/* The socket connects to where it wants: what an earlier connection has left is no longer true. */
static __always_inline int as_asked(struct bpf_sock_addr *ctx, const struct question *q, __u32 slot,
				    enum intercept_event why)
{
	bpf_sk_storage_delete(&outgoing, ctx->sk);
	happens(slot, why, NULL, &q->asked, &q->asked);
	return PROCEED;
}

/* Writes the address to go to into `q->asked`. */
static __always_inline int connecting(struct bpf_sock_addr *ctx, struct question *q, bool *rewritten)
{
	const struct intercept_rule *r;
	struct intercept_end to;

	*rewritten = false;
	if (!ask(q, &r))
		return REFUSE;
	if (!r)
		return as_asked(ctx, q, 0, INTERCEPT_PASSED);
	if (ctx->sk->bound_dev_if)
		return as_asked(ctx, q, r->slot, INTERCEPT_LEFT_ALONE);
	to = q->datagram ? r->dns[q->family & 1][0] : r->to[q->family & 1];
	if (!q->datagram && r->flags & INTERCEPT_DIRECT_WHEN_DOWN && !is_listening(ctx, &to, q->family))
		return as_asked(ctx, q, r->slot, INTERCEPT_DIRECT);
	if (!remember(ctx, q, r, &to)) {
		happens(r->slot, INTERCEPT_FAILED, NULL, &to, &q->asked);
		return REFUSE;
	}
	if (q->datagram)
		happens(r->slot, INTERCEPT_DNS, NULL, &to, &q->asked);
	else
		tally(r->slot, INTERCEPT_REWRITTEN); /* told with the SYN: see stake() */
	q->asked = to;
	*rewritten = true;
	return PROCEED;
}

static __always_inline bool is_ours(const struct bpf_sock_addr *ctx)
{
	return (ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP) ||
	       (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct question q = {.family = INTERCEPT_V4};
	bool rewritten;
	int verdict;

	if (!is_ours(ctx))
		return PROCEED;
	q.asked = v4_end(ctx);
	q.datagram = ctx->type == SOCK_DGRAM;
	q.netns = bpf_get_netns_cookie(ctx);
	verdict = connecting(ctx, &q, &rewritten);
	if (rewritten)
		put_v4(ctx, &q.asked);
	return verdict;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct question q = {};
	bool rewritten;
	int verdict;

	if (!is_ours(ctx))
		return PROCEED;
	q.asked = v6_end(ctx);
	q.family = is_v4(&q.asked.addr) ? INTERCEPT_V4 : INTERCEPT_V6;
	q.datagram = ctx->type == SOCK_DGRAM;
	q.netns = bpf_get_netns_cookie(ctx);
	verdict = connecting(ctx, &q, &rewritten);
	if (rewritten)
		put_v6(ctx, &q.asked);
	return verdict;
}

#endif /* SOCKREDIR_INTERCEPT_CONNECT_H */
