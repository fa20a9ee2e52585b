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

#include "look.h"

/* Unread bytes assumed, not looked up, until they pass this: looking costs more than memory. */
#define LOOK_ABOVE (16ULL << 10)

/* Charges change in steps, so that small messages rarely touch what all CPUs share. */
#define CHARGE_STEP 4096ULL

/* Between two counts of the whole host, at least, and that many times what the last one took. */
#define RECOUNT_PAUSE  10000000ULL
#define RECOUNT_FACTOR 16

/*
 * A tighter bound of what `reader` has not read of the direction that comes from `writer`.
 * After a switch to TCP the kernel's figure includes TCP's own bytes: all or nothing then.
 */
static __always_inline __u64 unread_bound(const struct sockredir_side *writer, struct glance seen)
{
	if (seen.look == LOOK_EMPTY)
		return 0;
	if (seen.look == LOOK_SOME && seen.unread && writer->state <= SOCKREDIR_REDIRECTED &&
	    seen.unread < writer->unread)
		return seen.unread;
	return writer->unread;
}

/*
 * How full a reader may be when its writer turns to TCP.
 *
 * Kernels that count redirected bytes as received ones (see look_at()) find the receive buffer
 * overrun then. Well below the buffer's most, `top`, it grows and TCP goes on as usual. Above,
 * kernels from 6.14 on take one segment, which comes when the reader has come to it, and close the
 * window until then (8c670bdfa58e); older ones drop all and the writer waits for its timer, long
 * after the reader went on, and gives up if it never does. In between, all kernels take the first
 * segments and drop the next.
 *
 * So a direction stops `below`, or has room to pass `top` before it goes on.
 */
struct brim {
	__u64 below;
	__u64 top;
};

/* More than TCP sends at first, and than one message can be (17 fragments of 32 KiB). */
#define BRIM_WIDTH (1ULL << 20)

static __always_inline struct brim brim_of(const struct sockredir_side *reader)
{
	struct sock *sk = (struct sock *)reader->sk;
	__u64 now = (__u32)BPF_CORE_READ(sk, sk_rcvbuf);
	__u64 most = BPF_CORE_READ(sk, __sk_common.skc_net.net, ipv4.sysctl_tcp_rmem[2]);
	struct brim b;

	if (rcvbuf_is_fixed(sk) || now > most)
		most = now;
	b.top = most;
	b.below = most > 2 * BRIM_WIDTH ? most - BRIM_WIDTH : most / 2;
	return b;
}

/* Between the two: not the moment to turn to TCP. */
static __always_inline bool on_brim(__u64 unread, const struct sockredir_side *reader)
{
	struct brim b = brim_of(reader);

	return unread > b.below && unread <= b.top;
}

/* What a peer may send before it hears of a closed window. */
#define FIRST_WINDOW (64ULL << 10)

/* As on_brim(), looked up, with room for what TCP sends at first: not the moment to demote. */
static __always_inline bool brim_ahead(const struct sockredir_side *writer,
				       const struct sockredir_side *reader)
{
	struct brim b;
	__u64 unread;

	if (writer->unread <= LOOK_ABOVE)
		return false;
	b = brim_of(reader);
	unread = unread_bound(writer, look_at(reader));
	return unread > b.below && unread <= b.top + FIRST_WINDOW;
}

/* What to charge for that much unread; NEVER: such a reader must not get more. */
#define NEVER (~0ULL)

static __always_inline __u64 charge_for(__u64 unread, const struct sockredir_side *reader)
{
	struct brim b;

	if (unlikely(unread > LOOK_ABOVE)) {
		b = brim_of(reader);
		if (unread > b.below && !takes_one_when_full())
			return NEVER;
		if (unread > b.below && unread <= b.top)
			unread = b.top + BRIM_WIDTH;
	}
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
	charge = charge_for(unread_bound(writer, look_at(reader)), reader);
	if (charge == held || charge == NEVER ||
	    __sync_val_compare_and_swap(&writer->charge, held, charge) != held)
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
	if (flows_each(recount_flow, &r) < 0)
		return false;
	end = bpf_ktime_get_ns();
	*(volatile __u64 *)&p->recount_at = end + RECOUNT_PAUSE + RECOUNT_FACTOR * (end - begin);
	count(SOCKREDIR_RECOUNTED, r.freed);
	return true;
}

/*
 * The brake. A redirect costs the writer less than the reader, so a stream runs ahead of a reader
 * that does what it can, the more so when other processes take its CPU. TCP would make the writer
 * sleep; a BPF program cannot, so it waits, looking at the reader, for as long as the reader takes
 * to read as much as it is about to get. The fuller the queue, the longer at most.
 *
 * Waiting that sees no progress at all is noted; so much of it, and the reader has stopped. A writer
 * whose CPU was taken away meanwhile, as a hypervisor does, comes late; that was no waiting.
 */
#define BRAKE_ABOVE   (2ULL << 20)
#define BRAKE_LEAST   20000ULL	 /* ns: reading 64 KiB takes about that */
#define BRAKE_MOST    1000000ULL /* ns, for one message; BRAKE_LEAST comes on top */
#define STOPPED_AFTER 60000U	 /* us of waiting in vain */
#define BRAKE_LOOKS   4096
#define BRAKE_PAUSE   256 /* empty turns between two looks, which disturb the reader */

struct brake {
	struct sockredir_side *writer;
	const struct sockredir_side *reader;
	__u64 enough;
	__u64 until;
};

static long brake_pause(__u32 turn, void *unused)
{
	(void)turn;
	(void)unused;
	return 0;
}

static long brake_look(__u32 turn, struct brake *b)
{
	(void)turn;
	repeat(BRAKE_PAUSE, brake_pause, NULL);
	b->writer->unread = unread_bound(b->writer, look_at(b->reader));
	return b->writer->unread <= b->enough || bpf_ktime_get_ns() >= b->until;
}

/* Quadratic in how full it is, in thousandths of what this direction could get. */
static __always_inline __u64 brake_time(__u64 unread, __u64 room)
{
	__u64 full = room ? unread * 1000 / room : 1000;

	if (full > 1000)
		full = 1000;
	return BRAKE_LEAST + BRAKE_MOST * full * full / 1000000;
}

static __always_inline __u64 waited_until(__u64 until)
{
	__u64 now = bpf_ktime_get_ns();

	return now < until ? now : until;
}

/* False: the reader has stopped. */
static __always_inline bool brake(struct sockredir_side *writer, const struct sockredir_side *reader,
				  __u32 size, __u64 room)
{
	__u64 begin = bpf_ktime_get_ns(), before = writer->unread;
	struct brake b = {
		.writer = writer,
		.reader = reader,
		.enough = before > BRAKE_ABOVE + size ? before - size : BRAKE_ABOVE,
		.until = begin + brake_time(before, room),
	};

	repeat(BRAKE_LOOKS, brake_look, &b);
	count(SOCKREDIR_BRAKED, size);
	if (writer->unread < before)
		writer->in_vain = 0;
	else
		writer->in_vain += (__u32)(waited_until(b.until) - begin) / 1000;
	return writer->in_vain < STOPPED_AFTER;
}

/* What the direction could be charged for in all, as things are. */
static __always_inline __u64 room_for(const struct sockredir_pressure *p, const struct sockredir_side *writer,
				      __u64 budget)
{
	__u64 others = p->used - writer->charge;

	return others < budget ? (budget - others) / 2 : 0;
}

/*
 * May `size` more bytes go from `writer` to `reader` without a window? SOCKREDIR_REDIRECTED, and
 * they are charged, or why not.
 */
static __always_inline __u32 admit(struct sockredir_side *writer, const struct sockredir_side *reader,
				   __u32 size, __u64 budget)
{
	struct sockredir_pressure *p = get_pressure();
	struct glance seen = {};
	__u64 charge;

	if (!p)
		return SOCKREDIR_OVER_BUDGET;
	if (unlikely(writer->unread + size > LOOK_ABOVE)) {
		seen = look_at(reader);
		charge = unread_bound(writer, seen);
		if (charge < writer->unread)
			writer->in_vain = 0;
		writer->unread = charge;
	}
	/* Where the kernel does not count, no progress is to be seen. */
	if (unlikely(seen.unread && writer->unread > BRAKE_ABOVE) &&
	    !brake(writer, reader, size, room_for(p, writer, budget)) && !on_brim(writer->unread, reader))
		return SOCKREDIR_STOPPED;
	charge = charge_for(writer->unread + size, reader);
	if (charge == NEVER)
		return SOCKREDIR_OVER_BUDGET;
	if (!recharge(p, writer, charge, budget) && !(recount(p) && recharge(p, writer, charge, budget)))
		return SOCKREDIR_OVER_BUDGET;
	writer->unread += size;
	return SOCKREDIR_REDIRECTED;
}

#endif /* SOCKREDIR_PRESSURE_H */
