/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A message that a socket in the map sends by TCP is handed to TCP in pieces, as it was copied: a new
 * one begins every 32 KiB. Where a segment can be longer than that (lo's are 64 KiB), the first piece
 * goes as a short segment, and Nagle's algorithm keeps the rest until that is acknowledged, which a
 * reader who waits for the rest before it answers does late, after 40 ms. On plain TCP the message
 * is one segment.
 *
 * So the first segment's worth of such a message is made one piece. It costs a copy, and matters only
 * if nothing else is on its way and the rest alone does not fill a segment: that goes at once, and is
 * acknowledged at once.
 */
#ifndef SOCKREDIR_PIECE_H
#define SOCKREDIR_PIECE_H

#define MOST_IN_A_SEGMENT (64U << 10)

static __always_inline void in_one_piece(struct sk_msg_md *msg, const struct tcp_sock *tp, __u32 size)
{
	/* Nothing is to be seen of pages that are not copied (sendfile). */
	__u32 first = msg->data_end - msg->data;

	if (!first || first >= size || first >= tp->mss_cache || size - first >= tp->mss_cache ||
	    tp->snd_una != tp->write_seq)
		return;
	bpf_msg_pull_data(msg, 0, size < MOST_IN_A_SEGMENT ? size : MOST_IN_A_SEGMENT, 0);
}

#endif /* SOCKREDIR_PIECE_H */
