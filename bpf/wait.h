/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Waiting some microseconds for a reader that is at work on another CPU.
 *
 * A redirect appends to the reader's queue under the reader's lock. A reader that copies holds it,
 * and the writer would sleep until it is released and be woken, which costs both of them more than
 * the copy takes (TCP's segments go to the backlog instead). So the verdict waits for the lock, as
 * a mutex does while its owner runs; and likewise for a reader that is a window behind and reads.
 *
 * One that has lost its CPU makes no progress: waiting for it ends at once, and the next times are
 * left out, the more the longer that goes on.
 */
#ifndef SOCKREDIR_WAIT_H
#define SOCKREDIR_WAIT_H

#include "budget.h"

#define WAIT_MOST  50000ULL /* ns */
#define WAIT_IDLE  8000ULL  /* ns without any progress: the reader is not at work */
#define WAIT_LOOKS 1024
#define WAIT_PAUSE 16 /* empty turns between two looks, which disturb the reader */
#define VAIN_MOST  6

struct wait {
	struct sockredir_side *writer;
	const struct sockredir_side *reader;
	__u64 enough; /* unread bytes that may be left */
	__u64 until;
	__u64 idle; /* when to give up, unless it keeps reading */
};

static long wait_pause(__u32 turn, void *unused)
{
	(void)turn;
	(void)unused;
	return 0;
}

/* 1: no need to wait any longer, or no use. */
static long wait_look(__u32 turn, struct wait *w)
{
	__u64 before = w->writer->unread, now;

	(void)turn;
	repeat(WAIT_PAUSE, wait_pause, NULL);
	now = bpf_ktime_get_ns();
	if (before > LOOK_ABOVE) {
		w->writer->unread = unread_bound(w->writer, look_at(w->reader));
		if (w->writer->unread < before)
			w->idle = now + WAIT_IDLE;
	}
	if (w->writer->unread <= w->enough && !is_owned(w->reader))
		return 1;
	return now >= w->until || now >= w->idle;
}

/* Waits until no more than `enough` is unread and the reader's lock is free, if that is soon. */
static __always_inline void wait_for_reader(struct sockredir_side *writer,
					    const struct sockredir_side *reader, __u64 enough)
{
	__u64 begin;
	struct wait w;

	if (writer->unread <= enough && !is_owned(reader))
		return;
	/* It was in vain the last times: try once in 2^vain messages. */
	if (writer->vain && (writer->messages & ((1U << writer->vain) - 1)))
		return;
	begin = bpf_ktime_get_ns();
	w = (struct wait){
		.writer = writer,
		.reader = reader,
		.enough = enough,
		.until = begin + WAIT_MOST,
		.idle = begin + WAIT_IDLE,
	};
	repeat(WAIT_LOOKS, wait_look, &w);
	count(SOCKREDIR_WAITED, 0);
	if (writer->unread <= enough && !is_owned(reader))
		writer->vain = 0;
	else if (writer->vain < VAIN_MOST)
		writer->vain++;
}

#endif /* SOCKREDIR_WAIT_H */
