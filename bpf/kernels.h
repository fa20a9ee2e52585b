/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that the kernel itself uses: the ends of NVMe and iSCSI over TCP, of DRBD, DLM, NFS.
 *
 * Such a user puts its own data in place of sockmap's (sk_user_data), mostly after the connection is
 * made. Then redirected bytes are lost to it, and the kernel warns and leaks the socket when it is
 * closed (sock_map_close(), seen on 6.12 with NVMe). So none may be in a map. They have no file, or
 * are prepared for use in the reclaim of memory. An accepted one has no file before it is accepted,
 * so it is told by its listener.
 */
#ifndef SOCKREDIR_KERNELS_H
#define SOCKREDIR_KERNELS_H

#include "reader.h"

/*
 * The mark of a kernel's listener, which its accepted sockets inherit: a callback that we do not use,
 * and that comes only when segments are lost.
 */
#define KERNELS_LISTENER BPF_SOCK_OPS_RTO_CB_FLAG

static __always_inline bool has_kernels_user(struct tcp_sock *tp)
{
	return !file_of(as_sock(tp)) || serves_reclaim(as_sock(tp));
}

static __always_inline void mark_listener(struct bpf_sock_ops *ctx, struct tcp_sock *tp)
{
	if (has_kernels_user(tp))
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | KERNELS_LISTENER);
}

static __always_inline bool is_kernels(const struct bpf_sock_ops *ctx, struct tcp_sock *tp, bool server)
{
	return server ? ctx->bpf_sock_ops_cb_flags & KERNELS_LISTENER : has_kernels_user(tp);
}

#endif /* SOCKREDIR_KERNELS_H */
