/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the two programs are told: the proxy where its client wanted to go, the client that it is
 * there.
 */
#ifndef SOCKREDIR_INTERCEPT_ANSWER_H
#define SOCKREDIR_INTERCEPT_ANSWER_H

#include "intercept_claim.h"
#include "intercept_connect.h"

#define AF_INET6	10
#define SOL_IP		0
#define SOL_IPV6	41
#define SO_ORIGINAL_DST 80 /* and IP6T_SO_ORIGINAL_DST */
#define MOST_COPIED	4096

struct address4 {
	__u16 family;
	__be16 port;
	__u32 addr;
	__u64 zero;
};

struct address6 {
	__u16 family;
	__be16 port;
	__u32 flow;
	struct sockredir_addr addr;
	__u32 scope;
};

/*
 * After the programs the kernel copies its buffer over the caller's, even if it has filled none
 * because the option failed. With a length of 0 it leaves the caller's alone.
 */
static __always_inline int untouched(struct bpf_sockopt *ctx)
{
	if (ctx->retval || ctx->optlen > MOST_COPIED)
		ctx->optlen = 0;
	return 1;
}

/* What the proxy is told of one of its sockets. */
struct answer {
	struct intercept_end asked;
	struct intercept_end local, remote; /* of the socket */
	__u32 slot;
};

static __always_inline void note_ends(struct answer *a, const struct bpf_sock *sk)
{
	__u32 local = FIELD(sk, src_ip4), remote = FIELD(sk, dst_ip4);

	a->local.port = sk->src_port;
	a->remote.port = bpf_ntohs(sk->dst_port);
	if (sk->family == AF_INET) {
		a->local.addr = mapped(local);
		a->remote.addr = mapped(remote);
		return;
	}
	a->local.addr = FIELD_IP6(sk, src_ip6);
	a->remote.addr = FIELD_IP6(sk, dst_ip6);
}

/* The verifier refuses the two stores when the compiler makes one of them. */
static __always_inline bool answered(struct bpf_sockopt *ctx, __u32 size)
{
	ctx->optlen = size;
	barrier();
	ctx->retval = 0;
	return true;
}

static __always_inline bool answer_v4(struct bpf_sockopt *ctx, const struct intercept_end *asked)
{
	struct address4 *to = ctx->optval;

	if ((void *)(to + 1) > ctx->optval_end || !is_v4(&asked->addr))
		return false;
	to->family = AF_INET;
	to->port = bpf_htons(asked->port);
	to->addr = asked->addr.word[3];
	to->zero = 0;
	return answered(ctx, sizeof(*to));
}

static __always_inline bool answer_v6(struct bpf_sockopt *ctx, const struct intercept_end *asked)
{
	struct address6 *to = ctx->optval;

	if ((void *)(to + 1) > ctx->optval_end || is_v4(&asked->addr))
		return false;
	to->family = AF_INET6;
	to->port = bpf_htons(asked->port);
	to->flow = 0;
	to->addr = asked->addr;
	to->scope = 0;
	return answered(ctx, sizeof(*to));
}

/*
 * Of a connection from outside the destination is the local address. False: no rule is for such
 * ones, or it cannot be one (from the host itself, or made by the proxy).
 */
static __always_inline bool came_in(const struct bpf_sock *sk, struct answer *a)
{
	const struct intercept_door *door = door_at(sk->src_port);

	if (!door || sk->state == BPF_TCP_LISTEN)
		return false;
	a->asked = a->local;
	a->slot = door->slot;
	return true;
}

/* Where the client of the proxy's socket wanted to go. */
static __always_inline bool destination(struct bpf_sock *sk, struct answer *a)
{
	const struct intercept_note *note = bpf_sk_storage_get(&incoming, sk, NULL, 0);

	if (!note)
		return came_in(sk, a);
	a->asked = note->asked;
	a->slot = note->slot;
	return true;
}

SEC("cgroup/getsockopt")
int getsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct answer a = {};

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6) || !sk)
		return untouched(ctx);
	note_ends(&a, sk);
	if (!destination(sk, &a))
		return untouched(ctx);
	if (!(ctx->level == SOL_IP ? answer_v4(ctx, &a.asked) : answer_v6(ctx, &a.asked)))
		return untouched(ctx);
	happens(a.slot, INTERCEPT_ANSWERED, &a.remote, &a.local, &a.asked);
	return 1;
}

/* The note of a socket whose other end's address is where it was sent. */
static __always_inline const struct intercept_note *sent_to(struct bpf_sock_addr *ctx,
							    const struct intercept_end *end)
{
	const struct intercept_note *note = bpf_sk_storage_get(&outgoing, ctx->sk, NULL, 0);

	return note && same_end(&note->to, end) ? note : NULL;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct intercept_end end = v4_end(ctx);
	const struct intercept_note *note = sent_to(ctx, &end);

	if (note)
		put_v4(ctx, &note->asked);
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct intercept_end end = v6_end(ctx);
	const struct intercept_note *note = sent_to(ctx, &end);

	if (note)
		put_v6(ctx, &note->asked);
	return 1;
}

/* The note of a proxy's socket, if its rule wants getsockname() answered too. */
static __always_inline const struct intercept_note *named(struct bpf_sock_addr *ctx)
{
	const struct intercept_note *note = bpf_sk_storage_get(&incoming, ctx->sk, NULL, 0);

	return note && note->flags & INTERCEPT_SOCKNAME ? note : NULL;
}

SEC("cgroup/getsockname4")
int getsockname4(struct bpf_sock_addr *ctx)
{
	const struct intercept_note *note = named(ctx);

	if (note && is_v4(&note->asked.addr))
		put_v4(ctx, &note->asked);
	return 1;
}

SEC("cgroup/getsockname6")
int getsockname6(struct bpf_sock_addr *ctx)
{
	const struct intercept_note *note = named(ctx);

	if (note)
		put_v6(ctx, &note->asked);
	return 1;
}

#endif /* SOCKREDIR_INTERCEPT_ANSWER_H */
