/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* In which parts of the time there was traffic, and how long answers took. */
#ifndef SOCKREDIR_LEARN_TIME_H
#define SOCKREDIR_LEARN_TIME_H

#include "learn.h"
#include "learn_kernel.h"

/* How long there was traffic between two programs of this host, by the server's port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u16);
	__type(value, struct learn_activity);
} activity SEC(".maps");

/* Which window of watching this is: user space looks away now and then, and counts up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} window SEC(".maps");

/* Two sockets may count the same tick once more than they should; of thousands that does no harm. */
static __always_inline void note_activity(struct learn_socket *record)
{
	__u64 now = bpf_jiffies64();
	struct learn_activity *there, fresh = {.last = now, .ticks = 1};

	if (record->tick == now || !record->key.local)
		return;
	record->tick = now;
	there = bpf_map_lookup_elem(&activity, &record->key.port);
	if (!there) {
		bpf_map_update_elem(&activity, &record->key.port, &fresh, BPF_NOEXIST);
	} else if (there->last != now) {
		there->last = now;
		__sync_fetch_and_add(&there->ticks, 1);
	}
}

#define ALWAYS_TIMED 16
#define SELDOM_TIMED 31

static __always_inline __u32 current_window(void)
{
	__u32 zero = 0, *now = bpf_map_lookup_elem(&window, &zero);

	return now ? *now : 0;
}

/* A question is asked, or an answer given: of some the time is taken until all of the reply is there. */
static __always_inline void begin_turn(struct learn_socket *record)
{
	struct learn_counts *counts = &record->counts;

	record->received = 0;
	counts->answers++;
	if (record->asked && record->heard && record->window == current_window()) {
		counts->reply_ns += record->heard - record->asked;
		counts->replies++;
	}
	record->asked = record->heard = 0;
	if (counts->answers < ALWAYS_TIMED || !(counts->answers & SELDOM_TIMED)) {
		record->asked = bpf_ktime_get_ns();
		record->window = current_window();
	}
}

#endif /* SOCKREDIR_LEARN_TIME_H */
