/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel structs that the programs look into, each with only the members used; see core.h.
 */
#ifndef SOCKREDIR_KERNEL_H
#define SOCKREDIR_KERNEL_H

#include "core.h"

struct net {
	__u64 net_cookie;
	struct {
		__u32 sysctl_tcp_rmem[3];
	} ipv4;
} __kernel_struct;

struct proto {
	unsigned long *memory_pressure; /* when TCP became short of memory; 0: it is not */
} __kernel_struct;

struct sock_common {
	__u16 skc_family;
	__u16 skc_num;	  /* local port, host order */
	__be16 skc_dport; /* remote port */
	__be32 skc_rcv_saddr;
	__be32 skc_daddr;
	struct sockredir_addr skc_v6_rcv_saddr; /* the kernel's in6_addr has the same shape */
	struct sockredir_addr skc_v6_daddr;
	struct {
		long long counter;
	} skc_cookie;
	int skc_bound_dev_if;
	unsigned long skc_flags; /* bits by enum sock_flags */
	struct {
		struct net *net;
	} skc_net;
	struct proto *skc_prot;
} __kernel_struct;

struct file {
	struct {
		long counter;
	} f_count; /* before 6.13 */
	struct {
		struct {
			long counter;
		} refcnt; /* less by one */
	} f_ref;
	unsigned int f_flags;
} __kernel_struct;

struct socket {
	unsigned long flags;
	struct file *file; /* NULL before the socket is accepted */
} __kernel_struct;

/* On kernels for real-time there is no such word in a spinlock. */
struct spinlock {
	struct {
		struct {
			struct {
				int counter;
			} val;
		} raw_lock;
	} rlock;
} __kernel_struct;

struct sk_buff_head {
	__u32 qlen;
} __kernel_struct;

struct sock {
	struct sock_common __sk_common;
	struct {
		struct spinlock slock;
		int owned; /* by a thread inside a call on this socket */
		struct wait_queue_head wq;
	} sk_lock;
	struct sk_buff_head sk_receive_queue;
	struct {
		struct {
			int counter;
		} rmem_alloc;
		int len; /* bytes that came while a thread holds the lock: 0 when they are dealt with */
	} sk_backlog;
	int sk_rcvbuf;
	int sk_sndbuf;
	int sk_wmem_queued;
	int sk_rcvlowat;
	int sk_peek_off; /* -1: not set */
	__u32 sk_tsflags;
	__u32 sk_allocation;
	bool sk_use_task_frag; /* 6.2 */
	__u32 sk_userlocks : 4;
	int sk_err;
	__u8 sk_shutdown;
	struct socket_wq *sk_wq;
	struct socket *sk_socket;
	void *sk_user_data; /* struct sk_psock, with flags in the lower bits */
} __kernel_struct;

struct inet_sock {
	struct sock sk;
} __kernel_struct;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_rto_max;	  /* 6.15 */
	const void *icsk_ulp_ops; /* what sits on top: kTLS, MPTCP, ... */
} __kernel_struct;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 write_seq;
	__u32 data_segs_out;
	__u32 snd_wnd;
	__u32 snd_cwnd_clamp;
	__u32 mss_cache;
	__u32 notsent_lowat;
	__u64 bytes_sent;
} __kernel_struct;

struct sk_psock {
	struct {
		void *stream_verdict;
	} progs;
	struct sk_buff_head ingress_skb; /* came by TCP, waits for memory to be queued below */
	struct list_head ingress_msg;	 /* not read yet */
	__u32 msg_tot_len;		 /* bytes there: 7.0 and where 929e30f93125 was brought back */
	struct list_head link;		 /* of struct sk_psock_link: where in which maps */
	struct {
		struct {
			int counter;
		} refs;
	} refcnt;
} __kernel_struct;

struct sk_psock_link {
	struct list_head list;
	void *link_raw; /* in a SOCKHASH the struct bpf_shtab_elem */
} __kernel_struct;

struct bpf_shtab_elem {
	struct sock *sk;
	__u8 key[];
} __kernel_struct;

struct pipe_inode_info {
	unsigned int head;
	unsigned int tail;
} __kernel_struct;

struct task_struct {
	int pid;
	void *stack; /* its lowest address */
	char comm[16];
	struct pipe_inode_info *splice_pipe; /* what sendfile() moves bytes through */
	void *io_uring;			     /* there is one since the thread used a ring */
	unsigned int flags;
} __kernel_struct;

#define O_NONBLOCK	 00004000
#define TCPHDR_ACK	 0x10
#define SOCK_RCVBUF_LOCK 2
#define RCV_SHUTDOWN	 1
#define PF_IO_WORKER	 0x10
#define SOCK_NOSPACE	 2 /* the number of a bit */
#define GFP_KERNEL	 0xcc0

/* Did the program choose the size of its receive buffer, by SO_RCVBUF? */
static __always_inline bool rcvbuf_is_fixed(const struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_RCVBUF_LOCK;
}

/*
 * May it be used where memory is reclaimed, as the sockets of disks and filesystems are? No program can
 * ask for that. Before 98123866fcf3 (6.2) what may be allocated for it tells.
 */
static __always_inline bool serves_reclaim(const struct sock *sk)
{
	if (bpf_core_field_exists(struct sock, sk_use_task_frag))
		return !sk->sk_use_task_frag;
	return (sk->sk_allocation & GFP_KERNEL) != GFP_KERNEL;
}

/* May this thread send by io_uring? */
static __always_inline bool uses_uring(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (BPF_CORE_READ(task, flags) & PF_IO_WORKER)
		return true;
	return bpf_core_field_exists(struct task_struct, io_uring) && BPF_CORE_READ(task, io_uring);
}

/* The word of the socket's spinlock, 0 when it is free. */
static __always_inline int slock_of(const struct sock *sk)
{
	if (!bpf_core_field_exists(struct spinlock, rlock.raw_lock.val.counter))
		return 1;
	return BPF_CORE_READ(sk, sk_lock.slock.rlock.raw_lock.val.counter);
}

/* References to an open file: descriptors, and calls of processes with more than one thread. */
static __always_inline long uses_of(const struct file *file)
{
	if (!bpf_core_field_exists(struct file, f_ref.refcnt.counter))
		return BPF_CORE_READ(file, f_count.counter);
	return BPF_CORE_READ(file, f_ref.refcnt.counter) + 1;
}

/* The bytes of the queue, if the kernel counts them (929e30f93125); else 0. */
static __always_inline __u64 counted_bytes(const struct sk_psock *psock)
{
	if (!bpf_core_field_exists(struct sk_psock, msg_tot_len))
		return 0;
	return BPF_CORE_READ(psock, msg_tot_len);
}

/* Does TCP take one segment into a full buffer (8c670bdfa58e)? icsk_rto_max is a bit younger. */
static __always_inline bool takes_one_when_full(void)
{
	return bpf_core_field_exists(struct inet_connection_sock, icsk_rto_max);
}

#endif /* SOCKREDIR_KERNEL_H */
