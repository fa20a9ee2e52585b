/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Has the memory cgroup of a reader room for a message?
 *
 * A redirect charges what it queues to the reader's memory cgroup, and it is the writer's thread that
 * does so: at the limit the kernel kills a process of that cgroup. For what comes by TCP, `receive`'s
 * worker may do the same (both seen on 6.12 with 1 MiB left). TCP alone drops segments there and has
 * the writer wait. So a socket whose cgroup has little room does not come into the map, and later a
 * message that might not fit goes by TCP. Asked about are those that leave more unread than every
 * connection may, and where there is plenty, not each of them.
 */
#ifndef SOCKREDIR_MEMORY_H
#define SOCKREDIR_MEMORY_H

#include "reader.h"

#define LEVELS_MOST 8		 /* of cgroups above one another */
#define PAGE	    4096ULL	 /* at least */
#define SPARE	    (1ULL << 20) /* left over by a message */
#define PLENTY	    (64ULL << 20)
#define ROOMY_FOR   8 /* messages of at most half a MiB */

struct climb {
	const struct page_counter *at;
	__u64 left; /* pages */
};

/* 1: there is no cgroup above. */
static long climb_level(__u32 turn, struct climb *c)
{
	const struct page_counter *at = c->at;
	__u64 most, usage;

	(void)turn;
	if (!at)
		return 1;
	most = BPF_CORE_READ(at, max);
	usage = BPF_CORE_READ(at, usage.counter);
	if (most < usage)
		usage = most;
	if (most - usage < c->left)
		c->left = most - usage;
	c->at = BPF_CORE_READ(at, parent);
	return 0;
}

/* Bytes that may be charged to the socket's memory cgroup before it or one above is at its limit. */
static __always_inline __u64 memory_left(struct sock *sk)
{
	struct climb c = {.at = memory_of(sk), .left = ~0ULL / PAGE};

	repeat(LEVELS_MOST, climb_level, &c);
	return c.left * PAGE;
}

static __always_inline bool has_memory(struct sockredir_side *writer, const struct sockredir_side *reader,
				       __u32 size)
{
	__u64 left;

	if (likely(writer->roomy)) {
		writer->roomy--;
		return true;
	}
	left = memory_left(sock_of(reader));
	if (left >= PLENTY)
		writer->roomy = ROOMY_FOR;
	return left >= size + SPARE;
}

#endif /* SOCKREDIR_MEMORY_H */
