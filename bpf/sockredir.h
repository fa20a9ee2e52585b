/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the two programs and user space share: keys and values of the maps.
 * layout.py, reasons.py and settings_value.py in plugins/module_utils/datapath mirror this file; a unit
 * test holds them together.
 *
 * Whoever changes the size, an offset or the meaning of anything here raises SOCKREDIR_LAYOUT:
 * the kernel compares sizes of a pinned map, never what is inside.
 *
 * All integers are in the host's byte order, ports too. IPv4 addresses are kept v4-mapped
 * (::ffff:a.b.c.d), so that a dual-stack server and its IPv4 client have the same addresses.
 */
#ifndef SOCKREDIR_H
#define SOCKREDIR_H

#include <linux/types.h>

#define SOCKREDIR_LAYOUT 2

#define SOCKREDIR_MAX_PORTS 32
#define SOCKREDIR_MAX_CIDRS 16

struct sockredir_addr {
	__u32 word[4]; /* as on the wire */
};

/*
 * Key of `peers` (from the socket's own point of view) and of `flows` (one per connection; the
 * end with the lower port is "local", or, ports being equal, the one with the lower address).
 */
struct sockredir_key {
	__u64 netns; /* cookie of the network namespace; 0: a pair allowed across namespaces */
	struct sockredir_addr local;
	struct sockredir_addr remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 zero;
};

/*
 * Why something happened: the index into `counters` and the state of a direction of a flow.
 * Each has a line in reasons.py. Order is layout: new ones go to the end.
 */
enum sockredir_reason {
	SOCKREDIR_UNDECIDED, /* counts nothing: a direction before its first message */

	/* Messages; bytes are counted too. */
	SOCKREDIR_REDIRECTED,
	SOCKREDIR_WOULD_REDIRECT, /* mode observe: segments with data, when their connection ends */
	SOCKREDIR_NO_PEER,	  /* no socket of the other end in the map */
	SOCKREDIR_NO_FLOW,	  /* the socket's own flow has no record */
	SOCKREDIR_SENT_BEFORE,	  /* bytes went by TCP earlier, order would break */
	SOCKREDIR_OVER_BUDGET,	  /* too much is unread on the whole host */
	SOCKREDIR_DEMOTED,	  /* one-way run of small messages */
	SOCKREDIR_DRAINED,	  /* mode drain or observe, or settings that make no sense */
	SOCKREDIR_ULP,		  /* kTLS and the like sit on the socket */
	SOCKREDIR_REFUSED,	  /* the kernel refused the redirect */

	/* Sockets, at the moment they are established or leave. */
	SOCKREDIR_SOCKET_ADDED,
	SOCKREDIR_SOCKET_CLOSED,
	SOCKREDIR_SOCKET_LEFT, /* left the map alive: plain TCP from then on */
	SOCKREDIR_SKIP_REMOTE, /* not both ends local */
	SOCKREDIR_SKIP_POLICY, /* server port excluded or not included */
	SOCKREDIR_SKIP_MODE,   /* mode drain, or settings missing, changing or invalid */
	SOCKREDIR_SKIP_KIND,   /* bound to a device, MPTCP, another protocol on top, used again, needs TCP */
	SOCKREDIR_SKIP_ALONE,  /* accepted from a client that is not in the map */
	SOCKREDIR_SKIP_FULL,   /* `flows` or `peers` is full */
	SOCKREDIR_SKIP_FAILED, /* the kernel would not put it in `peers` */

	/* Connections. */
	SOCKREDIR_FLOW_OPENED,
	SOCKREDIR_FLOW_CLOSED,

	/* Housekeeping. */
	SOCKREDIR_RECOUNTED,  /* the budget was recounted; bytes: found to be free */
	SOCKREDIR_EVENT_LOST, /* trace event without room in the ring */
	SOCKREDIR_STALE_FLOW, /* record of sockets that went while no program was attached */

	/* Later additions. */
	SOCKREDIR_AHEAD,    /* message by TCP: the reader is a window behind */
	SOCKREDIR_WAITED,   /* message whose writer waited some microseconds for the reader */
	SOCKREDIR_BEHIND,   /* message by TCP: earlier ones have not arrived yet */
	SOCKREDIR_CUT,	    /* segment whose beginning had already arrived */
	SOCKREDIR_OBSERVED, /* socket not in the map: mode observe, counted when it ends */

	SOCKREDIR_SKIP_VAIN, /* socket not in the map: connections to this port gain nothing */

	SOCKREDIR_REASONS = 64, /* size of `counters`, with room to grow */
};

/* Value of `counters` (one per reason and CPU). */
struct sockredir_count {
	__u64 events;
	__u64 bytes;
};

/*
 * One end of a flow and the direction that begins there. Written by its own socket's programs, but
 * for `charge` and `flags`: those change by atomic operations only.
 */
struct sockredir_side {
	__u64 cookie;	/* socket cookie; 0: no such socket (any more) */
	__u64 sk;	/* its kernel address: only ever probed, never trusted */
	__u64 unread;	/* bytes, upper bound: redirected and maybe not read by the peer */
	__u64 charge;	/* bytes held against the budget */
	__u32 messages; /* seen by the verdict program */
	__u32 edge;	/* sequence number up to which TCP has nothing under way (order.h) */
	__u64 bytes;	/* redirected */
	__u16 state;	/* enum sockredir_reason: what its last message met */
	__u8 way_back;	/* enum sockredir_way_back */
	__u8 vain;	/* times in a row that waiting for the reader was in vain */
	__u16 run;	/* messages that count against it, since the peer last sent */
	__u16 heard;	/* the peer's messages when last read (their lower bits) */
	__u64 flags;	/* SOCKREDIR_SIDE_... (64 bits wide for the sake of atomics) */
	__u32 queued;	/* sequence number up to which its queue has TCP's bytes (receive.h) */
	__u8 widened;	/* times that its window has doubled (budget.h) */
	__u8 zero[3];
};

/* May redirection begin again after messages by TCP? */
enum sockredir_way_back {
	SOCKREDIR_NO_WAY_BACK,
	SOCKREDIR_WAY_BACK,
	SOCKREDIR_WAY_BACK_UNAIDED, /* yes, but the send buffer stays as it is (comeback.h) */
};

#define SOCKREDIR_SIDE_SERVER	  1  /* this end accepted the connection */
#define SOCKREDIR_SIDE_SEGMENT_CB 2  /* the callback for each segment is on because of us */
#define SOCKREDIR_SIDE_STARTED	  8  /* has redirected, or was about to */
#define SOCKREDIR_SIDE_BARRED	  16 /* must not redirect: the peer may leave the map */
#define SOCKREDIR_SIDE_LEFT	  32 /* left the map alive */

/* Value of `flows`: side[0] is the key's local end. */
struct sockredir_flow {
	__u64 owners; /* creator's cookie << 2 | one bit for each side present */
	__u64 opened; /* CLOCK_MONOTONIC, ns */
	struct sockredir_side side[2];
};

enum sockredir_mode {
	SOCKREDIR_MODE_UNSET,
	SOCKREDIR_MODE_ENFORCE,
	SOCKREDIR_MODE_OBSERVE, /* decide and count, redirect nothing */
	SOCKREDIR_MODE_DRAIN,	/* no new flows, live ones go back to TCP */
};

struct sockredir_ports {
	__u16 low; /* both included */
	__u16 high;
};

struct sockredir_cidr {
	struct sockredir_addr addr;
	__u32 bits; /* of the v4-mapped form: 10.0.0.0/8 has 104 */
};

#define SOCKREDIR_CROSS_NETNS 1

/*
 * The one value of `settings`. Writers bracket a change: generation odd (nothing else changed),
 * the new contents (still odd), generation even. A socket established meanwhile stays on TCP.
 */
struct sockredir_settings {
	__u32 version; /* SOCKREDIR_LAYOUT */
	__u32 size;    /* of this struct */
	__u32 mode;
	__u32 flags;
	__u64 budget;	    /* bytes, whole host */
	__u64 trace_until;  /* CLOCK_MONOTONIC, ns: events are written until then */
	__u32 demote_below; /* bytes; 0: never demote */
	__u32 demote_after; /* messages, at most 65535 */
	__u32 generation;
	__u32 n_include; /* 0: all server ports */
	__u32 n_exclude;
	__u32 n_cidrs;
	__u32 leave_after; /* connections without gain until their port is left alone; 0: never */
	__u32 zero;
	struct sockredir_ports include[SOCKREDIR_MAX_PORTS];
	struct sockredir_ports exclude[SOCKREDIR_MAX_PORTS];
	struct sockredir_cidr cidrs[SOCKREDIR_MAX_CIDRS];
};

/* The one value of `pressure`: what the whole host holds. */
struct sockredir_pressure {
	__u64 used;	  /* bytes charged */
	__u64 recount_at; /* CLOCK_MONOTONIC, ns: not before this */
};

/* Value of `ports`, by server port: what its connections were like, those that have ended. */
struct sockredir_port {
	__u64 connections;
	__u64 brief;   /* ended after an exchange or two */
	__u64 demoted; /* turned to TCP for good: small messages one way, files */
	__u64 messages;
	__u64 bytes;	  /* redirected */
	__u64 left_alone; /* connections that were kept out of the map */
	__s64 worth;	  /* what redirection has been worth lately: negative, nothing */
	__u64 zero;
};

/* What `events` carries: one socket put in the map. */
struct sockredir_event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u32 cpu;
	__u32 pid; /* of the thread that ran; for op 5 often the client's or a kernel thread */
	char comm[16];
	__u32 op;     /* 4: connected, 5: accepted (BPF_SOCK_OPS_..._ESTABLISHED_CB) */
	__u32 family; /* 4 or 6; a v4-mapped socket has 4 */
	struct sockredir_addr local;
	struct sockredir_addr remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 zero;
};

#endif /* SOCKREDIR_H */
