/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all programs for libbpf have in common: its headers, and the kernel's structs of which all
 * need the same members. CO-RE finds the real offsets of a __kernel_struct at load time, so one object
 * serves all kernels and the target needs no vmlinux.h.
 */
#ifndef SOCKREDIR_CORE_H
#define SOCKREDIR_CORE_H

#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#define AF_INET 2

#define __kernel_struct __attribute__((preserve_access_index))

struct list_head {
	struct list_head *next;
} __kernel_struct;

struct wait_queue_head {
	struct list_head head;
} __kernel_struct;

struct wait_queue_entry {
	void *private; /* whoever waits: for a thread asleep its task_struct */
	struct list_head entry;
} __kernel_struct;

struct socket_wq {
	struct wait_queue_head wait;
} __kernel_struct;

/* The kernel's values are found when the program is loaded. */
enum sock_flags {
	SOCK_ZEROCOPY,
	SOCK_RCVTSTAMP,
};

#define has_sock_flag(sk, flag)                                                                              \
	((sk)->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, flag) & 1)

#endif /* SOCKREDIR_CORE_H */
