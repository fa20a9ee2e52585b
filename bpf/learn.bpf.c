// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Watches TCP as programs use it and changes nothing: who communicates on which port, in which pattern,
 * and with which calls that work differently on a socket in a map. The programs are attached only by
 * descriptors of the process that watches: when it ends, all of this is gone.
 *
 * Everything is counted in the record of a socket, and added up when the socket closes.
 */
#include "learn.h"
#include "learn_kernel.h"
#include "learn_local.h"
#include "learn_ring.h"
#include "learn_signs.h"
#include "learn_time.h"

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

/* Ports with a listener; user space adds those from before the watch. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u16);
	__type(value, __u8);
} listened SEC(".maps");

/* Messages sent, for whoever sees that learning does not cost too much. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} messages SEC(".maps");

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

static __always_inline void count_message(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&messages, &zero);

	if (count)
		*count += 1;
}

static __always_inline void sent(struct sock *sk, int length)
{
	struct learn_socket *record = record_of(sk);
	__u32 bucket;

	count_message();
	if (!record || length <= 0)
		return;
	bucket = logarithm(length);
	if (bucket >= LEARN_SIZES)
		bucket = LEARN_SIZES - 1;
	record->counts.sizes[bucket]++;
	record->counts.sent_messages++;
	record->counts.sent_bytes += length;
	if (record->received)
		begin_turn(record);
	note_activity(record);
	look_at_send_call(record);
	if (is_time_to_look(&record->counts))
		look_at_state(&record->counts, sk);
}

static __always_inline void received(struct sock *sk, int result, int flags)
{
	struct learn_socket *record = record_of(sk);

	if (!record || flags & MSG_ERRQUEUE)
		return;
	if (result > 0 && !(flags & MSG_PEEK)) {
		record->counts.received_messages++;
		record->counts.received_bytes += result;
		record->received = 1;
		if (record->asked)
			record->heard = bpf_ktime_get_ns();
		note_activity(record);
	}
	look_at_receive_call(record, sk, result, flags);
	if (is_time_to_look(&record->counts))
		look_at_state(&record->counts, sk);
}

SEC("tp_btf/sock_send_length")
int learn_sent(__u64 *ctx)
{
	sent((void *)ctx[0], ctx[1]);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int learn_received(__u64 *ctx)
{
	received((void *)ctx[0], ctx[1], ctx[2]);
	return 0;
}

/*
 * Kernels before 6.3 have no such tracepoints: there the functions that every send and recv comes
 * through are asked as they return.
 */
static __always_inline int sent_by(__u64 *ctx, __u64 result)
{
	const struct socket *socket = (void *)ctx[0];

	sent(socket->sk, result);
	return 0;
}

static __always_inline int received_by(__u64 *ctx)
{
	const struct socket *socket = (void *)ctx[0];

	received(socket->sk, ctx[4], ctx[3]);
	return 0;
}

SEC("fexit/inet_sendmsg")
int learn_sent_v4(__u64 *ctx)
{
	return sent_by(ctx, ctx[3]);
}

SEC("fexit/inet6_sendmsg")
int learn_sent_v6(__u64 *ctx)
{
	return sent_by(ctx, ctx[3]);
}

SEC("fexit/inet_sendpage")
int learn_sent_page(__u64 *ctx)
{
	return sent_by(ctx, ctx[5]);
}

SEC("fexit/inet_recvmsg")
int learn_received_v4(__u64 *ctx)
{
	return received_by(ctx);
}

SEC("fexit/inet6_recvmsg")
int learn_received_v6(__u64 *ctx)
{
	return received_by(ctx);
}

/* Called for every way of reading; recv is counted above, so splice is what matters. */
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

/* The same at less cost, on kernels with fentry. */
SEC("fentry/tcp_splice_read")
int learn_spliced(__u64 *ctx)
{
	const struct socket *socket = (void *)ctx[0];
	struct learn_socket *record = record_of(socket->sk);

	if (record)
		sign(record, LEARN_SPLICED);
	return 0;
}

/* What FIONREAD leaves out depends on the kernel; that it was asked can be seen in this way only. */
SEC("fentry/tcp_ioctl")
int learn_asked(__u64 *ctx)
{
	struct learn_socket *record;

	if (ctx[1] != FIONREAD)
		return 0;
	record = record_of((void *)ctx[0]);
	if (record)
		sign(record, LEARN_FIONREAD);
	return 0;
}

/* The send itself has been counted before, so there is a record. */
SEC("tp_btf/io_uring_complete")
int learn_ring(__u64 *ctx)
{
	const struct io_kiocb *request = (void *)ctx[1];
	__u8 operation = BPF_CORE_READ(request, opcode);
	struct learn_socket *record;
	__u64 address;
	bool all;

	if (!is_send(operation))
		return 0;
	all = waits_for_all(request);
	if (!all && !is_zero_copy(operation))
		return 0;
	address = socket_of(request);
	record = bpf_map_lookup_elem(&sockets, &address);
	if (!record || record->kind != LEARN_WATCHED)
		return 0;
	if (all)
		sign(record, LEARN_RING_WAITALL);
	if (is_zero_copy(operation))
		sign(record, LEARN_ZERO_COPY);
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
	__sync_fetch_and_add(&total->files, more->files);
	__sync_fetch_and_add(&total->reply_ns, more->reply_ns);
	__sync_fetch_and_add(&total->replies, more->replies);
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
