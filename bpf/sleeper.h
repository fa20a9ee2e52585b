/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Threads asleep on a socket. Whoever includes this has included a dialect of C before.
 */
#ifndef SOCKREDIR_SLEEPER_H
#define SOCKREDIR_SLEEPER_H

#define WAITERS_LOOKED_AT 4
#define STACK_MOST	  (64ULL << 10)

/* Is this a thread asleep, not a poll or epoll? Such a one keeps its entry on its own stack. */
static __always_inline bool is_sleeper(const struct wait_queue_entry *entry)
{
	struct task_struct *task = BPF_CORE_READ(entry, private);

	return (__u64)entry - (__u64)BPF_CORE_READ(task, stack) < STACK_MOST;
}

/* Does a thread sleep in a call on the socket of this queue, such as recv? The queue is only probed. */
static __always_inline bool queue_has_sleeper(struct socket_wq *wq)
{
	struct list_head *head = __builtin_preserve_access_index(&wq->wait.head);
	struct list_head *at = BPF_CORE_READ(head, next);
	__u64 offset = bpf_core_field_offset(struct wait_queue_entry, entry);

	for (int i = 0; i < WAITERS_LOOKED_AT && at && at != head; i++) {
		if (is_sleeper((void *)at - offset))
			return true;
		at = BPF_CORE_READ(at, next);
	}
	return false;
}

#endif /* SOCKREDIR_SLEEPER_H */
