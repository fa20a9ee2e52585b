/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One event for each socket put in the map, while a trace runs. The watcher keeps moving
 * settings.trace_until ahead: killed, it needs no undoing.
 */
#ifndef SOCKREDIR_TRACE_H
#define SOCKREDIR_TRACE_H

#include "endpoint.h"

static __always_inline void trace(const struct sockredir_settings *s, const struct sockredir_key *self,
				  __u32 op)
{
	struct sockredir_event event = {};
	struct task_struct *task;

	if (!s->trace_until)
		return;
	event.time = bpf_ktime_get_ns();
	if (event.time > s->trace_until)
		return;
	/* The helpers for pid and comm are not there for sock_ops on 6.1. */
	task = (struct task_struct *)bpf_get_current_task();
	event.pid = BPF_CORE_READ(task, pid);
	bpf_core_read(event.comm, sizeof(event.comm), &task->comm);
	event.cpu = bpf_get_smp_processor_id();
	event.op = op;
	event.family = is_v4(&self->local) ? 4 : 6;
	event.local = self->local;
	event.remote = self->remote;
	event.local_port = self->local_port;
	event.remote_port = self->remote_port;
	if (events_send(&event))
		count(SOCKREDIR_EVENT_LOST, 0);
}

#endif /* SOCKREDIR_TRACE_H */
