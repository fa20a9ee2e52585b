/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Life of a flow record.
 *
 * One record serves both ends of a connection. Each side is filled and cleared under its own
 * socket's lock (established, verdict and close all hold it), so a side that is filled keeps the
 * record alive while its own program runs. The last side to go deletes the record.
 *
 * Joining a record that the other end made is the delicate step: the memory of a record that was
 * deleted is used again at once, for another connection. `owners` carries the creator's socket
 * cookie, which is never used twice. So: read `owners`, look the key up again, then compare and
 * swap. If the second look-up finds the same memory and the swap finds the same word, no other
 * connection had the record in between.
 */
#ifndef SOCKREDIR_FLOW_H
#define SOCKREDIR_FLOW_H

#include "sockredir.h"
#include "endpoint.h"
#include "maps.h"
#include "pressure.h"

#define OWNER_BITS 3ULL

/* The record's key is the view of side 0. */
static __always_inline struct sockredir_key flow_key(const struct sockredir_key *self, int index)
{
	return index ? peer_key(self) : *self;
}

static __always_inline bool flow_join(struct sockredir_flow *flow, const struct sockredir_key *id, int index)
{
	__u64 owners = *(volatile __u64 *)&flow->owners;

	/* Being deleted, or our place is taken by a socket whose end nobody told us. */
	if (!(owners & OWNER_BITS) || (owners & 1ULL << index))
		return false;
	if (flow_find(id) != flow)
		return false;
	return __sync_val_compare_and_swap(&flow->owners, owners, owners | 1ULL << index) == owners;
}

/* The record with our side's presence noted, the side itself still empty. NULL: no room. */
static __always_inline struct sockredir_flow *flow_enter(const struct sockredir_key *id, int index,
							 __u64 cookie)
{
	struct sockredir_flow fresh = {.owners = cookie << 2 | 1ULL << index};
	struct sockredir_flow *flow = flow_find(id);

	if (flow)
		return flow_join(flow, id, index) ? flow : NULL;
	fresh.opened = bpf_ktime_get_ns();
	if (flow_create(id, &fresh))
		return NULL;
	flow = flow_find(id);
	if (flow)
		count(SOCKREDIR_FLOW_OPENED, 0);
	return flow;
}

/* Our side is gone. Nothing of the record may be touched afterwards. */
static __always_inline void flow_exit(struct sockredir_flow *flow, const struct sockredir_key *id, int index)
{
	struct sockredir_pressure *p = get_pressure();
	__u64 mine = 1ULL << index;
	__u64 before = __sync_fetch_and_and(&flow->owners, ~mine);

	if ((before & OWNER_BITS) != mine)
		return;
	if (p) {
		uncharge(p, &flow->side[0]);
		uncharge(p, &flow->side[1]);
	}
	flow_delete(id);
	count(SOCKREDIR_FLOW_CLOSED, 0);
}

#endif /* SOCKREDIR_FLOW_H */
