/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which sockets are TCP's, and which have both ends on this host. */
#ifndef SOCKREDIR_LEARN_LOCAL_H
#define SOCKREDIR_LEARN_LOCAL_H

#include "learn_kernel.h"

static __always_inline bool is_tcp(const struct sock *sk)
{
	return sk->sk_protocol == TCP_PROTOCOL &&
	       (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

static __always_inline bool is_loopback(__be32 ip4)
{
	return (ip4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline bool same_host_v4(__be32 local, __be32 remote)
{
	return local == remote || (is_loopback(local) && is_loopback(remote));
}

/* As in policy.h for pairs that are not listed: an address to itself, or 127/8 to 127/8. */
static __always_inline bool same_host(const struct sock_common *c)
{
	const __be32 *l = c->skc_v6_rcv_saddr.word, *r = c->skc_v6_daddr.word;

	if (c->skc_family == AF_INET)
		return same_host_v4(c->skc_rcv_saddr, c->skc_daddr);
	if (l[0] != r[0] || l[1] != r[1] || l[2] != r[2])
		return false;
	if (!l[0] && !l[1] && l[2] == bpf_htonl(0xffff))
		return same_host_v4(l[3], r[3]);
	return l[3] == r[3];
}

#endif /* SOCKREDIR_LEARN_LOCAL_H */
