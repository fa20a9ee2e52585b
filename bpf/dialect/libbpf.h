/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The dialect of libbpf. bcc.h is its counterpart.
 */
#ifndef SOCKREDIR_LIBBPF_H
#define SOCKREDIR_LIBBPF_H

#include "core.h"
#include <linux/tcp.h>

#define E2BIG	7
#define SOL_TCP 6

#define SOL_SOCKET  1
#define SO_RCVBUF   8
#define SO_RCVLOWAT 18

#ifndef likely /* libbpf has them since 1.6 */
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

char _license[] SEC("license") = "Dual BSD/GPL";

/* The loader writes "sha256:<hex>" of all that makes this program what it is. */
const volatile char bpf_metadata_digest[72] SEC(".rodata") = "";
#ifndef OBJECT_LAYOUT
#define OBJECT_LAYOUT SOCKREDIR_LAYOUT
#endif
const volatile __u32 bpf_metadata_layout SEC(".rodata") = OBJECT_LAYOUT;

/* Calls long turn(__u32 index, context) up to `times` times, until it does not return 0. */
#define repeat(times, turn, context) bpf_loop(times, turn, context, 0)

#endif /* SOCKREDIR_LIBBPF_H */
