/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What redirection is worth on each server port, learned from its connections.
 *
 * A connection costs more to make and end when its sockets come into the map. One that ends after
 * an exchange or two does not earn that, nor does one whose messages turn out to be TCP's. A port
 * with many of those and little else is left alone: its connections stay outside, but for one in
 * TRY_ONE_IN, since what programs do changes.
 */
#ifndef SOCKREDIR_PORTS_H
#define SOCKREDIR_PORTS_H

#include "demotion.h"

#define BRIEF_MESSAGES 4  /* of both ends together */
#define EARNED_EVERY   64 /* redirected messages of a direction */
#define WORTH_MOST     64
#define TRY_ONE_IN     64

#define WORTH_EARNED  8
#define WORTH_BRIEF   -1
#define WORTH_DEMOTED -1

static __always_inline void change_worth(struct sockredir_port *port, __s64 by)
{
	__s64 worth = *(volatile __s64 *)&port->worth;

	if (by > 0 ? worth < WORTH_MOST : worth > -WORTH_MOST)
		__sync_fetch_and_add(&port->worth, by);
}

/* The server's port of a flow; 0 as long as the server's end has not joined. */
static __always_inline __u16 server_port(const struct sockredir_flow *flow, const struct sockredir_key *id)
{
	if (flow->side[0].flags & SOCKREDIR_SIDE_SERVER)
		return id->local_port;
	return flow->side[1].flags & SOCKREDIR_SIDE_SERVER ? id->remote_port : 0;
}

/* What a connection that has ended tells about its port. */
static __always_inline __s64 worth_of(struct sockredir_port *port, const struct sockredir_flow *flow,
				      __u64 messages)
{
	if (messages <= BRIEF_MESSAGES) {
		__sync_fetch_and_add(&port->brief, 1);
		return WORTH_BRIEF;
	}
	if (flow->side[0].state == SOCKREDIR_DEMOTED || flow->side[1].state == SOCKREDIR_DEMOTED) {
		__sync_fetch_and_add(&port->demoted, 1);
		return WORTH_DEMOTED;
	}
	messages /= WORTH_EARNED;
	return messages < WORTH_EARNED ? messages : WORTH_EARNED;
}

/* A connection has ended. */
static __always_inline void account(const struct sockredir_flow *flow, const struct sockredir_key *id)
{
	const struct sockredir_side *a = &flow->side[0], *b = &flow->side[1];
	struct sockredir_port *port;
	__u16 number = server_port(flow, id);
	__u64 messages = (__u64)a->messages + b->messages;

	port = number ? port_make(number) : NULL;
	if (!port)
		return;
	__sync_fetch_and_add(&port->connections, 1);
	__sync_fetch_and_add(&port->messages, messages);
	__sync_fetch_and_add(&port->bytes, a->bytes + b->bytes);
	change_worth(port, worth_of(port, flow, messages));
}

/* A message has been redirected. */
static __always_inline void earn(const struct sockredir_side *own, const struct sockredir_key *self)
{
	struct sockredir_port *port;

	if (likely(own->messages % EARNED_EVERY))
		return;
	port = port_make(own->flags & SOCKREDIR_SIDE_SERVER ? self->local_port : self->remote_port);
	if (port)
		change_worth(port, WORTH_EARNED);
}

/* Is a new connection to this port left alone? Decided by its client: the server's end follows. */
static __always_inline bool left_alone(const struct sockredir_settings *s, __u16 number)
{
	struct sockredir_port *port = s->leave_after ? port_find(number) : NULL;

	if (likely(!port) || *(volatile __s64 *)&port->worth > -(__s64)s->leave_after)
		return false;
	return (__sync_fetch_and_add(&port->left_alone, 1) + 1) % TRY_ONE_IN;
}

#endif /* SOCKREDIR_PORTS_H */
