/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who talks to whom: the keys of a socket, of its peer and of their flow.
 */
#ifndef SOCKREDIR_ENDPOINT_H
#define SOCKREDIR_ENDPOINT_H

#include "dialect/dialect.h"
#include "address.h"

/* The two names of a connection in `peers`: as its own end sees it, and as the other end does. */
struct names {
	struct sockredir_key self;
	struct sockredir_key peer;
};

/* Fills both at once. */
static __always_inline void name_ends(struct names *n, const struct tcp_sock *tp, __u64 netns)
{
	const struct sock_common *sk = &as_sock(tp)->__sk_common;
	struct sockredir_addr local, remote;

	if (sk->skc_family == AF_INET) {
		local = mapped(sk->skc_rcv_saddr);
		remote = mapped(sk->skc_daddr);
	} else {
		local = *(const struct sockredir_addr *)&sk->skc_v6_rcv_saddr;
		remote = *(const struct sockredir_addr *)&sk->skc_v6_daddr;
	}
	n->self.netns = n->peer.netns = netns;
	n->self.local = n->peer.remote = local;
	n->self.remote = n->peer.local = remote;
	n->self.local_port = n->peer.remote_port = sk->skc_num;
	n->self.remote_port = n->peer.local_port = bpf_ntohs(sk->skc_dport);
	n->self.zero = n->peer.zero = 0;
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

/* The key of the flow record is the view of side 0. */
static __always_inline struct sockredir_key *flow_key(struct names *n, int index)
{
	return index ? &n->peer : &n->self;
}

#endif /* SOCKREDIR_ENDPOINT_H */
