/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps in the dialect of libbpf, and the names by which the rest of the code uses them.
 * bcc_maps.h is its counterpart.
 */
#ifndef SOCKREDIR_MAPS_H
#define SOCKREDIR_MAPS_H

/* The sockets. Values of 8 bytes, so that user space can look them up (it gets cookies). */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct sockredir_key);
	__type(value, __u64);
} peers SEC(".maps");

/* What is known of each connection. Preallocated: opening one is on the path of connect(). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct sockredir_key);
	__type(value, struct sockredir_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockredir_settings);
} settings SEC(".maps");

/* Of the host, not of one program: an upgrade's old and new programs share it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockredir_pressure);
} pressure SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOCKREDIR_REASONS);
	__type(key, __u32);
	__type(value, struct sockredir_count);
} counters SEC(".maps");

/* By server port. Some programs listen on a new one each time (FTP's data): those go, what is used stays. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct sockredir_port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

static __always_inline struct sockredir_settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct sockredir_pressure *get_pressure(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&pressure, &zero);
}

static __always_inline struct sockredir_count *counter_find(__u32 reason)
{
	return bpf_map_lookup_elem(&counters, &reason);
}

static __always_inline struct sockredir_flow *flow_find(const struct sockredir_key *id)
{
	return bpf_map_lookup_elem(&flows, id);
}

static __always_inline long flow_create(const struct sockredir_key *id, const struct sockredir_flow *flow)
{
	return bpf_map_update_elem(&flows, id, flow, BPF_NOEXIST);
}

static __always_inline void flow_delete(const struct sockredir_key *id)
{
	bpf_map_delete_elem(&flows, id);
}

/* Calls long visit(map, key, flow, context) for each record. Negative: it could not. */
#define flows_each(visit, context) bpf_for_each_map_elem(&flows, visit, context, 0)

static __always_inline struct sockredir_port *port_find(__u32 number)
{
	return bpf_map_lookup_elem(&ports, &number);
}

static __always_inline struct sockredir_port *port_make(__u32 number)
{
	struct sockredir_port fresh = {}, *found = port_find(number);

	if (found)
		return found;
	bpf_map_update_elem(&ports, &number, &fresh, BPF_NOEXIST);
	return port_find(number);
}

static __always_inline long peers_add(struct bpf_sock_ops *ctx, struct sockredir_key *self)
{
	return bpf_sock_hash_update(ctx, &peers, self, BPF_NOEXIST);
}

static __always_inline long peers_delete(const struct sockredir_key *self)
{
	return bpf_map_delete_elem(&peers, self);
}

static __always_inline long peers_redirect(struct sk_msg_md *msg, struct sockredir_key *peer)
{
	return bpf_msg_redirect_hash(msg, &peers, peer, BPF_F_INGRESS);
}

static __always_inline long events_send(struct sockredir_event *event)
{
	return bpf_ringbuf_output(&events, event, sizeof(*event), 0);
}

#endif /* SOCKREDIR_MAPS_H */
