// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The plain pair: the reference that the benchmark compares with. What is usually published, no
 * more: the IPv4 tuple as key, every established socket in the map, every message redirected.
 *
 * Not for use: it has no backpressure, mixes network namespaces and reorders. docs/limits.md and
 * docs/datapath.md say what sockredir does about each.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define AF_INET 2

struct tuple {
	__u32 local_ip4;
	__u32 remote_ip4;
	__u32 local_port;
	__u32 remote_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, __u64);
} peers SEC(".maps");

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("sockops/tcp")
int sockops(struct bpf_sock_ops *ctx)
{
	struct tuple own = {};

	if (ctx->family != AF_INET)
		return 1;
	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	own.local_ip4 = ctx->local_ip4;
	own.remote_ip4 = ctx->remote_ip4;
	own.local_port = ctx->local_port;
	own.remote_port = bpf_ntohl(ctx->remote_port);
	bpf_sock_hash_update(ctx, &peers, &own, BPF_NOEXIST);
	return 1;
}

SEC("sk_msg")
int verdict(struct sk_msg_md *msg)
{
	struct tuple peer = {};

	if (msg->family != AF_INET)
		return SK_PASS;
	peer.local_ip4 = msg->remote_ip4;
	peer.remote_ip4 = msg->local_ip4;
	peer.local_port = bpf_ntohl(msg->remote_port);
	peer.remote_port = msg->local_port;
	return bpf_msg_redirect_hash(msg, &peers, &peer, BPF_F_INGRESS);
}
