/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Patterns that redirection does not pay for.
 *
 * One-way runs of small messages are TCP's: it coalesces them, a redirect wakes the reader for
 * each. So are long ones of sendfile(), whose pages TCP sends without a copy. A direction with such a
 * run goes to TCP for good, and the opposite one is barred from redirecting, so that the socket can
 * leave the map and costs nothing from then on.
 */
#ifndef SOCKREDIR_DEMOTION_H
#define SOCKREDIR_DEMOTION_H

#include "policy.h"
#include "reader.h"

/* A run after which nobody is expected to read on the sending socket: see leave.h. */
#define RUN_LONG 4096

/* Will the direction stay on TCP, having met this? */
static __always_inline bool for_good(const struct sockredir_side *own)
{
	switch (own->state) {
	case SOCKREDIR_UNDECIDED:
	case SOCKREDIR_REDIRECTED:
		return false;
	case SOCKREDIR_AHEAD:
	case SOCKREDIR_BEHIND:
	case SOCKREDIR_OVER_BUDGET:
		return !own->way_back;
	}
	return true;
}

/*
 * Does this message come from sendfile()? The pipe that the kernel keeps for a thread's calls of it
 * holds something only while such a call hands it on.
 */
static __always_inline bool sends_file(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct pipe_inode_info *pipe = BPF_CORE_READ(task, splice_pipe);

	return pipe && BPF_CORE_READ(pipe, head) != BPF_CORE_READ(pipe, tail);
}

/*
 * What a message adds to the run. sendfile's come in pieces of 64 KiB: where a stream of that size is
 * better redirected, so is a file of some pieces; a long one is not, since TCP does not copy it.
 */
static __always_inline __u32 run_weight(const struct sockredir_settings *s, __u32 size)
{
	bool small = size < s->demote_below;

	if (unlikely(sends_file()))
		return small ? s->demote_after / 4 + 1 : 1;
	return small;
}

/* On TCP for good, the run goes on being counted: for leave.h, and no further than it asks. */
static __always_inline void run_on(struct sockredir_side *own, const struct sockredir_side *peer)
{
	__u16 heard = *(volatile __u32 *)&peer->messages;

	if (heard != own->heard)
		own->run = 0;
	else if (own->run < RUN_LONG)
		own->run++;
	own->heard = heard;
}

/*
 * Notes a message; true when the run has become too long. Whether the peer has sent meanwhile is
 * read at the end of a run, not at each message: its CPU writes there.
 */
static __always_inline bool overrun(const struct sockredir_settings *s, struct sockredir_side *own,
				    const struct sockredir_side *peer, __u32 size)
{
	__u32 weight = s->demote_below ? run_weight(s, size) : 0;
	__u16 heard;

	/* By TCP for the moment: no evidence of what redirection is worth. */
	if (own->way_back && own->state > SOCKREDIR_REDIRECTED) {
		if (own->state == SOCKREDIR_DEMOTED)
			run_on(own, peer);
		return false;
	}
	if (!weight) {
		own->run = 0;
		return false;
	}
	if (likely(own->run < s->demote_after && own->run + weight < 0xffff)) {
		own->run += weight;
		return false;
	}
	heard = *(volatile __u32 *)&peer->messages;
	if (heard == own->heard)
		return true;
	own->heard = heard;
	own->run = weight;
	return false;
}

/*
 * May a direction turn to TCP for no reason but speed? Not while a thread waits in recv on the
 * sending socket, or soon may, having left bytes unread: once its writer blocks on TCP, room in
 * the send buffer wakes that recv too, which then returns EAGAIN.
 */
static __always_inline bool may_demote(const struct tcp_sock *tp, struct sockredir_side *own)
{
	if (look_at(own).look == LOOK_EMPTY && !has_sleeper(as_sock(tp)))
		return true;
	own->run = 0; /* ask again after as many messages */
	return false;
}

static __always_inline void bar(struct sockredir_side *side)
{
	if (!(side->flags & SOCKREDIR_SIDE_BARRED))
		__sync_fetch_and_or(&side->flags, SOCKREDIR_SIDE_BARRED);
}

#endif /* SOCKREDIR_DEMOTION_H */
