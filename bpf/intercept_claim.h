/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the client's socket to the proxy's: a claim, by the connection's addresses and ports. It is
 * made before the SYN and goes when the proxy has it, or with the client's connection. So none is
 * left for a later connection that happens to have the same ports.
 */
#ifndef SOCKREDIR_INTERCEPT_CLAIM_H
#define SOCKREDIR_INTERCEPT_CLAIM_H

#include "intercept_trace.h"

/* One load each, from a fixed place: the verifier takes no pointer into the context that has moved. */
#define FIELD(ctx, member) (*(volatile __u32 *)&(ctx)->member)
#define FIELD_IP6(ctx, member)                                                                               \
	((struct sockredir_addr){.word = {FIELD(ctx, member[0]), FIELD(ctx, member[1]),                      \
					  FIELD(ctx, member[2]), FIELD(ctx, member[3])}})

/* The connection as the socket's own end sees it. */
static __always_inline void own_view(struct bpf_sock_ops *ctx, struct sockredir_key *k)
{
	__u32 local = FIELD(ctx, local_ip4), remote = FIELD(ctx, remote_ip4);

	if (ctx->family == AF_INET) {
		k->local = mapped(local);
		k->remote = mapped(remote);
	} else {
		k->local = FIELD_IP6(ctx, local_ip6);
		k->remote = FIELD_IP6(ctx, remote_ip6);
	}
	k->local_port = FIELD(ctx, local_port);
	k->remote_port = bpf_ntohl(FIELD(ctx, remote_port));
	k->netns = bpf_get_netns_cookie(ctx);
	k->zero = 0;
}

static __always_inline struct sockredir_key other_view(const struct sockredir_key *k)
{
	return (struct sockredir_key){
		.netns = k->netns,
		.local = k->remote,
		.remote = k->local,
		.local_port = k->remote_port,
		.remote_port = k->local_port,
	};
}

static __always_inline struct intercept_end local_end(const struct sockredir_key *k)
{
	return (struct intercept_end){.addr = k->local, .port = k->local_port};
}

static __always_inline struct intercept_end remote_end(const struct sockredir_key *k)
{
	return (struct intercept_end){.addr = k->remote, .port = k->remote_port};
}

/* Of a connection as its client sees it. */
static __always_inline void tell_claim(enum intercept_event event, const struct sockredir_key *client,
				       const struct intercept_claim *claim)
{
	struct intercept_end from = local_end(client), to = remote_end(client);

	tell(claim->slot, event, &from, &to, &claim->asked);
}

/* The client is about to send its SYN. */
static __always_inline void stake(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct intercept_note *note = bpf_sk_storage_get(&outgoing, sk, NULL, 0);
	struct intercept_claim claim = {};
	struct sockredir_key key;

	if (!note)
		return;
	own_view(ctx, &key);
	/* Somebody else has sent it elsewhere after us. */
	if (key.remote_port != note->to.port || !same_addr(&key.remote, &note->to.addr))
		return;
	claim.cookie = bpf_get_socket_cookie(ctx);
	claim.asked = note->asked;
	claim.slot = note->slot;
	claim.flags = note->flags;
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	tell_claim(INTERCEPT_REWRITTEN, &key, &claim); /* connect() has counted it, but knew no source port */
	if (!bpf_map_update_elem(&pending, &key, &claim, BPF_ANY))
		return;
	tally(claim.slot, INTERCEPT_LOST);
	tell_claim(INTERCEPT_LOST, &key, &claim);
}

/* The client's connection has ended: by a refusal, a reset, a time-out, or in peace. */
static __always_inline void withdraw(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct intercept_claim *claim;
	struct sockredir_key key;

	if (!bpf_sk_storage_get(&outgoing, sk, NULL, 0))
		return;
	own_view(ctx, &key);
	claim = bpf_map_lookup_elem(&pending, &key);
	if (!claim || claim->cookie != bpf_get_socket_cookie(ctx))
		return;
	tally(claim->slot, INTERCEPT_WITHDRAWN);
	tell_claim(INTERCEPT_WITHDRAWN, &key, claim);
	bpf_map_delete_elem(&pending, &key);
}

struct listener {
	__u16 port;
	int first;
	__u32 slot;
};

static long is_proxys(__u32 i, struct listener *l)
{
	const struct intercept_rule *r = rule_at(l->first + i);

	if (!r)
		return 1;
	if (r->to[INTERCEPT_V4].port != l->port && r->to[INTERCEPT_V6].port != l->port)
		return 0;
	l->slot = r->slot;
	return 1;
}

/*
 * Accepted from a program that asked for it. Under the address that it used the listener can be
 * reached: the proxy is not to connect to it. A loop has to come through here before it turns.
 */
static __always_inline void unclaimed(const struct sockredir_key *key)
{
	struct listener l = {.port = key->local_port, .first = first_rule()};
	struct intercept_reached at = {.netns = key->netns, .end = local_end(key)};
	struct intercept_end client = remote_end(key);

	if (l.first >= 0)
		repeat(INTERCEPT_MAX_RULES, is_proxys, &l);
	if (!l.slot)
		return;
	happens(l.slot, INTERCEPT_UNCLAIMED, &client, &at.end, &at.end);
	bpf_map_update_elem(&reached, &at, &l.slot, BPF_ANY);
}

/* The proxy's side of a connection stands. */
static __always_inline void collect(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct sockredir_key key, client;
	struct intercept_claim *claim;
	struct intercept_note note = {};
	enum intercept_event event;
	struct intercept_end from;

	own_view(ctx, &key);
	client = other_view(&key);
	claim = bpf_map_lookup_elem(&pending, &client);
	if (!claim) {
		unclaimed(&key);
		return;
	}
	note.asked = claim->asked;
	note.to = local_end(&key);
	note.slot = claim->slot;
	note.flags = claim->flags;
	bpf_map_delete_elem(&pending, &client);
	event = bpf_sk_storage_get(&incoming, sk, &note, BPF_SK_STORAGE_GET_F_CREATE) ? INTERCEPT_CLAIMED
										      : INTERCEPT_LOST;
	from = remote_end(&key);
	happens(note.slot, event, &from, &note.to, &note.asked);
}

#endif /* SOCKREDIR_INTERCEPT_CLAIM_H */
