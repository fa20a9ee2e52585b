// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The smallest program pair with all that a loader has to handle: maps that they share, settings in .rodata,
 * an identity. */
#include "pair.h"

const volatile __u32 first_port = 1;
const volatile __u16 last_port = 65535;
const volatile _Bool quiet = 0;
const volatile __s64 offset = -1;
const volatile char label[16] = "none";
const volatile char bpf_metadata_digest[72] = "";

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 64);
	__type(key, struct pair_key);
	__type(value, __u64);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct pair_key);
	__type(value, struct pair_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static __u64 opened;

SEC("sockops/established")
int sockops(struct bpf_sock_ops *ops)
{
	struct pair_key key = {.port = ops->local_port};
	__u32 *event;

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (ops->local_port < first_port || ops->local_port > last_port)
		return 1;
	__sync_fetch_and_add(&opened, 1);
	bpf_sock_hash_update(ops, &peers, &key, BPF_NOEXIST);
	if (quiet)
		return 1;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (event) {
		*event = ops->local_port + offset + label[0];
		bpf_ringbuf_submit(event, 0);
	}
	return 1;
}

SEC("sk_msg")
int verdict(struct sk_msg_md *msg)
{
	struct pair_key key = {.port = bpf_ntohl(msg->remote_port)};

	bpf_msg_redirect_hash(msg, &peers, &key, BPF_F_INGRESS);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
