// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Watches TCP as programs use it and changes nothing: who talks on which port, in which pattern, and
 * with which calls that a socket in a map answers otherwise than TCP. It hangs on tracepoints of the
 * kernel by nothing but the descriptors of whoever watches: with that process all of it goes.
 *
 * Everything is counted in the record of a socket, and added up when the socket closes.
 */
#include "learn.h"
#include "learn_kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Watch only programs in the cgroup that is in `scope`? */
const volatile __u32 in_scope_only SEC(".rodata") = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64); /* the address of a struct sock */
	__type(value, struct learn_socket);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct learn_key);
	__type(value, struct learn_counts);
} totals SEC(".maps");

/* Ports that somebody listens on, those from before the watch put in by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u16);
	__type(value, __u8);
} listened SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} scope SEC(".maps");

enum { LOST_SOCKETS, LOST_TOTALS, LOST };

/* What there was no room for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOST);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void lose(__u32 what)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &what);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline bool is_tcp(const struct sock *sk)
{
	return sk->sk_protocol == TCP_PROTOCOL &&
	       (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

static __always_inline bool is_loopback(__be32 ip4)
{
	return (ip4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline bool same_host_v4(__be32 local, __be32 remote)
{
	return local == remote || (is_loopback(local) && is_loopback(remote));
}

/* As policy.h has it for pairs that nobody listed: an address to itself, or 127/8 to 127/8. */
static __always_inline bool same_host(const struct sock_common *c)
{
	const __be32 *l = c->skc_v6_rcv_saddr.word, *r = c->skc_v6_daddr.word;

	if (c->skc_family == AF_INET)
		return same_host_v4(c->skc_rcv_saddr, c->skc_daddr);
	if (l[0] != r[0] || l[1] != r[1] || l[2] != r[2])
		return false;
	if (!l[0] && !l[1] && l[2] == bpf_htonl(0xffff))
		return same_host_v4(l[3], r[3]);
	return l[3] == r[3];
}

/* Which of the two ports is the server's: the one listened on; else the smaller one. */
static __always_inline void find_server(struct learn_key *key, __u16 local, __u16 remote)
{
	bool here = bpf_map_lookup_elem(&listened, &local);
	bool there = bpf_map_lookup_elem(&listened, &remote);

	key->server = here == there ? local <= remote : here;
	key->port = key->server ? local : remote;
}

static __always_inline struct learn_socket *take_note(const struct sock *sk, __u64 address)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct learn_socket fresh = {.opened = bpf_ktime_get_ns()};

	/* Read after its end: it is in the totals already. */
	if (sk->__sk_common.skc_state == TCP_STATE_CLOSE)
		return NULL;
	find_server(&fresh.key, sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	fresh.key.local = same_host(&sk->__sk_common);
	fresh.key.cgroup = bpf_get_current_cgroup_id();
	bpf_probe_read_kernel_str(fresh.key.program, sizeof(fresh.key.program), task->group_leader->comm);
	if (in_scope_only && bpf_current_task_under_cgroup(&scope, 0) != 1)
		fresh.kind = LEARN_OTHER;
	fresh.counts.connections = 1;
	if (bpf_map_update_elem(&sockets, &address, &fresh, BPF_NOEXIST))
		lose(LOST_SOCKETS);
	return bpf_map_lookup_elem(&sockets, &address);
}

/* The record of a socket that is to be watched. */
static __always_inline struct learn_socket *record_of(const struct sock *sk)
{
	__u64 address = (__u64)sk;
	struct learn_socket *record;

	if (!sk || !is_tcp(sk))
		return NULL;
	record = bpf_map_lookup_elem(&sockets, &address);
	if (!record)
		record = take_note(sk, address);
	return record && record->kind == LEARN_WATCHED ? record : NULL;
}

static __always_inline void sign(struct learn_socket *record, enum learn_sign which)
{
	record->counts.signs[which]++;
}

static __always_inline bool has_kernel_tls(struct tcp_sock *tp)
{
	const struct tcp_ulp_ops *ulp = tp->inet_conn.icsk_ulp_ops;

	return ulp && ulp->name[0] == 't' && ulp->name[1] == 'l' && ulp->name[2] == 's';
}

/* What has been set or used on the socket at any time shows in its state. */
static __always_inline void look_at_state(struct learn_counts *counts, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (sk->sk_rcvlowat > 1)
		counts->signs[LEARN_LOW_WATER]++;
	if (sk->sk_zckey.counter)
		counts->signs[LEARN_ZERO_COPY]++;
	if (!tp)
		return;
	if (tp->urg_data)
		counts->signs[LEARN_URGENT]++;
	if (has_kernel_tls(tp))
		counts->signs[LEARN_KERNEL_TLS]++;
}

#define ALWAYS_LOOKED_AT 32
#define SELDOM		 15

/* The first messages tell; of a connection with many, now and then one, and its end (see closed). */
static __always_inline bool is_time_to_look(const struct learn_counts *counts)
{
	__u64 messages = counts->sent_messages + counts->received_messages;

	return messages < ALWAYS_LOOKED_AT || !(messages & SELDOM);
}

#define WAITERS_LOOKED_AT 4
#define STACK_MOST	  (64ULL << 10)

/* A thread asleep keeps its entry on its own stack; of poll and epoll that is not so. */
static __always_inline bool is_sleeper(const struct wait_queue_entry *entry)
{
	struct task_struct *task = BPF_CORE_READ(entry, private);

	return (__u64)entry - (__u64)BPF_CORE_READ(task, stack) < STACK_MOST;
}

/* Does another thread sleep in a call on this socket? The current one is out of the queue already. */
static __always_inline bool has_sleeper(const struct sock *sk)
{
	struct socket_wq *wq = sk->sk_wq;
	struct list_head *head = __builtin_preserve_access_index(&wq->wait.head);
	__u64 offset = bpf_core_field_offset(struct wait_queue_entry, entry);
	struct list_head *at;

	/* Mostly nobody; entries of others' stacks are read with care. */
	if (wq->wait.head.next == head)
		return false;
	at = BPF_CORE_READ(head, next);
	for (int i = 0; i < WAITERS_LOOKED_AT && at && at != head; i++) {
		if (is_sleeper((void *)at - offset))
			return true;
		at = BPF_CORE_READ(at, next);
	}
	return false;
}

/* Was it a signal that the program lives on after? */
static __always_inline bool interrupted(int result)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	return (result == -EINTR || result == -ERESTARTSYS) && !(task->signal->flags & SIGNAL_GROUP_EXIT);
}

static __always_inline __u32 logarithm(__u32 bytes)
{
	__u32 result = 0;

	for (int step = 16; step; step >>= 1) {
		if (bytes >> step) {
			bytes >>= step;
			result += step;
		}
	}
	return result;
}

static __always_inline void look_at_send_flags(struct learn_socket *record)
{
	struct call_seen seen = current_call();
	__u64 flags = 0;

	if (seen.call == CALL_SENDMSG)
		flags = seen.third;
	else if (seen.call == CALL_SENDTO || seen.call == CALL_SENDMMSG)
		flags = seen.fourth;
	if (flags & MSG_OOB)
		sign(record, LEARN_URGENT);
	if (flags & MSG_ZEROCOPY)
		sign(record, LEARN_ZERO_COPY);
}

SEC("tp_btf/sock_send_length")
int learn_sent(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int length = ctx[1];
	struct learn_socket *record = record_of(sk);
	__u32 bucket;

	if (!record || length <= 0)
		return 0;
	bucket = logarithm(length);
	if (bucket >= LEARN_SIZES)
		bucket = LEARN_SIZES - 1;
	record->counts.sizes[bucket]++;
	record->counts.sent_messages++;
	record->counts.sent_bytes += length;
	record->counts.answers += record->received;
	record->received = 0;
	look_at_send_flags(record);
	if (is_time_to_look(&record->counts))
		look_at_state(&record->counts, sk);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int learn_received(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int result = ctx[1], flags = ctx[2];
	struct learn_socket *record = record_of(sk);

	if (!record || flags & MSG_ERRQUEUE)
		return 0;
	if (result > 0 && !(flags & MSG_PEEK)) {
		record->counts.received_messages++;
		record->counts.received_bytes += result;
		record->received = 1;
	}
	if (flags & MSG_WAITALL && result > 0)
		sign(record, LEARN_WAITALL);
	if (flags & MSG_OOB)
		sign(record, LEARN_URGENT);
	if (!(flags & MSG_DONTWAIT)) {
		if (interrupted(result))
			sign(record, LEARN_INTERRUPTED);
		if (has_sleeper(sk))
			sign(record, LEARN_TWO_SLEPT);
	}
	if (is_time_to_look(&record->counts))
		look_at_state(&record->counts, sk);
	return 0;
}

/* Called for every way of reading; recv is counted by its own tracepoint, so splice is what matters. */
SEC("tp_btf/tcp_rcv_space_adjust")
int learn_read(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct learn_socket *record;

	if (current_call().call != CALL_SPLICE)
		return 0;
	record = record_of(sk);
	if (record)
		sign(record, LEARN_SPLICED);
	return 0;
}

static __always_inline void add_up(struct learn_counts *total, const struct learn_counts *more)
{
	__sync_fetch_and_add(&total->connections, more->connections);
	__sync_fetch_and_add(&total->nanoseconds, more->nanoseconds);
	__sync_fetch_and_add(&total->sent_bytes, more->sent_bytes);
	__sync_fetch_and_add(&total->sent_messages, more->sent_messages);
	__sync_fetch_and_add(&total->received_bytes, more->received_bytes);
	__sync_fetch_and_add(&total->received_messages, more->received_messages);
	__sync_fetch_and_add(&total->answers, more->answers);
	for (int i = 0; i < LEARN_SIZES; i++)
		if (more->sizes[i])
			__sync_fetch_and_add(&total->sizes[i], more->sizes[i]);
	for (int i = 0; i < LEARN_SIGNS; i++)
		if (more->signs[i])
			__sync_fetch_and_add(&total->signs[i], more->signs[i]);
}

static __always_inline void closed(struct sock *sk)
{
	__u64 address = (__u64)sk;
	struct learn_socket *record = bpf_map_lookup_elem(&sockets, &address);
	struct learn_counts *total;

	if (!record)
		return;
	if (record->kind == LEARN_WATCHED) {
		look_at_state(&record->counts, sk);
		record->counts.nanoseconds = bpf_ktime_get_ns() - record->opened;
		total = bpf_map_lookup_elem(&totals, &record->key);
		if (total)
			add_up(total, &record->counts);
		else if (bpf_map_update_elem(&totals, &record->key, &record->counts, BPF_NOEXIST))
			lose(LOST_TOTALS);
	}
	bpf_map_delete_elem(&sockets, &address);
}

SEC("tp_btf/inet_sock_set_state")
int learn_state(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int state = ctx[2];
	__u16 port;
	__u8 one = 1;

	if (!is_tcp(sk))
		return 0;
	if (state == TCP_STATE_CLOSE) {
		closed(sk);
	} else if (state == TCP_STATE_LISTEN) {
		port = sk->__sk_common.skc_num;
		bpf_map_update_elem(&listened, &port, &one, BPF_ANY);
	}
	return 0;
}
