/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A direction on TCP comes back to redirection when TCP has delivered all it has (order.h). A writer
 * that never pauses always has megabytes in its send buffer, and would not come back.
 *
 * So while its reader reads on (acknowledgements come, with the window open), the send buffer takes
 * no more than one message that TCP has not sent yet (TCP_NOTSENT_LOWAT): the writer sleeps until it
 * is sent, and finds everything delivered. With a window that is closed the reader has stopped, and
 * the buffer is as large as ever: a writer may put as much there as on plain TCP.
 *
 * A socket whose program has set that limit itself is left alone.
 */
#ifndef SOCKREDIR_COMEBACK_H
#define SOCKREDIR_COMEBACK_H

#include "demotion.h"

#define TCP_NOTSENT_LOWAT 25
#define LOWAT_OURS	  1

/* In the send buffer: a writer that never pauses. */
#define MUCH_TO_SEND (128U << 10)

/* On TCP for the moment. */
static __always_inline bool is_away(const struct sockredir_side *own)
{
	return own->state > SOCKREDIR_REDIRECTED && !for_good(own);
}

/*
 * Is the reader's window open? The callback for a segment comes before TCP has looked at it, that
 * for an acknowledgement afterwards.
 */
static __always_inline bool window_is_open(struct bpf_sock_ops *ctx, const struct tcp_sock *tp)
{
	const struct tcphdr *tcp = ctx->skb_data;

	if (ctx->op == BPF_SOCK_OPS_RTT_CB)
		return tp->snd_wnd;
	return (const void *)(tcp + 1) <= ctx->skb_data_end && tcp->window;
}

/* Short sends show where io_uring's continue at the wrong byte (see shows_turning()). */
static __always_inline void spare_uring(struct sockredir_side *own)
{
	if (unlikely(is_away(own)) && uses_uring())
		own->way_back = SOCKREDIR_WAY_BACK_UNAIDED;
}

/*
 * Setting the limit wakes any thread that sleeps on the socket. That is right for a writer that
 * waits for room, and makes a recv say EAGAIN.
 */
static __always_inline bool wakes_a_reader(const struct tcp_sock *tp)
{
	struct sock *sk = as_sock(tp);

	return has_sleeper(sk) && !(BPF_CORE_READ(sk, sk_socket, flags) & 1UL << SOCK_NOSPACE);
}

/* Once helped, it is helped until all is delivered. */
static __always_inline bool needs_help(struct bpf_sock_ops *ctx, const struct tcp_sock *tp,
				       const struct sockredir_side *own)
{
	__u32 left = tp->write_seq - tp->snd_una;
	bool much = left > (tp->notsent_lowat ? 0 : MUCH_TO_SEND);

	return is_away(own) && own->way_back == SOCKREDIR_WAY_BACK && much && window_is_open(ctx, tp);
}

static __always_inline void limit_unsent(struct bpf_sock_ops *ctx, const struct tcp_sock *tp,
					 const struct sockredir_side *own)
{
	__u32 lowat = needs_help(ctx, tp, own) ? LOWAT_OURS : 0;

	if ((tp->notsent_lowat == 0 || tp->notsent_lowat == LOWAT_OURS) && tp->notsent_lowat != lowat &&
	    !wakes_a_reader(tp))
		bpf_setsockopt(ctx, SOL_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
}

#endif /* SOCKREDIR_COMEBACK_H */
