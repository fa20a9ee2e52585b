/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What io_uring was asked to send. The flags of such a send are in its request only, which shows with the
 * socket when it is complete.
 */
#ifndef SOCKREDIR_LEARN_RING_H
#define SOCKREDIR_LEARN_RING_H

#include "learn_kernel.h"

/* Of enum io_uring_op. */
#define RING_SENDMSG	9
#define RING_SEND	26
#define RING_SEND_ZC	47
#define RING_SENDMSG_ZC 48

struct file {
	void *private_data; /* of a socket its struct socket */
} __kernel_struct;

struct io_kiocb {
	struct file *file; /* the operation's own struct, such as io_sr_msg, begins here too */
	__u8 opcode;
} __kernel_struct;

struct io_sr_msg {
	unsigned int msg_flags;
} __kernel_struct;

/* Of the sender's pages, not of a copy. */
static __always_inline bool is_zero_copy(__u8 operation)
{
	return operation == RING_SEND_ZC || operation == RING_SENDMSG_ZC;
}

static __always_inline bool is_send(__u8 operation)
{
	return operation == RING_SEND || operation == RING_SENDMSG || is_zero_copy(operation);
}

static __always_inline bool waits_for_all(const struct io_kiocb *request)
{
	const struct io_sr_msg *asked = (const void *)__builtin_preserve_access_index(&request->file);

	return BPF_CORE_READ(asked, msg_flags) & MSG_WAITALL;
}

/* The address of its socket, or of nothing if it is none. */
static __always_inline __u64 socket_of(const struct io_kiocb *request)
{
	const struct socket *socket = BPF_CORE_READ(request, file, private_data);

	return (__u64)BPF_CORE_READ(socket, sk);
}

#endif /* SOCKREDIR_LEARN_RING_H */
