/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Datagrams of sockets that are not connected. The answers must come from whom the program asked,
 * and one socket may ask several name servers: each of them has an address of its own at the proxy.
 */
#ifndef SOCKREDIR_INTERCEPT_DNS_H
#define SOCKREDIR_INTERCEPT_DNS_H

#include "intercept_connect.h"

/* Where a socket's datagrams to this name server go; false: nowhere else. */
static __always_inline bool server_of(struct intercept_servers *s, const struct question *q,
				      const struct intercept_rule *r, struct intercept_end *to)
{
	__u64 place;

	for (int i = 0; i < INTERCEPT_MAX_DNS; i++) {
		if (same_end(&s->server[i].asked, &q->asked) && s->server[i].to.port) {
			*to = s->server[i].to;
			return true;
		}
	}
	if (s->used >= INTERCEPT_MAX_DNS)
		return false;
	place = __sync_fetch_and_add(&s->used, 1);
	if (place >= INTERCEPT_MAX_DNS || !r->dns[q->family & 1][place].port)
		return false;
	s->server[place].asked = q->asked;
	s->server[place].to = r->dns[q->family & 1][place];
	*to = s->server[place].to;
	return true;
}

static __always_inline int sending(struct bpf_sock_addr *ctx, struct question *q, bool *rewritten)
{
	const struct intercept_end asked = q->asked;
	struct intercept_servers *kept;
	const struct intercept_rule *r;

	*rewritten = false;
	if (!ask(q, &r))
		return REFUSE;
	if (!r || ctx->sk->bound_dev_if)
		return PROCEED;
	kept = bpf_sk_storage_get(&servers, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept) {
		happens(r->slot, INTERCEPT_FAILED, NULL, &asked, &asked);
		return REFUSE;
	}
	*rewritten = server_of(kept, q, r, &q->asked);
	happens(r->slot, *rewritten ? INTERCEPT_DNS : INTERCEPT_DNS_PASSED, NULL, &q->asked, &asked);
	return PROCEED;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct question q = {.family = INTERCEPT_V4, .datagram = true};
	bool rewritten;
	int verdict;

	q.asked = v4_end(ctx);
	q.netns = bpf_get_netns_cookie(ctx);
	verdict = sending(ctx, &q, &rewritten);
	if (rewritten)
		put_v4(ctx, &q.asked);
	return verdict;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct question q = {.datagram = true};
	bool rewritten;
	int verdict;

	q.asked = v6_end(ctx);
	q.family = is_v4(&q.asked.addr) ? INTERCEPT_V4 : INTERCEPT_V6;
	q.netns = bpf_get_netns_cookie(ctx);
	verdict = sending(ctx, &q, &rewritten);
	if (rewritten)
		put_v6(ctx, &q.asked);
	return verdict;
}

/* The server that the program asked if an answer comes from here; NULL: this one. */
static __always_inline const struct intercept_end *asked_of(struct bpf_sock_addr *ctx,
							    const struct intercept_end *from)
{
	const struct intercept_note *note = bpf_sk_storage_get(&outgoing, ctx->sk, NULL, 0);
	const struct intercept_servers *s;

	if (note && same_end(&note->to, from))
		return &note->asked;
	s = bpf_sk_storage_get(&servers, ctx->sk, NULL, 0);
	if (!s)
		return NULL;
	for (int i = 0; i < INTERCEPT_MAX_DNS; i++) {
		if (same_end(&s->server[i].to, from))
			return &s->server[i].asked;
	}
	return NULL;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct intercept_end from = v4_end(ctx);
	const struct intercept_end *asked = asked_of(ctx, &from);

	if (asked)
		put_v4(ctx, asked);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct intercept_end from = v6_end(ctx);
	const struct intercept_end *asked = asked_of(ctx, &from);

	if (asked)
		put_v6(ctx, asked);
	return 1;
}

#endif /* SOCKREDIR_INTERCEPT_DNS_H */
