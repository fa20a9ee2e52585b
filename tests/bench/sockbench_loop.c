// SPDX-License-Identifier: GPL-3.0-or-later
/* A server of one thread: it streams to whoever wants to be fed, and answers the requests of others
 * meanwhile. */
#define _GNU_SOURCE
#include "sockbench.h"
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_SIZE (1 << 20)

struct visitor {
	int fd;
	struct hello hello;
	uint32_t got; /* of the request that is being read */
};

static char buffer[MAX_SIZE];

static bool again(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* As much as there is room for. What the stream consists of does not matter. */
static bool feed(struct visitor *v)
{
	return send(v->fd, buffer, v->hello.size, MSG_DONTWAIT | MSG_NOSIGNAL) > 0 || again();
}

static bool answer(struct visitor *v)
{
	ssize_t n = recv(v->fd, buffer, v->hello.size - v->got, MSG_DONTWAIT);

	if (n <= 0)
		return n < 0 && again();
	v->got += n;
	if (v->got < v->hello.size)
		return true;
	v->got = 0;
	return write_all(v->fd, buffer, v->hello.size);
}

/* Whoever comes says at once what he wants, so there is no waiting for it. */
static void admit(const struct endpoint *e, int poller, int fd)
{
	struct visitor *v = allocate(sizeof(*v));
	struct epoll_event event = {.data.ptr = v};

	v->fd = fd;
	if (!read_all(fd, &v->hello, sizeof(v->hello)) || !v->hello.size || v->hello.size > MAX_SIZE) {
		close(fd);
		free(v);
		return;
	}
	if (v->hello.pattern != FEED)
		send_at_once(e, fd);
	event.events = v->hello.pattern == FEED ? EPOLLOUT : EPOLLIN;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll");
}

static void attend(struct visitor *v)
{
	if (v->hello.pattern == FEED ? feed(v) : answer(v))
		return;
	close(v->fd);
	free(v);
}

int serve_loop(const struct endpoint *e)
{
	struct epoll_event events[64], event = {.events = EPOLLIN};
	int listener = new_listener(e), poller = epoll_create1(0);

	if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event))
		err(1, "epoll");
	for (;;) {
		int n = epoll_wait(poller, events, 64, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				attend(events[i].data.ptr);
			else
				admit(e, poller, accept(listener, NULL, NULL));
		}
	}
}
