/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who talks to whom: the keys of a socket, of its peer and of their flow.
 */
#ifndef SOCKREDIR_ENDPOINT_H
#define SOCKREDIR_ENDPOINT_H

#include "dialect.h"

#define V4MAPPED bpf_htonl(0xffff)

static __always_inline struct sockredir_addr mapped(__u32 ip4)
{
	return (struct sockredir_addr){.word = {0, 0, V4MAPPED, ip4}};
}

static __always_inline bool is_v4(const struct sockredir_addr *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == V4MAPPED;
}

static __always_inline bool same_addr(const struct sockredir_addr *a, const struct sockredir_addr *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

/* How the socket is named in `peers`. */
static __always_inline struct sockredir_key self_key(const struct tcp_sock *tp, __u64 netns)
{
	const struct sock_common *sk = &tp->inet_conn.icsk_inet.sk.__sk_common;
	struct sockredir_key key = {.netns = netns};

	if (sk->skc_family == AF_INET) {
		key.local = mapped(sk->skc_rcv_saddr);
		key.remote = mapped(sk->skc_daddr);
	} else {
		key.local = *(const struct sockredir_addr *)&sk->skc_v6_rcv_saddr;
		key.remote = *(const struct sockredir_addr *)&sk->skc_v6_daddr;
	}
	key.local_port = sk->skc_num;
	key.remote_port = bpf_ntohs(sk->skc_dport);
	return key;
}

/* The same connection seen from its other end. */
static __always_inline struct sockredir_key peer_key(const struct sockredir_key *self)
{
	return (struct sockredir_key){
		.netns = self->netns,
		.local = self->remote,
		.remote = self->local,
		.local_port = self->remote_port,
		.remote_port = self->local_port,
	};
}

/*
 * Which side of the flow record a socket is: 0 or 1. Both ends must come to opposite answers,
 * any order will do. -1: a socket connected to itself.
 */
static __always_inline int side_index(const struct sockredir_key *self)
{
	const struct sockredir_addr *l = &self->local, *r = &self->remote;

	if (self->local_port != self->remote_port)
		return self->local_port > self->remote_port;
	if (l->word[3] != r->word[3])
		return l->word[3] > r->word[3];
	if (l->word[2] != r->word[2])
		return l->word[2] > r->word[2];
	if (l->word[1] != r->word[1])
		return l->word[1] > r->word[1];
	if (l->word[0] != r->word[0])
		return l->word[0] > r->word[0];
	return -1;
}

#endif /* SOCKREDIR_ENDPOINT_H */
