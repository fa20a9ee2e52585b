/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which rule is for a destination that the running task wants to reach, and whether the task is a
 * proxy that would come back to itself. Rules come from user space and may hold anything: no value
 * may do harm.
 */
#ifndef SOCKREDIR_INTERCEPT_RULES_H
#define SOCKREDIR_INTERCEPT_RULES_H

#include "intercept_trace.h"

#define DNS_PORT 53

struct question {
	struct intercept_end asked;
	__u64 netns;
	int family;
	bool datagram;
	int first; /* where the rules begin that hold; negative: there are none */
	/* Answers. */
	int rule; /* index in `intercepts`; -1: none */
	int loop; /* of the rule whose proxy comes back; -1: none */
};

/* 0.0.0.0 and :: are the host itself. */
static __always_inline bool is_nowhere(const struct sockredir_addr *a)
{
	return !a->word[3] && !a->word[0] && !a->word[1] && (!a->word[2] || a->word[2] == V4MAPPED);
}

/* Loopback, link-local, multicast: what no rule means that does not say so. */
static __always_inline bool stays_here(const struct sockredir_addr *a)
{
	__u32 ip4 = bpf_ntohl(a->word[3]), top = bpf_ntohl(a->word[0]);

	if (is_nowhere(a))
		return true;
	if (is_v4(a))
		return ip4 >> 24 == 127 || ip4 >> 24 == 0 || ip4 >> 16 == 0xa9fe || ip4 >> 28 == 0xe ||
		       ip4 == 0xffffffff;
	if (!a->word[0] && !a->word[1] && !a->word[2] && ip4 == 1)
		return true;
	return top >> 22 == 0xfe80 >> 6 || top >> 24 == 0xff;
}

/* A list of a rule and what is looked for in it. */
struct scan {
	const struct sockredir_cidr *cidrs;
	const struct sockredir_ports *ports;
	__u32 n;
	struct intercept_end wanted;
	bool found;
};

static long look_at_cidr(__u32 i, struct scan *s)
{
	if (i >= s->n)
		return 1;
	i &= INTERCEPT_MAX_CIDRS - 1; /* for the verifier: no turn comes that far */
	s->found = addr_in(&s->cidrs[i], &s->wanted.addr);
	return s->found;
}

static __always_inline bool in_networks(const struct sockredir_cidr *list, __u32 n,
					const struct intercept_end *wanted)
{
	struct scan s = {.cidrs = list, .n = n, .wanted = *wanted};

	if (n)
		repeat(INTERCEPT_MAX_CIDRS, look_at_cidr, &s);
	return s.found;
}

static long look_at_ports(__u32 i, struct scan *s)
{
	if (i >= s->n)
		return 1;
	i &= INTERCEPT_MAX_PORTS - 1; /* for the verifier: no turn comes that far */
	s->found = s->wanted.port >= s->ports[i].low && s->wanted.port <= s->ports[i].high;
	return s->found;
}

static __always_inline bool in_ports(const struct sockredir_ports *list, __u32 n,
				     const struct intercept_end *wanted)
{
	struct scan s = {.ports = list, .n = n, .wanted = *wanted};

	if (n)
		repeat(INTERCEPT_MAX_PORTS, look_at_ports, &s);
	return s.found;
}

static __always_inline bool right_port(const struct intercept_rule *r, const struct question *q)
{
	if (q->datagram)
		return q->asked.port == DNS_PORT && r->dns[q->family & 1][0].port;
	if (in_ports(r->exclude_ports, r->n_exclude_ports, &q->asked))
		return false;
	return !r->n_ports || in_ports(r->ports, r->n_ports, &q->asked);
}

static __always_inline bool right_address(const struct intercept_rule *r, const struct question *q)
{
	if (in_networks(r->exclude_cidrs, r->n_exclude_cidrs, &q->asked))
		return false;
	if (!r->n_cidrs)
		return !stays_here(&q->asked.addr);
	return in_networks(r->cidrs, r->n_cidrs, &q->asked);
}

static __always_inline bool is_below(__u64 cgroup, __u32 level)
{
	return cgroup && bpf_get_current_ancestor_cgroup_id(level) == cgroup;
}

static __always_inline bool is_proxy(const struct intercept_rule *r)
{
	if (is_below(r->proxy, r->proxy_level))
		return true;
	return r->flags & INTERCEPT_PROXY_USER && (__u32)bpf_get_current_uid_gid() == r->proxy_user;
}

/* The listener's own address, or a local one under which it has been reached before. */
static __always_inline bool is_listener(const struct question *q, const struct intercept_end *listener)
{
	struct intercept_reached key = {.netns = q->netns, .end = q->asked};

	if (!listener->port || q->asked.port != listener->port)
		return false;
	return same_addr(&q->asked.addr, &listener->addr) || is_nowhere(&q->asked.addr) ||
	       bpf_map_lookup_elem(&reached, &key);
}

static __always_inline bool comes_back(const struct intercept_rule *r, const struct question *q)
{
	if (!q->datagram)
		return is_listener(q, &r->to[INTERCEPT_V4]) || is_listener(q, &r->to[INTERCEPT_V6]);
	for (int i = 0; i < INTERCEPT_MAX_DNS; i++) {
		if (is_listener(q, &r->dns[q->family & 1][i]))
			return true;
	}
	return false;
}

/* The proxy by its own name is not intercepted: who asks for it has what he wants. */
static __always_inline bool is_for(const struct intercept_rule *r, const struct question *q)
{
	const struct intercept_end *to = &r->to[q->family & 1];

	if (!is_below(r->apps, r->apps_level))
		return false;
	if (!q->datagram && (!to->port || same_end(to, &q->asked)))
		return false;
	return right_port(r, q) && right_address(r, q);
}

static long consider(__u32 i, struct question *q)
{
	__u32 index = q->first + i;
	const struct intercept_rule *r = rule_at(index);

	if (!r)
		return 1;
	if (is_proxy(r)) {
		if (!comes_back(r, q))
			return 0;
		q->loop = index;
		return 1;
	}
	if (q->rule < 0 && is_for(r, q))
		q->rule = index;
	return 0;
}

/*
 * Asks all rules: the first that is for it counts (NULL: none), and every proxy's guard. False: a
 * proxy would come back to itself.
 */
static __always_inline bool ask(struct question *q, const struct intercept_rule **rule)
{
	const struct intercept_rule *loop;

	q->first = first_rule();
	q->rule = q->loop = -1;
	if (q->first >= 0)
		repeat(INTERCEPT_MAX_RULES, consider, q);
	loop = q->loop < 0 ? NULL : rule_at(q->loop);
	if (loop) {
		happens(loop->slot, INTERCEPT_LOOPED, NULL, &q->asked, &q->asked);
		return false;
	}
	*rule = q->rule < 0 ? NULL : rule_at(q->rule);
	return true;
}

#endif /* SOCKREDIR_INTERCEPT_RULES_H */
