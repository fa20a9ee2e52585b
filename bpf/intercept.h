/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs of interception and user space share: keys and values of their maps.
 * plugins/module_utils/datapath/intercept.py and its neighbours intercept_doors.py and
 * intercept_record.py mirror this file; a unit test holds them together.
 *
 * Whoever changes the size, an offset or the meaning of anything here raises INTERCEPT_LAYOUT.
 *
 * Integers are in the host's byte order, ports too; IPv4 addresses are kept v4-mapped, as in
 * sockredir.h, whose addresses, networks and ranges of ports these are.
 */
#ifndef SOCKREDIR_INTERCEPT_H
#define SOCKREDIR_INTERCEPT_H

#include "sockredir.h"

#define INTERCEPT_LAYOUT 1

/* Powers of two. */
#define INTERCEPT_MAX_RULES 32
#define INTERCEPT_MAX_PORTS 32
#define INTERCEPT_MAX_CIDRS 32
#define INTERCEPT_MAX_DNS   3 /* what a resolv.conf names at most */

#define INTERCEPT_MAX_DOORS 1024 /* ports from outside, of all rules together */
#define INTERCEPT_LISTENERS 16	 /* of a proxy at one address; others may share its port */

/* The two families, as indices. */
enum intercept_family {
	INTERCEPT_V4,
	INTERCEPT_V6,
	INTERCEPT_FAMILIES,
};

/* An address with a port; port 0: none. */
struct intercept_end {
	struct sockredir_addr addr;
	__u16 port;
	__u16 zero;
};

/* `flags` of a rule. */
#define INTERCEPT_VALID		   1  /* the first rule without it ends the list */
#define INTERCEPT_PROXY_USER	   2  /* processes of `proxy_user` are the proxy */
#define INTERCEPT_DIRECT_WHEN_DOWN 4  /* without a listener at `to`, connect directly */
#define INTERCEPT_SOCKNAME	   8  /* getsockname() of the proxy's socket is the destination too */
#define INTERCEPT_HAS_INBOUND	   16 /* it has ports in `doors` */

/*
 * Whose connections go where. A cgroup is named by its id and its depth below the root: that is
 * how a program can ask whether the running task is in it or below.
 */
struct intercept_rule {
	__u64 apps;
	__u64 proxy; /* 0: identified only by its user */
	__u32 apps_level;
	__u32 proxy_level;
	__u32 proxy_user;
	__u32 flags;
	__u32 slot; /* 1 to INTERCEPT_MAX_RULES: where its events are counted, as long as it lives */
	__u32 n_ports;
	__u32 n_exclude_ports;
	__u32 n_cidrs;
	__u32 n_exclude_cidrs;
	__u32 zero;
	struct intercept_end to[INTERCEPT_FAMILIES];
	/* Where datagrams to port 53 go: those to the first server of a socket to the first, ... */
	struct intercept_end dns[INTERCEPT_FAMILIES][INTERCEPT_MAX_DNS];
	struct sockredir_ports ports[INTERCEPT_MAX_PORTS]; /* none: all */
	struct sockredir_ports exclude_ports[INTERCEPT_MAX_PORTS];
	struct sockredir_cidr cidrs[INTERCEPT_MAX_CIDRS]; /* none: all but what never leaves the link */
	struct sockredir_cidr exclude_cidrs[INTERCEPT_MAX_CIDRS];
};

/*
 * The one value of `intercept_state`: which half of `intercepts` holds. User space fills the other
 * half, then changes `half` between 0 and 1, which is one byte: no program sees half a change.
 */
struct intercept_state {
	__u32 version; /* INTERCEPT_LAYOUT; anything else: no rules */
	__u32 half;
};

/* Key of `doors`: a port that connections from outside come to. */
struct intercept_port {
	__u32 half; /* of `intercepts`, with which it holds */
	__u32 port;
};

/* Where they go. */
struct intercept_door {
	__u64 netns; /* in this network namespace: a cookie */
	struct intercept_end to[INTERCEPT_FAMILIES];
	__u32 slot;
	__u32 flags;
};

/* Key of `listeners`: a socket at which a proxy listens. */
struct intercept_listener {
	__u64 netns;
	struct intercept_end to; /* of its rule; the socket may listen at any address */
	__u32 index;		 /* below INTERCEPT_LISTENERS */
};

/* What `pending` knows of a connection under way, by its client's view of it. */
struct intercept_claim {
	__u64 cookie; /* of the client's socket */
	struct intercept_end asked;
	__u32 slot;
	__u32 flags;
	__u32 zero;
};

/* What a socket keeps: `outgoing` at the client, `incoming` at the proxy. */
struct intercept_note {
	struct intercept_end asked; /* where the program wanted to go */
	struct intercept_end to;    /* where it was sent */
	__u32 slot;
	__u32 flags;
};

/* The name servers that a socket has asked without connecting to them. */
struct intercept_servers {
	__u64 used;
	struct intercept_note server[INTERCEPT_MAX_DNS];
};

/* Key of `reached`: a local address under which a proxy's listener was reached. */
struct intercept_reached {
	__u64 netns;
	struct intercept_end end;
	__u32 zero;
};

/*
 * What is counted, for each rule and (slot 0) for none: `intercepted` has INTERCEPT_EVENTS counts
 * for each slot. Order is layout: new ones go to the end. Each has a line in intercept.py.
 */
enum intercept_event {
	INTERCEPT_REWRITTEN,   /* connect() sent to the proxy */
	INTERCEPT_PASSED,      /* no rule is for it */
	INTERCEPT_DIRECT,      /* nothing listens at `to`: connected directly */
	INTERCEPT_LOOPED,      /* refused: the proxy was about to come back to itself */
	INTERCEPT_LEFT_ALONE,  /* bound to a device */
	INTERCEPT_FAILED,      /* refused: no memory to remember where it wanted to go */
	INTERCEPT_LOST,	       /* `pending` is full: the proxy cannot know the destination */
	INTERCEPT_CLAIMED,     /* accepted by the proxy, with its destination */
	INTERCEPT_UNCLAIMED,   /* accepted by the proxy from a program that asked for it */
	INTERCEPT_WITHDRAWN,   /* closed before the proxy had it */
	INTERCEPT_ANSWERED,    /* SO_ORIGINAL_DST answered */
	INTERCEPT_DNS,	       /* datagram to a name server sent to the proxy */
	INTERCEPT_DNS_PASSED,  /* datagram to one more name server than the rule has addresses for */
	INTERCEPT_INBOUND,     /* connection from outside handed to the proxy */
	INTERCEPT_TURNED_AWAY, /* nothing listens at `to`: refused */
	INTERCEPT_EVENTS = 16, /* with room to grow */
};

/* Elements of `intercept_trace`. */
enum intercept_trace_element {
	INTERCEPT_TRACE_UNTIL, /* CLOCK_MONOTONIC, ns: events are told until then */
	INTERCEPT_TRACE_LOST,  /* events without room in the ring */
	INTERCEPT_TRACE,
};

/* What `intercept_ring` carries. */
struct intercept_record {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u32 cpu;
	__u32 pid; /* of the thread that ran; at the proxy's side often the client's or a kernel thread */
	char comm[16];
	__u32 slot;		     /* of the rule; 0: none */
	__u32 event;		     /* enum intercept_event */
	struct intercept_end client; /* port 0: it has none yet */
	struct intercept_end to;     /* where the connection goes */
	struct intercept_end asked;  /* where the program wanted to go */
	__u32 zero;
};

#endif /* SOCKREDIR_INTERCEPT_H */
