/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs of learn.bpf.c and user space share. learn/layout.py in module_utils mirrors it.
 */
#ifndef SOCKREDIR_LEARN_H
#define SOCKREDIR_LEARN_H

#include <linux/types.h>

#define LEARN_PROGRAM 16
#define LEARN_SIZES   24

/* Calls that a socket in a map answers otherwise than TCP does. */
enum learn_sign {
	LEARN_SPLICED,	    /* splice from it */
	LEARN_WAITALL,	    /* recv with MSG_WAITALL */
	LEARN_LOW_WATER,    /* SO_RCVLOWAT above 1 */
	LEARN_URGENT,	    /* MSG_OOB */
	LEARN_ZERO_COPY,    /* MSG_ZEROCOPY */
	LEARN_KERNEL_TLS,   /* TCP_ULP "tls" */
	LEARN_INTERRUPTED,  /* a signal while recv blocked */
	LEARN_TWO_SLEPT,    /* two threads at once in blocking calls */
	LEARN_FIONREAD,	    /* ioctl FIONREAD */
	LEARN_RING_WAITALL, /* a send by io_uring with MSG_WAITALL */
	LEARN_PEEK_OFFSET,  /* SO_PEEK_OFF */
	LEARN_TIMESTAMPS,   /* SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING */
	LEARN_SIGNS,
};

/* Whose counts: a program's sockets of one server port, at one end. */
struct learn_key {
	__u64 cgroup; /* id of the one that the program runs in */
	char program[LEARN_PROGRAM];
	__u16 port; /* the server's */
	__u8 server;
	__u8 local; /* are both ends on this host? */
	__u32 zero;
};

struct learn_counts {
	__u64 connections;
	__u64 nanoseconds; /* that these lived, from the first message seen */
	__u64 sent_bytes;
	__u64 sent_messages;
	__u64 received_bytes;
	__u64 received_messages;
	__u64 answers;		  /* messages sent next after something was received */
	__u64 files;		  /* messages sent by sendfile */
	__u64 reply_ns;		  /* from a message sent until the last that was received before the next */
	__u64 replies;		  /* of how many replies that time was taken */
	__u32 sizes[LEARN_SIZES]; /* sent messages, by the binary logarithm of their bytes */
	__u32 signs[LEARN_SIGNS];
};

enum learn_kind {
	LEARN_WATCHED,
	LEARN_OTHER, /* of a program outside of the cgroup in question */
};

struct learn_socket {
	struct learn_key key;
	struct learn_counts counts;
	__u64 opened;
	__u32 kind;
	__u32 received; /* was its last message one that it received? */
	__u64 asked;	/* when a question was sent whose time is taken, else 0 */
	__u64 heard;	/* when something of its reply was received last */
	__u64 tick;	/* the one in which activity was noted last */
	__u32 window;	/* in which the question was asked */
	__u32 zero;
};

struct learn_activity {
	__u64 last;
	__u64 ticks; /* of the kernel's clock, with at least one message */
};

#endif /* SOCKREDIR_LEARN_H */
