/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How much may be unread.
 *
 * A redirect knows no window. So a message that would put more than a window's worth before its
 * reader goes by TCP, whose window does stop a writer; and so does one that the host's budget has
 * no room for. Each direction is charged for what its reader may not have read yet:
 *
 *	charge <= budget - used
 *
 * (Dynamic Threshold, Choudhury and Hahne 1998, alpha 1.) One busy stream may take half of the
 * budget; n of them get a share of 1 / (n + 1) each, and the sum never passes the budget.
 *
 * Charges are upper bounds. `used` is their sum: whoever changes a charge, by compare and swap or
 * exchange, adds just that difference to `used`.
 */
#ifndef SOCKREDIR_BUDGET_H
#define SOCKREDIR_BUDGET_H

#include "reader.h"

/* Unread bytes assumed, not looked up, until they pass this: looking costs more than memory. */
#define LOOK_ABOVE (16ULL << 10)

/* What TCP would let a writer be ahead by, about: at first, and how often that may double. */
#define WINDOW	     (2ULL << 20)
#define WIDENED_MOST 3 /* a mask too */
#define NO_WINDOW    (1ULL << 40)

/* Charges change in steps, so that small messages rarely touch what all CPUs share. */
#define CHARGE_STEP 4096ULL

/* Between two counts of the whole host, at least, and that many times what the last one took. */
#define RECOUNT_PAUSE  10000000ULL
#define RECOUNT_FACTOR 16

/* A tighter bound of what `reader` has not read of the direction that comes from `writer`. */
static __always_inline __u64 unread_bound(const struct sockredir_side *writer, struct glance seen)
{
	if (seen.look == LOOK_EMPTY)
		return 0;
	if (seen.look == LOOK_SOME && seen.unread && seen.unread < writer->unread)
		return seen.unread;
	return writer->unread;
}

/*
 * Redirected bytes fill the receive buffer that TCP's have to fit in when the direction turns to
 * TCP: half of what it can grow to is theirs.
 */
static __always_inline __u64 window_of(const struct sockredir_side *writer,
				       const struct sockredir_side *reader)
{
	__u64 window = WINDOW << (writer->widened & WIDENED_MOST);
	struct sock *sk = sock_of(reader);
	__u64 most = rcvbuf_is_fixed(sk)
			     ? (__u64)(__u32)BPF_CORE_READ(sk, sk_rcvbuf)
			     : BPF_CORE_READ(sk, __sk_common.skc_net.net, ipv4.sysctl_tcp_rmem[2]);

	return most / 2 < window ? most / 2 : window;
}

/*
 * The writer was held back, and comes back to a reader that has read nearly all: it waited, or was
 * about to. So the writer may be further ahead the next time, as TCP's buffers grow for a reader that
 * keeps up. Where others want their CPUs, both ends run for milliseconds in turn.
 */
static __always_inline void widen(struct sockredir_side *writer, const struct sockredir_side *reader)
{
	struct glance seen;

	if (writer->widened == WIDENED_MOST)
		return;
	seen = look_at(reader);
	if (seen.look == LOOK_EMPTY ||
	    (seen.look == LOOK_SOME && seen.unread && seen.unread < window_of(writer, reader) / 4))
		writer->widened++;
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

/*
 * Sets the charge; false and nothing changed if the budget does not allow that. It is not lowered for
 * little: questions and answers would go up and down, and `used` from CPU to CPU.
 */
static __always_inline bool recharge(struct sockredir_pressure *p, struct sockredir_side *writer,
				     __u64 charge, __u64 budget)
{
	__u64 held = *(volatile __u64 *)&writer->charge;
	__u64 used;

	if (likely(charge <= held && held - charge <= LOOK_ABOVE))
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
	charge = charge_for(unread_bound(writer, look_at(reader)));
	if (charge >= held || __sync_val_compare_and_swap(&writer->charge, held, charge) != held)
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
 * seems to be spent, they are all counted again, at the expense of the one who asks for more.
 */
static __always_inline bool recount(struct sockredir_pressure *p)
{
	__u64 due = *(volatile __u64 *)&p->recount_at;
	__u64 begin = bpf_ktime_get_ns(), end;
	struct recount r = {.p = p};

	if (begin < due || __sync_val_compare_and_swap(&p->recount_at, due, begin + RECOUNT_PAUSE) != due)
		return false;
	if (flows_each(recount_flow, &r) < 0)
		return false;
	end = bpf_ktime_get_ns();
	*(volatile __u64 *)&p->recount_at = end + RECOUNT_PAUSE + RECOUNT_FACTOR * (end - begin);
	count(SOCKREDIR_RECOUNTED, r.freed);
	return true;
}

/* Charges the direction for `size` more bytes, if the budget has room for them. */
static __always_inline bool pay(struct sockredir_side *writer, __u32 size, __u64 budget)
{
	__u64 charge = charge_for(writer->unread + size);
	struct sockredir_pressure *p = get_pressure();

	if (!p ||
	    (!recharge(p, writer, charge, budget) && !(recount(p) && recharge(p, writer, charge, budget))))
		return false;
	writer->unread += size;
	return true;
}

#endif /* SOCKREDIR_BUDGET_H */
