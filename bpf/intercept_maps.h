/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps of interception, and the names by which the rest of it uses them.
 */
#ifndef SOCKREDIR_INTERCEPT_MAPS_H
#define SOCKREDIR_INTERCEPT_MAPS_H

#include "address.h"
#include "intercept.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * INTERCEPT_MAX_RULES);
	__type(key, __u32);
	__type(value, struct intercept_rule);
} intercepts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct intercept_state);
} intercept_state SEC(".maps");

/* Connections that are under way to a proxy, by their client's view. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sockredir_key);
	__type(value, struct intercept_claim);
} pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct intercept_note);
} outgoing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct intercept_note);
} incoming SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct intercept_servers);
} servers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct intercept_reached);
	__type(value, __u32);
} reached SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, (1 + INTERCEPT_MAX_RULES) * INTERCEPT_EVENTS);
	__type(key, __u32);
	__type(value, __u64);
} intercepted SEC(".maps");

/* Ports of rules with `inbound`, of both halves of `intercepts`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * INTERCEPT_MAX_DOORS);
	__type(key, struct intercept_port);
	__type(value, struct intercept_door);
} doors SEC(".maps");

/* Listening sockets of their proxies. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * INTERCEPT_MAX_RULES * INTERCEPT_LISTENERS);
	__type(key, struct intercept_listener);
	__type(value, __u64);
} listeners SEC(".maps");

static __always_inline void tally(__u32 slot, enum intercept_event event)
{
	__u32 index = slot * INTERCEPT_EVENTS + event;
	__u64 *events = bpf_map_lookup_elem(&intercepted, &index);

	if (events)
		__sync_fetch_and_add(events, 1);
}

/* Where in `intercepts` the rules that hold begin; negative: there are none. */
static __always_inline int first_rule(void)
{
	__u32 zero = 0;
	const struct intercept_state *s = bpf_map_lookup_elem(&intercept_state, &zero);

	if (!s || s->version != INTERCEPT_LAYOUT)
		return -1;
	return (*(volatile const __u32 *)&s->half & 1) * INTERCEPT_MAX_RULES;
}

/* NULL at the end of the list. */
static __always_inline const struct intercept_rule *rule_at(__u32 index)
{
	const struct intercept_rule *rule = bpf_map_lookup_elem(&intercepts, &index);

	return rule && rule->flags & INTERCEPT_VALID ? rule : NULL;
}

/* NULL: no rule is for connections from outside to this port. */
static __always_inline const struct intercept_door *door_at(__u32 port)
{
	struct intercept_port key = {.port = port};
	int first = first_rule();

	if (first < 0)
		return NULL;
	key.half = first / INTERCEPT_MAX_RULES;
	return bpf_map_lookup_elem(&doors, &key);
}

static __always_inline bool same_end(const struct intercept_end *a, const struct intercept_end *b)
{
	return a->port == b->port && same_addr(&a->addr, &b->addr);
}

#endif /* SOCKREDIR_INTERCEPT_MAPS_H */
