// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The pair in BCC's dialect. */
#include <linux/bpf.h>
#include "pair_bcc.h"

#ifndef first_port
#define first_port 1
#endif

BPF_SOCKHASH(peers, struct pair_key, 64);
BPF_TABLE("hash", struct pair_key, struct pair_flow, flows, 64);
BPF_PERCPU_ARRAY(counters, struct pair_flow, 8);
BPF_RINGBUF_OUTPUT(events, 1);

int bpf_metadata_layout(void *ctx)
{
	return 3;
}

static __always_inline struct pair_flow *flow_of(const struct pair_key *key)
{
	return flows.lookup((struct pair_key *)key);
}

int sockops(struct bpf_sock_ops *ops)
{
	struct pair_key key = {};
	struct pair_flow *flow;
	u32 event = 1;

	key.port = ops->local_port;
	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (key.port < first_port)
		return 1;
	flow = flow_of(&key);
	if (flow)
		flow->messages++;
	peers.sock_hash_update(ops, &key, BPF_NOEXIST);
	events.ringbuf_output(&event, sizeof(event), 0);
	return 1;
}

int verdict(struct sk_msg_md *msg)
{
	struct pair_key key = {};

	key.port = bpf_ntohl(msg->remote_port);
	peers.msg_redirect_hash(msg, &key, BPF_F_INGRESS);
	return SK_PASS;
}
