/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The dialect of BCC, compiled against the headers of the running kernel. libbpf.h and kernel.h are
 * its counterparts.
 */
#ifndef SOCKREDIR_BCC_H
#define SOCKREDIR_BCC_H

#include <linux/fs.h>
#include <linux/net.h>
#include <linux/sched.h>
#include <linux/skmsg.h>
#include <net/sock.h>
#include <net/tcp.h>

/* Processors are not for the source to choose here. */
#pragma clang diagnostic ignored "-Wignored-attributes"

/* BCC makes a string of it. */
/* clang-format off */
#define BPF_LICENSE Dual BSD/GPL
/* clang-format on */

/* BCC identifies programs only by their names. */
#undef SEC
#define SEC(name)

/* The loader sets variables from functions of such names, and adds the digest. */
int bpf_metadata_layout(void *ctx)
{
	return SOCKREDIR_LAYOUT;
}

/* The structs are the kernel's own: nothing has to be found when the program is loaded. */
#define __builtin_preserve_access_index(address) (address)
#define bpf_core_read(to, size, from)		 bpf_probe_read_kernel(to, size, from)
#define bpf_core_field_offset(type, field)	 offsetof(type, field)
#define has_sock_flag(sk, flag)			 ((sk)->__sk_common.skc_flags >> (flag) & 1)

/* In no header of the kernel. */
struct bpf_shtab_elem {
	struct rcu_head rcu;
	u32 hash;
	struct sock *sk;
	struct hlist_node node;
	u8 key[];
};

#define PROBE_READ(pointer, member)                                                                          \
	({                                                                                                   \
		typeof((pointer)->member) value_ = 0;                                                        \
		bpf_core_read(&value_, sizeof(value_), &(pointer)->member);                                  \
		value_;                                                                                      \
	})
#define PROBE_READ_2(pointer, member, next) PROBE_READ(PROBE_READ(pointer, member), next)
#define PROBE_READ_N(_1, _2, name, ...)	    name
#define BPF_CORE_READ(pointer, ...)	    PROBE_READ_N(__VA_ARGS__, PROBE_READ_2, PROBE_READ)(pointer, __VA_ARGS__)

/*
 * Did the program choose the size of its receive buffer? Before 6.9 that was in a bit-field, which
 * has no address: its byte is read, and the compiler knows where in it the bits are.
 */
static __always_inline bool rcvbuf_is_fixed(const struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	return BPF_CORE_READ(sk, sk_userlocks) & SOCK_RCVBUF_LOCK;
#else
	const unsigned long at = offsetof(struct sock, sk_pacing_shift) - 1;
	__u8 byte = 0;

	bpf_core_read(&byte, sizeof(byte), (const char *)sk + at);
	return ((struct sock *)((char *)&byte - at))->sk_userlocks & SOCK_RCVBUF_LOCK;
#endif
}

static __always_inline bool serves_reclaim(const struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	return !sk->sk_use_task_frag;
#else
	return (sk->sk_allocation & GFP_KERNEL) != GFP_KERNEL;
#endif
}

/* May this thread send by io_uring? */
static __always_inline bool uses_uring(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

#ifdef CONFIG_IO_URING
	if (BPF_CORE_READ(task, io_uring))
		return true;
#endif
	return BPF_CORE_READ(task, flags) & PF_IO_WORKER;
}

/* The word of the socket's spinlock, 0 when it is free. */
static __always_inline int slock_of(const struct sock *sk)
{
#ifdef CONFIG_PREEMPT_RT
	return 1;
#else
	return BPF_CORE_READ(sk, sk_lock.slock.rlock.raw_lock.val.counter);
#endif
}

/* References to an open file: descriptors, and calls of processes with more than one thread. */
static __always_inline long uses_of(const struct file *file)
{
#ifdef FILE_REF_ONEREF
	return BPF_CORE_READ(file, f_ref.refcnt.counter) + 1;
#else
	return BPF_CORE_READ(file, f_count.counter);
#endif
}

/* The bytes of the queue, if the kernel counts them (929e30f93125); else 0. Headers tell from 7.0 on. */
static __always_inline __u64 counted_bytes(const struct sk_psock *psock)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	return BPF_CORE_READ(psock, msg_tot_len);
#else
	return 0;
#endif
}

/* Does TCP take one segment into a full buffer (8c670bdfa58e)? That socket option is as old. */
static __always_inline bool takes_one_when_full(void)
{
#ifdef TCP_RTO_MAX_MS
	return true;
#else
	return false;
#endif
}

/* The compiler may not conclude anything from what it knows of a variable. */
#define barrier_var(variable) asm volatile("" : "+r"(variable))

/*
 * Calls long turn(__u32 index, context) up to `times` times, until it does not return 0. The
 * verifier follows every turn, so they are few, and made to last, for those who wait by them: a
 * call that does nothing is the longest time for one instruction.
 */
#define TURNS_MOST 32
#define PAUSE_4	   (bpf_ktime_get_ns(), bpf_ktime_get_ns(), bpf_ktime_get_ns(), bpf_ktime_get_ns())
#define PAUSE_16   (PAUSE_4, PAUSE_4, PAUSE_4, PAUSE_4)
#define repeat(times, turn, context)                                                                         \
	for (__u64 turn_ = 0; turn_ < (times) && turn_ < TURNS_MOST; turn_++) {                              \
		barrier_var(turn_);                                                                          \
		(void)PAUSE_16;                                                                              \
		if (turn(turn_, context))                                                                    \
			break;                                                                               \
	}

#endif /* SOCKREDIR_BCC_H */
