// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * sockbench: a client and a server for a few patterns of traffic, over TCP or Unix sockets.
 *
 *   sockbench serve ENDPOINT                     until killed; prints "serving"
 *   sockbench loop ENDPOINT                      the same with one thread and epoll, for pings
 *   sockbench rr ENDPOINT SIZE SECONDS [CONNS]   request and reply of SIZE bytes, one at a time
 *                                                on each of CONNS connections
 *   sockbench stream ENDPOINT SIZE SECONDS       one way, SIZE bytes a send
 *   sockbench threaded ENDPOINT SIZE SECONDS     the same by a process with a second, idle thread
 *   sockbench crr ENDPOINT SIZE SECONDS          connect, request, reply, close by the server
 *   sockbench pings ENDPOINT SIZE SECONDS        rr with a server that streams meanwhile, 256 KiB
 *                                                a send, to a reader that pauses 2 ms per 2 MB
 *   sockbench spin                               burn a CPU until whoever started it has ended
 *
 * ENDPOINT: tcp:ADDRESS:PORT (IPv4, or IPv6 in brackets) or unix:PATH.
 * The client prints one line of JSON.
 */
#define _GNU_SOURCE
#include "sockbench.h"
#include <err.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1000
#define MAX_SAMPLES	(4 << 20)
#define FEED_SIZE	(256 << 10)
#define PAUSE_BYTES	2000000
#define PAUSE_US	2000

static void serve_replies(int fd, const struct hello *hello)
{
	char *buf = allocate(hello->size);

	while (read_all(fd, buf, hello->size) && write_all(fd, buf, hello->size))
		if (hello->pattern == CRR)
			break;
	free(buf);
}

static void serve_stream(int fd)
{
	char *buf = allocate(READ_SIZE);
	uint64_t total = 0;
	ssize_t n;

	while ((n = receive(fd, buf, READ_SIZE)) > 0)
		total += n;
	write_all(fd, &total, sizeof(total));
	free(buf);
}

static void *serve_one(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct hello hello;

	if (read_all(fd, &hello, sizeof(hello))) {
		if (hello.pattern == STREAM)
			serve_stream(fd);
		else
			serve_replies(fd, &hello);
	}
	close(fd);
	return NULL;
}

static int serve(const struct endpoint *e)
{
	int fd, listener = new_listener(e);
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (;;) {
		fd = accept(listener, NULL, NULL);
		if (fd < 0)
			err(1, "accept");
		send_at_once(e, fd);
		if (pthread_create(&thread, &attr, serve_one, (void *)(intptr_t)fd))
			errx(1, "no thread for a connection");
	}
}

static int start(const struct endpoint *e, enum pattern pattern, uint32_t size)
{
	struct hello hello = {pattern, size};
	int fd = dial(e);

	if (pattern != STREAM && pattern != FEED)
		send_at_once(e, fd);
	if (!write_all(fd, &hello, sizeof(hello)))
		err(1, "send");
	return fd;
}

/* Durations in microseconds, and the bytes that a slow reader got meanwhile. */
struct samples {
	float *us;
	size_t n;
	atomic_ullong fed;
};

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void sample(struct samples *s, double seconds)
{
	if (s->n < MAX_SAMPLES)
		s->us[s->n++] = seconds * 1e6;
}

static void report(struct samples *s, uint64_t done, double seconds)
{
	if (!s->n)
		errx(1, "no request was answered");
	qsort(s->us, s->n, sizeof(*s->us), by_value);
	printf("{\"rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"requests\": %llu, "
	       "\"fed_mbytes_per_second\": %.1f}\n",
	       done / seconds, s->us[s->n / 2], s->us[s->n * 99 / 100], (unsigned long long)done,
	       s->fed / seconds / 1e6);
}

static void rr_one(const struct endpoint *e, uint32_t size, double seconds, struct samples *s)
{
	char *buf = allocate(size);
	int fd = start(e, RR, size);
	double begin = now(), t = begin, u;
	uint64_t done = 0;

	for (; t < begin + seconds; t = u, done++) {
		if (!write_all(fd, buf, size) || !read_all(fd, buf, size))
			err(1, "request");
		u = now();
		sample(s, u - t);
	}
	report(s, done, t - begin);
}

struct feeding {
	int fd;
	struct samples *s;
};

static void *read_slowly(void *arg)
{
	struct feeding *f = arg;
	char *buf = allocate(READ_SIZE);
	size_t until_pause = PAUSE_BYTES;
	ssize_t n;

	while ((n = receive(f->fd, buf, until_pause < READ_SIZE ? until_pause : READ_SIZE)) > 0) {
		f->s->fed += n;
		until_pause -= n;
		if (!until_pause) {
			usleep(PAUSE_US);
			until_pause = PAUSE_BYTES;
		}
	}
	errx(1, "the stream has ended");
}

static void pings(const struct endpoint *e, uint32_t size, double seconds, struct samples *s)
{
	struct feeding f = {start(e, FEED, FEED_SIZE), s};
	pthread_t reader;

	if (pthread_create(&reader, NULL, read_slowly, &f))
		errx(1, "no thread for the slow reader");
	rr_one(e, size, seconds, s);
}

static void rr_many(const struct endpoint *e, uint32_t size, double seconds, int connections,
		    struct samples *s)
{
	static double sent[MAX_CONNECTIONS];
	static int fds[MAX_CONNECTIONS];
	struct epoll_event events[64], event = {.events = EPOLLIN};
	char *buf = allocate(size);
	int poller = epoll_create1(0);
	double begin, t;
	uint64_t done = 0;

	for (int i = 0; i < connections; i++) {
		fds[i] = start(e, RR, size);
		event.data.u32 = i;
		if (epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event))
			err(1, "epoll");
	}
	begin = t = now();
	for (int i = 0; i < connections; i++) {
		sent[i] = now();
		write_all(fds[i], buf, size);
	}
	while (t < begin + seconds) {
		int n = epoll_wait(poller, events, 64, 1000);

		if (n <= 0)
			errx(1, "no reply for a second");
		for (int j = 0; j < n; j++) {
			int i = events[j].data.u32;

			if (!read_all(fds[i], buf, size))
				err(1, "reply");
			t = now();
			sample(s, t - sent[i]);
			done++;
			sent[i] = t;
			if (!write_all(fds[i], buf, size))
				err(1, "request");
		}
	}
	report(s, done, t - begin);
}

static void crr(const struct endpoint *e, uint32_t size, double seconds, struct samples *s)
{
	char *buf = allocate(size + sizeof(struct hello));
	struct hello hello = {CRR, size};
	double begin = now(), t = begin, u;
	uint64_t done = 0;
	char end;
	int fd;

	memcpy(buf, &hello, sizeof(hello));
	for (; t < begin + seconds; t = u, done++) {
		fd = dial(e);
		if (!write_all(fd, buf, sizeof(hello) + size) || !read_all(fd, buf + sizeof(hello), size) ||
		    receive(fd, &end, 1) != 0)
			err(1, "request");
		close(fd);
		u = now();
		sample(s, u - t);
	}
	report(s, done, t - begin);
}

/* The clock stops when the server says that it has read everything. */
static void stream(const struct endpoint *e, uint32_t size, double seconds)
{
	char *buf = allocate(size);
	int fd = start(e, STREAM, size);
	double begin = now(), t = begin;
	uint64_t sent = 0, got;

	for (int i = 0; t < begin + seconds; i++) {
		if (!write_all(fd, buf, size))
			err(1, "send");
		sent += size;
		if (i % 16 == 0)
			t = now();
	}
	if (shutdown(fd, SHUT_WR) || !read_all(fd, &got, sizeof(got)))
		err(1, "end of stream");
	t = now();
	if (got != sent)
		errx(1, "%llu bytes sent, %llu arrived", (unsigned long long)sent, (unsigned long long)got);
	printf("{\"mbytes_per_second\": %.1f, \"bytes\": %llu}\n", got / (t - begin) / 1e6,
	       (unsigned long long)got);
}

static void *idle(void *unused)
{
	while (pause())
		;
	return unused;
}

/* To the kernel, any of its threads may use the socket. */
static void threaded(const struct endpoint *e, uint32_t size, double seconds)
{
	pthread_t other;

	if (pthread_create(&other, NULL, idle, NULL))
		errx(1, "no second thread");
	stream(e, size, seconds);
}

/* Its parent's end ends it. */
static int spin(void)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		err(1, "prctl");
	for (volatile unsigned long turns = 0;; turns++)
		;
}

static int client(const char *pattern, const struct endpoint *e, uint32_t size, double seconds,
		  int connections)
{
	struct samples s = {.us = allocate(MAX_SAMPLES * sizeof(*s.us))};

	if (!strcmp(pattern, "stream"))
		stream(e, size, seconds);
	else if (!strcmp(pattern, "threaded"))
		threaded(e, size, seconds);
	else if (!strcmp(pattern, "crr"))
		crr(e, size, seconds, &s);
	else if (!strcmp(pattern, "pings"))
		pings(e, size, seconds, &s);
	else if (!strcmp(pattern, "rr") && connections == 1)
		rr_one(e, size, seconds, &s);
	else if (!strcmp(pattern, "rr"))
		rr_many(e, size, seconds, connections, &s);
	else
		errx(2, "no such pattern: %s", pattern);
	fflush(stdout);
	/* Without waiting for a slow reader. */
	_exit(0);
}

int main(int argc, char **argv)
{
	struct endpoint e;
	int connections;
	uint32_t size;
	double seconds;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "spin"))
		return spin();
	if (argc < 3)
		errx(2, "usage: see the head of sockbench.c");
	e = parse_endpoint(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(&e);
	if (argc == 3 && !strcmp(argv[1], "loop"))
		return serve_loop(&e);
	if (argc < 5)
		errx(2, "usage: rr|stream|threaded|crr|pings ENDPOINT SIZE SECONDS [CONNS]");
	size = strtoul(argv[3], NULL, 0);
	seconds = atof(argv[4]);
	connections = argc > 5 ? atoi(argv[5]) : 1;
	if (!size || size > 64 << 20 || seconds <= 0 || connections < 1 || connections > MAX_CONNECTIONS)
		errx(2, "size, seconds or connections out of range");
	return client(argv[1], &e, size, seconds, connections);
}
