/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses and networks. Whoever includes this has included a dialect of C before.
 */
#ifndef SOCKREDIR_ADDRESS_H
#define SOCKREDIR_ADDRESS_H

#include "sockredir.h"

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

/* Network byte order: the first `bits` bits of a word. */
static __always_inline __u32 mask_of(__u32 bits)
{
	return bits >= 32 ? ~0U : bpf_htonl(~(~0U >> bits));
}

static __always_inline bool addr_in(const struct sockredir_cidr *c, const struct sockredir_addr *a)
{
	__u32 left = c->bits;

	if (left > 128)
		return false;
	for (int i = 0; i < 4; i++) {
		if ((a->word[i] ^ c->addr.word[i]) & mask_of(left))
			return false;
		left = left > 32 ? left - 32 : 0;
	}
	return true;
}

#endif /* SOCKREDIR_ADDRESS_H */
