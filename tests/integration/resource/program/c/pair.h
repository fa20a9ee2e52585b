/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PAIR_H
#define PAIR_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct pair_key {
	__u32 port;
};

struct pair_flow {
	__u64 messages;
#ifdef WIDER
	__u64 bytes;
#endif
};

#endif
