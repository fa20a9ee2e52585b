/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which connections are ours to redirect. Asked once for each socket, when it is established.
 * Settings come from user space and may hold anything: no value may do harm.
 */
#ifndef SOCKREDIR_POLICY_H
#define SOCKREDIR_POLICY_H

#include "endpoint.h"

static __always_inline __u32 mode_of(const struct sockredir_settings *s)
{
	if (!s || s->version != SOCKREDIR_LAYOUT || s->size != sizeof(*s))
		return SOCKREDIR_MODE_DRAIN;
	if (s->mode == SOCKREDIR_MODE_ENFORCE || s->mode == SOCKREDIR_MODE_OBSERVE)
		return s->mode;
	return SOCKREDIR_MODE_DRAIN;
}

static __always_inline bool is_loopback(const struct sockredir_addr *a)
{
	return is_v4(a) && (a->word[3] & mask_of(8)) == bpf_htonl(127U << 24);
}

static __always_inline bool port_in(const struct sockredir_ports *list, __u32 n, __u16 port)
{
	for (__u32 i = 0; i < n; i++) {
		barrier_var(i); /* what the verifier is to know of it is what comes next */
		if (i >= SOCKREDIR_MAX_PORTS)
			break;
		if (port >= list[i].low && port <= list[i].high)
			return true;
	}
	return false;
}

static __always_inline bool port_allowed(const struct sockredir_settings *s, __u16 port)
{
	if (port_in(s->exclude, s->n_exclude, port))
		return false;
	return !s->n_include || port_in(s->include, s->n_include, port);
}

static __always_inline bool addr_listed(const struct sockredir_settings *s, const struct sockredir_addr *a)
{
	for (__u32 i = 0; i < s->n_cidrs; i++) {
		barrier_var(i);
		if (i >= SOCKREDIR_MAX_CIDRS)
			break;
		if (addr_in(&s->cidrs[i], a))
			return true;
	}
	return false;
}

/* Local without configuration: 127/8 to 127/8, or an address to itself (::1 too). */
static __always_inline bool surely_local(const struct sockredir_key *k)
{
	return same_addr(&k->local, &k->remote) || (is_loopback(&k->local) && is_loopback(&k->remote));
}

/*
 * Decides on a new socket: 0, or the reason to leave it to TCP. May turn the names into those of a
 * pair that is allowed across namespaces.
 */
static __always_inline __u32 policy(const struct sockredir_settings *s, struct names *names, bool server)
{
	const struct sockredir_key *self = &names->self;
	__u32 generation = s ? *(volatile __u32 *)&s->generation : 0;
	bool listed;

	if (surely_local(self)) {
		if (mode_of(s) == SOCKREDIR_MODE_DRAIN)
			return SOCKREDIR_SKIP_MODE;
	} else {
		if (mode_of(s) == SOCKREDIR_MODE_DRAIN || !s || !s->n_cidrs)
			return SOCKREDIR_SKIP_REMOTE;
		listed = addr_listed(s, &self->local) && addr_listed(s, &self->remote);
		if (!listed)
			return SOCKREDIR_SKIP_REMOTE;
		if (s->flags & SOCKREDIR_CROSS_NETNS)
			names->self.netns = names->peer.netns = 0;
	}
	if (!s || !port_allowed(s, server ? self->local_port : self->remote_port))
		return SOCKREDIR_SKIP_POLICY;
	/* Changed while we read it, or being changed: half a policy is none. */
	if ((generation & 1) || generation != *(volatile __u32 *)&s->generation)
		return SOCKREDIR_SKIP_MODE;
	return 0;
}

#endif /* SOCKREDIR_POLICY_H */
