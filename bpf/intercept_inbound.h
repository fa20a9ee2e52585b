/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections from outside: the proxy's listener is found by `listeners`, into which `claims` puts
 * it when it begins to listen, and takes the place of whatever listens at the port. So the local
 * address of the socket that the proxy accepts is the original destination.
 */
#ifndef SOCKREDIR_INTERCEPT_INBOUND_H
#define SOCKREDIR_INTERCEPT_INBOUND_H

#include "intercept_claim.h"

#define LOOPBACK_IFINDEX 1 /* in every network namespace */

struct enlisting {
	struct intercept_end end; /* of the listener */
	int first;
	struct intercept_end to[INTERCEPT_FAMILIES]; /* those of rules at which it is reached */
};

static __always_inline bool is_reached(const struct enlisting *e, const struct intercept_end *to)
{
	if (!to->port || to->port != e->end.port)
		return false;
	return same_addr(&to->addr, &e->end.addr) || is_nowhere(&e->end.addr);
}

static long is_to_of(__u32 i, struct enlisting *e)
{
	const struct intercept_rule *r = rule_at(e->first + i);

	if (!r)
		return 1;
	if (!(r->flags & INTERCEPT_HAS_INBOUND))
		return 0;
	if (is_reached(e, &r->to[INTERCEPT_V4]))
		e->to[INTERCEPT_V4] = r->to[INTERCEPT_V4];
	if (is_reached(e, &r->to[INTERCEPT_V6]))
		e->to[INTERCEPT_V6] = r->to[INTERCEPT_V6];
	return 0;
}

/* A free place for the listener. Its element goes with it, or when it no longer listens. */
static __always_inline void enlist(struct bpf_sock_ops *ctx, __u64 netns, const struct intercept_end *to)
{
	struct intercept_listener key = {.netns = netns, .to = *to};

	if (!to->port)
		return;
	for (int i = 0; i < INTERCEPT_LISTENERS; i++) {
		key.index = i;
		if (!bpf_sock_hash_update(ctx, &listeners, &key, BPF_NOEXIST))
			return;
	}
}

/* The socket listens from now on. */
static __always_inline void listening(struct bpf_sock_ops *ctx)
{
	struct enlisting e = {.first = first_rule()};
	struct sockredir_key key;

	own_view(ctx, &key);
	e.end.addr = key.local;
	e.end.port = key.local_port;
	if (e.first >= 0)
		repeat(INTERCEPT_MAX_RULES, is_to_of, &e);
	enlist(ctx, key.netns, &e.to[INTERCEPT_V4]);
	enlist(ctx, key.netns, &e.to[INTERCEPT_V6]);
}

SEC("sockops/intercept")
int claims(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		stake(ctx, sk);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		collect(ctx, sk);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listening(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			withdraw(ctx, sk);
		break;
	}
	return 1;
}

/* Over lo, or from the address that it is for: the host itself, whose connections connect() settles. */
static __always_inline bool is_from_here(const struct bpf_sk_lookup *ctx)
{
	__u32 remote = FIELD(ctx, remote_ip4), local = FIELD(ctx, local_ip4);

	if (ctx->ingress_ifindex == LOOPBACK_IFINDEX)
		return true;
	if (ctx->family == AF_INET)
		return remote == local;
	return FIELD(ctx, remote_ip6[0]) == FIELD(ctx, local_ip6[0]) &&
	       FIELD(ctx, remote_ip6[1]) == FIELD(ctx, local_ip6[1]) &&
	       FIELD(ctx, remote_ip6[2]) == FIELD(ctx, local_ip6[2]) &&
	       FIELD(ctx, remote_ip6[3]) == FIELD(ctx, local_ip6[3]);
}

/* To a listener of the proxy; false: there is none. Of a group that shares the port, the kernel takes any. */
static __always_inline bool hand_over(struct bpf_sk_lookup *ctx, const struct intercept_door *door,
				      const struct intercept_end *to)
{
	struct intercept_listener key = {.netns = door->netns, .to = *to};
	struct bpf_sock *sk;
	long failed;

	for (int i = 0; i < INTERCEPT_LISTENERS; i++) {
		key.index = i;
		sk = bpf_map_lookup_elem(&listeners, &key);
		if (!sk)
			continue;
		failed = bpf_sk_assign(ctx, sk, 0);
		bpf_sk_release(sk);
		if (!failed)
			return true;
	}
	return false;
}

static __always_inline void happens_inbound(const struct bpf_sk_lookup *ctx, __u32 slot,
					    enum intercept_event event, const struct intercept_end *to)
{
	struct intercept_end client = {.port = bpf_ntohs(ctx->remote_port)},
			     asked = {.port = ctx->local_port};
	__u32 local = FIELD(ctx, local_ip4), remote = FIELD(ctx, remote_ip4);

	if (ctx->family == AF_INET) {
		client.addr = mapped(remote);
		asked.addr = mapped(local);
	} else {
		client.addr = FIELD_IP6(ctx, remote_ip6);
		asked.addr = FIELD_IP6(ctx, local_ip6);
	}
	happens(slot, event, &client, to ? to : &asked, &asked);
}

SEC("sk_lookup")
int inbound(struct bpf_sk_lookup *ctx)
{
	const struct intercept_door *door;
	const struct intercept_end *to;

	if (ctx->protocol != IPPROTO_TCP || is_from_here(ctx))
		return SK_PASS;
	door = door_at(ctx->local_port);
	if (!door)
		return SK_PASS;
	to = &door->to[ctx->family == AF_INET ? INTERCEPT_V4 : INTERCEPT_V6];
	if (!to->port)
		return SK_PASS;
	if (hand_over(ctx, door, to)) {
		happens_inbound(ctx, door->slot, INTERCEPT_INBOUND, to);
		return SK_PASS;
	}
	if (door->flags & INTERCEPT_DIRECT_WHEN_DOWN) {
		happens_inbound(ctx, door->slot, INTERCEPT_DIRECT, NULL);
		return SK_PASS;
	}
	happens_inbound(ctx, door->slot, INTERCEPT_TURNED_AWAY, to);
	return SK_DROP;
}

#endif /* SOCKREDIR_INTERCEPT_INBOUND_H */
