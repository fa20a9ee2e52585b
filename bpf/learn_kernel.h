/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel structs that learn.bpf.c reads, each with only the members used; CO-RE finds their
 * offsets. The programs get sockets and tasks with their types, and read them without a helper.
 */
#ifndef SOCKREDIR_LEARN_KERNEL_H
#define SOCKREDIR_LEARN_KERNEL_H

#include "dialect/core.h"

#define AF_INET6	  10
#define TCP_PROTOCOL	  6
#define EINTR		  4
#define ERESTARTSYS	  512
#define MSG_OOB		  1
#define MSG_PEEK	  2
#define MSG_DONTWAIT	  0x40
#define MSG_WAITALL	  0x100
#define MSG_ERRQUEUE	  0x2000
#define MSG_ZEROCOPY	  0x4000000
#define SIGNAL_GROUP_EXIT 4
#define FIONREAD	  0x541B
#define TCP_STATE_CLOSE	  7
#define TCP_STATE_LISTEN  10

struct learn_address {
	__be32 word[4]; /* in6_addr has the same shape */
};

struct sock_common {
	__u16 skc_family;
	__u16 skc_num;
	__be16 skc_dport;
	__be32 skc_rcv_saddr;
	__be32 skc_daddr;
	struct learn_address skc_v6_rcv_saddr;
	struct learn_address skc_v6_daddr;
	volatile unsigned char skc_state;
	unsigned long skc_flags; /* bits by enum sock_flags */
} __kernel_struct;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	int sk_rcvlowat;
	int sk_peek_off; /* -1: not set */
	__u32 sk_tsflags;
	struct socket_wq *sk_wq;
	struct {
		int counter;
	} sk_zckey; /* how often MSG_ZEROCOPY was used */
} __kernel_struct;

struct socket {
	struct sock *sk;
} __kernel_struct;

struct tcp_ulp_ops {
	char name[16];
} __kernel_struct;

struct inet_connection_sock {
	const struct tcp_ulp_ops *icsk_ulp_ops;
} __kernel_struct;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u16 urg_data; /* the urgent byte, and whether there is one */
} __kernel_struct;

struct signal_struct {
	unsigned int flags;
} __kernel_struct;

struct task_struct {
	struct task_struct *group_leader;
	struct signal_struct *signal;
	void *stack; /* its lowest address */
	char comm[16];
} __kernel_struct;

/* A thread's registers as it came into the kernel, on the machines that are known here. */
struct pt_regs___x86 {
	unsigned long orig_ax, dx, r10;
} __kernel_struct;

struct pt_regs___arm64 {
	__u64 regs[31];
	__s32 syscallno;
} __kernel_struct;

enum call {
	CALL_OTHER,
	CALL_SPLICE,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_SENDFILE,
};

struct call_seen {
	enum call call;
	__u64 third, fourth; /* arguments */
};

static __always_inline enum call call_x86(long number)
{
	switch (number) {
	case 275:
		return CALL_SPLICE;
	case 44:
		return CALL_SENDTO;
	case 46:
		return CALL_SENDMSG;
	case 307:
		return CALL_SENDMMSG;
	case 40:
		return CALL_SENDFILE;
	}
	return CALL_OTHER;
}

static __always_inline enum call call_arm64(long number)
{
	switch (number) {
	case 76:
		return CALL_SPLICE;
	case 206:
		return CALL_SENDTO;
	case 211:
		return CALL_SENDMSG;
	case 269:
		return CALL_SENDMMSG;
	case 71:
		return CALL_SENDFILE;
	}
	return CALL_OTHER;
}

/* The system call that the current thread is in. */
static __always_inline struct call_seen current_call(void)
{
	void *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct pt_regs___x86 *x86 = regs;
	struct pt_regs___arm64 *arm64 = regs;
	struct call_seen seen = {};

	if (bpf_core_field_exists(x86->orig_ax)) {
		seen.call = call_x86(x86->orig_ax);
		seen.third = x86->dx;
		seen.fourth = x86->r10;
	} else if (bpf_core_field_exists(arm64->syscallno)) {
		seen.call = call_arm64(arm64->syscallno);
		seen.third = arm64->regs[2];
		seen.fourth = arm64->regs[3];
	}
	return seen;
}

#endif /* SOCKREDIR_LEARN_KERNEL_H */
