/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What happens to connections, one record for each event, while a trace runs. The watcher keeps
 * moving the moment ahead at which it ends: killed, it needs no undoing.
 */
#ifndef SOCKREDIR_INTERCEPT_TRACE_H
#define SOCKREDIR_INTERCEPT_TRACE_H

#include "intercept_maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INTERCEPT_TRACE);
	__type(key, __u32);
	__type(value, __u64);
} intercept_trace SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} intercept_ring SEC(".maps");

struct task_struct {
	int pid;
	char comm[16];
} __kernel_struct;

/* The time is asked only if somebody watches, or did. */
static __always_inline bool is_traced(__u64 *now)
{
	__u32 key = INTERCEPT_TRACE_UNTIL;
	const __u64 *until = bpf_map_lookup_elem(&intercept_trace, &key);

	if (!until || !*until)
		return false;
	*now = bpf_ktime_get_ns();
	return *now <= *until;
}

static __always_inline void untold(void)
{
	__u32 key = INTERCEPT_TRACE_LOST;
	__u64 *lost = bpf_map_lookup_elem(&intercept_trace, &key);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

/* `client` is NULL if it has no address yet. */
static __always_inline void tell(__u32 slot, enum intercept_event event, const struct intercept_end *client,
				 const struct intercept_end *to, const struct intercept_end *asked)
{
	struct intercept_record *record;
	struct task_struct *task;
	__u64 now;

	if (!is_traced(&now))
		return;
	record = bpf_ringbuf_reserve(&intercept_ring, sizeof(*record), 0);
	if (!record) {
		untold();
		return;
	}
	task = (struct task_struct *)bpf_get_current_task();
	record->time = now;
	record->cpu = bpf_get_smp_processor_id();
	record->pid = BPF_CORE_READ(task, pid);
	bpf_core_read(record->comm, sizeof(record->comm), &task->comm);
	record->slot = slot;
	record->event = event;
	record->client = client ? *client : (struct intercept_end){};
	record->to = *to;
	record->asked = *asked;
	record->zero = 0;
	bpf_ringbuf_submit(record, 0);
}

/* It is counted, and told if somebody watches. */
static __always_inline void happens(__u32 slot, enum intercept_event event,
				    const struct intercept_end *client, const struct intercept_end *to,
				    const struct intercept_end *asked)
{
	tally(slot, event);
	tell(slot, event, client, to, asked);
}

#endif /* SOCKREDIR_INTERCEPT_TRACE_H */
