/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One source, two compilers. clang makes an object for libbpf, which fits it to the running kernel
 * (CO-RE) and calls functions back from loops. BCC compiles against the headers of the running
 * kernel, knows maps by methods of its own, and has no callbacks and no global variables.
 *
 * Whatever differs has the same name on both sides: kernel structs and what is asked of them, maps
 * and what is done with them, loops.
 */
#ifndef SOCKREDIR_DIALECT_H
#define SOCKREDIR_DIALECT_H

#include "../sockredir.h"

#ifdef __BCC__
#include "bcc.h"
#include "bcc_maps.h"
#else
#include "libbpf.h"
#include "kernel.h"
#include "maps.h"
#endif

static __always_inline struct sock *as_sock(const struct tcp_sock *tp)
{
	return (struct sock *)&tp->inet_conn.icsk_inet.sk;
}

static __always_inline void count(__u32 reason, __u64 bytes)
{
	struct sockredir_count *c = counter_find(reason);

	if (c) {
		__sync_fetch_and_add(&c->events, 1);
		if (bytes)
			__sync_fetch_and_add(&c->bytes, bytes);
	}
}

#endif /* SOCKREDIR_DIALECT_H */
