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

#include "budget.h"
#include "endpoint.h"
#include "ports.h"

#define OWNER_BITS 3ULL

/* The verifier has to see the bound, which the compiler knows and would leave out. */
static __always_inline struct sockredir_side *flow_side(struct sockredir_flow *flow, int index)
{
	barrier_var(index);
	return &flow->side[index & 1];
}

static __always_inline bool flow_join(struct sockredir_flow *flow, const struct sockredir_key *id, int index)
{
	__u64 owners = *(volatile __u64 *)&flow->owners;

	/* Being deleted, or this side belongs to a socket whose end was never reported. */
	if (!(owners & OWNER_BITS) || (owners & 1ULL << index))
		return false;
	if (flow_find(id) != flow)
		return false;
	return __sync_val_compare_and_swap(&flow->owners, owners, owners | 1ULL << index) == owners;
}

static __always_inline void flow_discard(struct sockredir_flow *flow, const struct sockredir_key *id,
					 struct sockredir_pressure *p)
{
	uncharge(p, &flow->side[0]);
	uncharge(p, &flow->side[1]);
	flow_delete(id);
	count(SOCKREDIR_FLOW_CLOSED, 0);
}

/*
 * A record whose sockets are gone without a word: they were closed while no program was attached.
 * A side that is on its way in or out has its bit set and no cookie.
 */
static __always_inline bool flow_is_stale(const struct sockredir_flow *flow)
{
	for (int i = 0; i < 2; i++)
		if ((flow->owners & 1ULL << i) && (!flow->side[i].cookie || still_there(&flow->side[i])))
			return false;
	return flow->owners & OWNER_BITS;
}

/* The client's end comes first: its last ACK makes the server's end established. */
static __always_inline __u32 flow_open(const struct sockredir_key *id, int index, __u64 cookie,
				       struct sockredir_flow **flow)
{
	struct sockredir_flow fresh = {
		.owners = cookie << 2 | 1ULL << index,
		.opened = bpf_ktime_get_ns(),
	};
	struct sockredir_pressure *p = get_pressure();

	if (flow_create(id, &fresh)) {
		*flow = flow_find(id);
		if (!*flow || !p || !flow_is_stale(*flow))
			return SOCKREDIR_SKIP_FULL;
		flow_discard(*flow, id, p);
		count(SOCKREDIR_STALE_FLOW, 0);
		if (flow_create(id, &fresh))
			return SOCKREDIR_SKIP_FULL;
	}
	*flow = flow_find(id);
	count(SOCKREDIR_FLOW_OPENED, 0);
	return *flow ? 0 : SOCKREDIR_SKIP_FULL;
}

/* Notes the presence of a socket in its flow's record, its side still empty. 0, or why not. */
static __always_inline __u32 flow_enter(const struct sockredir_key *id, int index, __u64 cookie, bool server,
					struct sockredir_flow **flow)
{
	if (!server)
		return flow_open(id, index, cookie, flow);
	*flow = flow_find(id);
	return *flow && flow_join(*flow, id, index) ? 0 : SOCKREDIR_SKIP_ALONE;
}

/* Our side is gone. Nothing of the record may be touched afterwards. */
static __always_inline void flow_exit(struct sockredir_flow *flow, const struct sockredir_key *id, int index)
{
	struct sockredir_pressure *p = get_pressure();
	__u64 mine = 1ULL << index;

	if ((__sync_fetch_and_and(&flow->owners, ~mine) & OWNER_BITS) != mine || !p)
		return;
	account(flow, id);
	flow_discard(flow, id, p);
}

/* The record of this socket's flow, if it is its own; the names and the side are those it has there. */
static __always_inline struct sockredir_flow *flow_of(const struct tcp_sock *tp, __u64 netns, __u64 cookie,
						      struct names *names, int *index)
{
	const struct sockredir_key *id;
	struct sockredir_flow *flow;

	name_ends(names, tp, netns);
	*index = side_index(&names->self);
	id = flow_key(names, *index == 1);
	flow = flow_find(id);
	if (unlikely(!flow)) {
		names->self.netns = names->peer.netns = 0;
		flow = flow_find(id);
	}
	return flow && flow_side(flow, *index)->cookie == cookie ? flow : NULL;
}

/* The same for a socket of the map: it has a cookie. bpf_get_netns_cookie() would take three times as long.
 */
static __always_inline struct sockredir_flow *flow_of_mapped(const struct tcp_sock *tp, struct names *names,
							     int *index)
{
	const struct sock_common *sk = &as_sock(tp)->__sk_common;

	return flow_of(tp, sk->skc_net.net->net_cookie, sk->skc_cookie.counter, names, index);
}

#endif /* SOCKREDIR_FLOW_H */
