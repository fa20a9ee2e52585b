/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Receive backpressure and the memory budget of the host.
 *
 * A redirect knows no window: unread bytes pile up in the kernel until memory is out. So each
 * direction is charged for what its reader may not have read yet, and goes to TCP, whose window
 * does stop a writer, when its charge would pass what is free of the budget:
 *
 *	charge <= budget - used
 *
 * (Dynamic Threshold, Choudhury and Hahne 1998, alpha 1.) One busy stream may take half of the
 * budget; n of them get a share of 1 / (n + 1) each, and the sum never passes the budget.
 *
 * Charges are upper bounds. `used` is their sum: whoever changes a charge, by compare and swap or
 * exchange, adds just that difference to `used`.
 */
#ifndef SOCKREDIR_PRESSURE_H
#define SOCKREDIR_PRESSURE_H

#include "sockredir.h"
#include "kernel.h"
#include "maps.h"
#include "look.h"

/* Unread bytes assumed, not looked up, until they pass this: looking costs more than memory. */
#define LOOK_ABOVE (16ULL << 10)

/* Charges change in steps, so that small messages rarely touch what all CPUs share. */
#define CHARGE_STEP 4096ULL

/* Between two counts of the whole host, at least, and that many times what the last one took. */
#define RECOUNT_PAUSE  10000000ULL
#define RECOUNT_FACTOR 16

/* A tighter bound of what `reader` has not read of the direction that comes from `writer`. */
static __always_inline __u64 unread_bound(const struct sockredir_side *writer,
					  const struct sockredir_side *reader)
{
	struct glance seen = look_at(reader);

	if (seen.look == LOOK_EMPTY)
		return 0;
	/* After a switch to TCP the figure includes TCP's own bytes, on all kernels: all or nothing. */
	if (seen.look == LOOK_SOME && seen.unread && writer->state <= SOCKREDIR_REDIRECTED &&
	    seen.unread < writer->unread)
		return seen.unread;
	return writer->unread;
}

static __always_inline __u64 charge_for(__u64 unread)
{
	return (unread + CHARGE_STEP - 1) & ~(CHARGE_STEP - 1);
}

/* Gives back what the direction is charged for. */
static __always_inline void uncharge(struct sockredir_pressure *p, struct sockredir_side *writer)
{
	__u64 held;

	if (!writer->charge)
		return;
	held = __sync_lock_test_and_set(&writer->charge, 0);
	__sync_fetch_and_add(&p->used, -held);
}

/* Sets the charge; false and nothing changed if the budget does not allow that. */
static __always_inline bool recharge(struct sockredir_pressure *p, struct sockredir_side *writer,
				     __u64 charge, __u64 budget)
{
	__u64 held = *(volatile __u64 *)&writer->charge;
	__u64 used;

	if (charge == held)
		return true;
	used = __sync_fetch_and_add(&p->used, charge - held);
	if (charge > held && (used > budget || charge > budget - used))
		goto undo;
	/* Lost to a recount or to the reader's end: rare, and TCP is always right. */
	if (__sync_val_compare_and_swap(&writer->charge, held, charge) != held)
		goto undo;
	return true;
undo:
	__sync_fetch_and_add(&p->used, held - charge);
	return false;
}

struct recount {
	struct sockredir_pressure *p;
	__u64 freed;
};

static __always_inline void recount_side(struct recount *r, struct sockredir_side *writer,
					 const struct sockredir_side *reader)
{
	__u64 held = *(volatile __u64 *)&writer->charge;
	__u64 charge;

	if (!held)
		return;
	charge = charge_for(unread_bound(writer, reader));
	if (charge == held || __sync_val_compare_and_swap(&writer->charge, held, charge) != held)
		return;
	__sync_fetch_and_add(&r->p->used, charge - held);
	r->freed += held - charge;
}

static long recount_flow(void *map, const void *key, struct sockredir_flow *flow, struct recount *r)
{
	(void)map;
	(void)key;
	recount_side(r, &flow->side[0], &flow->side[1]);
	recount_side(r, &flow->side[1], &flow->side[0]);
	return 0;
}

/*
 * Charges of readers that caught up since their writer's last message are stale. When the budget
 * seems to be spent, they are all counted anew, at the expense of the one who asks for more.
 */
static __always_inline bool recount(struct sockredir_pressure *p)
{
	__u64 due = *(volatile __u64 *)&p->recount_at;
	__u64 begin = bpf_ktime_get_ns(), end;
	struct recount r = {.p = p};

	if (begin < due || __sync_val_compare_and_swap(&p->recount_at, due, begin + RECOUNT_PAUSE) != due)
		return false;
	bpf_for_each_map_elem(&flows, recount_flow, &r, 0);
	end = bpf_ktime_get_ns();
	*(volatile __u64 *)&p->recount_at = end + RECOUNT_PAUSE + RECOUNT_FACTOR * (end - begin);
	count(SOCKREDIR_RECOUNTED, r.freed);
	return true;
}

/*
 * What one reader may have unread when its writer turns to TCP. Kernels that count redirected
 * bytes as received ones then see the receive buffer overrun. From 6.14 on they advertise a zero
 * window and a new one when the reader has caught up (8c670bdfa58e). Older ones drop what does
 * not fit under tcp_rmem[2] and do not say so: the writer would wait for its retransmission
 * timer long after the reader went on, and give up if it never does. icsk_rto_max came with 6.15
 * and tells them apart.
 */
static __always_inline __u64 unread_limit(const struct tcp_sock *tp)
{
	if (bpf_core_field_exists(tp->inet_conn.icsk_rto_max))
		return ~0ULL;
	return tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net->ipv4.sysctl_tcp_rmem[2] / 2;
}

/* May `size` more bytes go from `writer` to `reader` without a window? Charges them if so. */
static __always_inline bool admit(struct sockredir_side *writer, const struct sockredir_side *reader,
				  __u32 size, __u64 budget, __u64 limit)
{
	struct sockredir_pressure *p = get_pressure();
	__u64 charge;

	if (!p)
		return false;
	if (writer->unread + size > LOOK_ABOVE)
		writer->unread = unread_bound(writer, reader);
	if (writer->unread > limit)
		return false;
	charge = charge_for(writer->unread + size);
	if (!recharge(p, writer, charge, budget) && !(recount(p) && recharge(p, writer, charge, budget)))
		return false;
	writer->unread += size;
	return true;
}

#endif /* SOCKREDIR_PRESSURE_H */
