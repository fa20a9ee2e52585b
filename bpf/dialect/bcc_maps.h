/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps in BCC's dialect, the same as in maps.h: a test compares them. BCC lets nobody use its
 * methods in macros, hence functions.
 */
#ifndef SOCKREDIR_BCC_MAPS_H
#define SOCKREDIR_BCC_MAPS_H

BPF_SOCKHASH(peers, struct sockredir_key, 65536);
BPF_TABLE("hash", struct sockredir_key, struct sockredir_flow, flows, 65536);
BPF_ARRAY(settings, struct sockredir_settings, 1);
BPF_ARRAY(pressure, struct sockredir_pressure, 1);
BPF_PERCPU_ARRAY(counters, struct sockredir_count, SOCKREDIR_REASONS);
BPF_TABLE("lru_hash", __u32, struct sockredir_port, ports, 1024);
BPF_RINGBUF_OUTPUT(events, 256 * 1024 / PAGE_SIZE);

static __always_inline struct sockredir_settings *get_settings(void)
{
	int zero = 0;

	return settings.lookup(&zero);
}

static __always_inline struct sockredir_pressure *get_pressure(void)
{
	int zero = 0;

	return pressure.lookup(&zero);
}

static __always_inline struct sockredir_count *counter_find(__u32 reason)
{
	int index = reason;

	return counters.lookup(&index);
}

static __always_inline struct sockredir_flow *flow_find(const struct sockredir_key *id)
{
	return flows.lookup((void *)id);
}

/* Fails if there is one. */
static __always_inline long flow_create(const struct sockredir_key *id, const struct sockredir_flow *flow)
{
	return flows.insert((void *)id, (void *)flow);
}

static __always_inline void flow_delete(const struct sockredir_key *id)
{
	flows.delete((void *)id);
}

/* There is no loop over a map without callbacks. */
#define flows_each(visit, context) (-EOPNOTSUPP)

static __always_inline struct sockredir_port *port_find(__u32 number)
{
	return ports.lookup(&number);
}

static __always_inline struct sockredir_port *port_make(__u32 number)
{
	struct sockredir_port fresh = {}, *found = port_find(number);

	if (found)
		return found;
	ports.insert(&number, &fresh);
	return port_find(number);
}

static __always_inline long peers_add(struct bpf_sock_ops *ctx, struct sockredir_key *self)
{
	return peers.sock_hash_update(ctx, self, BPF_NOEXIST);
}

static __always_inline long peers_delete(const struct sockredir_key *self)
{
	return peers.delete((void *)self);
}

static __always_inline long peers_redirect(struct sk_msg_md *msg, struct sockredir_key *peer)
{
	return peers.msg_redirect_hash(msg, peer, BPF_F_INGRESS);
}

static __always_inline long events_send(struct sockredir_event *event)
{
	return events.ringbuf_output(event, sizeof(*event), 0);
}

#endif /* SOCKREDIR_BCC_MAPS_H */
