// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * sockbench: a client and a server for a few patterns of traffic, over TCP or Unix sockets.
 *
 *   sockbench serve ENDPOINT                     until killed; prints "serving"
 *   sockbench rr ENDPOINT SIZE SECONDS [CONNS]   request and reply of SIZE bytes, one at a time
 *                                                on each of CONNS connections
 *   sockbench stream ENDPOINT SIZE SECONDS       one way, SIZE bytes a send
 *   sockbench crr ENDPOINT SIZE SECONDS          connect, request, reply, close by the server
 *
 * ENDPOINT: tcp:ADDRESS:PORT (IPv4, or IPv6 in brackets) or unix:PATH.
 * The client prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1000
#define MAX_SAMPLES	(4 << 20)
#define READ_SIZE	(128 << 10)

enum pattern { RR, STREAM, CRR };

/* What a client says first. */
struct hello {
	uint32_t pattern;
	uint32_t size;
};

struct endpoint {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_un local;
	};
	socklen_t len;
};

static struct endpoint parse_tcp(const char *text)
{
	struct endpoint e = {0};
	char host[64];
	const char *colon = strrchr(text, ':');
	int port;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		errx(2, "not ADDRESS:PORT: %s", text);
	memcpy(host, text, colon - text);
	host[colon - text] = 0;
	port = atoi(colon + 1);
	if (host[0] == '[') {
		host[strlen(host) - 1] = 0;
		e.v6.sin6_family = AF_INET6;
		e.v6.sin6_port = htons(port);
		e.len = sizeof(e.v6);
		if (inet_pton(AF_INET6, host + 1, &e.v6.sin6_addr) != 1)
			errx(2, "not an IPv6 address: %s", host + 1);
	} else {
		e.v4.sin_family = AF_INET;
		e.v4.sin_port = htons(port);
		e.len = sizeof(e.v4);
		if (inet_pton(AF_INET, host, &e.v4.sin_addr) != 1)
			errx(2, "not an IPv4 address: %s", host);
	}
	return e;
}

static struct endpoint parse_endpoint(const char *text)
{
	struct endpoint e = {0};

	if (!strncmp(text, "tcp:", 4))
		return parse_tcp(text + 4);
	if (strncmp(text, "unix:", 5) || strlen(text + 5) >= sizeof(e.local.sun_path))
		errx(2, "not tcp:ADDRESS:PORT or unix:PATH: %s", text);
	e.local.sun_family = AF_UNIX;
	strcpy(e.local.sun_path, text + 5);
	e.len = sizeof(e.local);
	return e;
}

static int new_socket(const struct endpoint *e)
{
	int one = 1;
	int fd = socket(e->any.sa_family, SOCK_STREAM, 0);

	if (fd < 0)
		err(1, "socket");
	if (e->any.sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return fd;
}

static int dial(const struct endpoint *e)
{
	int fd = new_socket(e);

	if (connect(fd, &e->any, e->len))
		err(1, "connect");
	return fd;
}

/* As programs that ask and wait for answers have it; one-way streams have TCP as it comes. */
static void send_at_once(const struct endpoint *e, int fd)
{
	int one = 1;

	if (e->any.sa_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* A recv that waits in the plain pair's map says EAGAIN when anything but data wakes it, such as an
 * acknowledged FIN. */
static ssize_t receive(int fd, void *buf, size_t size)
{
	ssize_t n;

	do
		n = recv(fd, buf, size, 0);
	while (n < 0 && errno == EAGAIN);
	return n;
}

/* All of it; false at the end of the stream or when the connection is gone. */
static bool read_all(int fd, void *buf, size_t size)
{
	for (size_t got = 0; got < size;) {
		ssize_t n = receive(fd, (char *)buf + got, size - got);

		if (n <= 0)
			return false;
		got += n;
	}
	return true;
}

static bool write_all(int fd, const void *buf, size_t size)
{
	for (size_t put = 0; put < size;) {
		ssize_t n = send(fd, (const char *)buf + put, size - put, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		put += n;
	}
	return true;
}

static void *allocate(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		err(1, "memory");
	return p;
}

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
	int fd, listener = new_socket(e);
	pthread_attr_t attr;
	pthread_t thread;

	if (e->any.sa_family == AF_UNIX)
		unlink(e->local.sun_path);
	if (bind(listener, &e->any, e->len) || listen(listener, 4096))
		err(1, "bind or listen");
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	puts("serving");
	fflush(stdout);
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

	if (pattern != STREAM)
		send_at_once(e, fd);
	if (!write_all(fd, &hello, sizeof(hello)))
		err(1, "send");
	return fd;
}

/* Durations in microseconds. */
struct samples {
	float *us;
	size_t n;
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
	printf("{\"rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"requests\": %llu}\n", done / seconds,
	       s->us[s->n / 2], s->us[s->n * 99 / 100], (unsigned long long)done);
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

int main(int argc, char **argv)
{
	struct samples s = {0};
	struct endpoint e;
	int connections;
	uint32_t size;
	double seconds;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		e = parse_endpoint(argv[2]);
		return serve(&e);
	}
	if (argc < 5)
		errx(2, "usage: serve ENDPOINT | rr|stream|crr ENDPOINT SIZE SECONDS [CONNS]");
	e = parse_endpoint(argv[2]);
	size = strtoul(argv[3], NULL, 0);
	seconds = atof(argv[4]);
	connections = argc > 5 ? atoi(argv[5]) : 1;
	if (!size || size > 64 << 20 || seconds <= 0 || connections < 1 || connections > MAX_CONNECTIONS)
		errx(2, "size, seconds or connections out of range");
	s.us = allocate(MAX_SAMPLES * sizeof(*s.us));
	if (!strcmp(argv[1], "stream"))
		stream(&e, size, seconds);
	else if (!strcmp(argv[1], "crr"))
		crr(&e, size, seconds, &s);
	else if (!strcmp(argv[1], "rr") && connections == 1)
		rr_one(&e, size, seconds, &s);
	else if (!strcmp(argv[1], "rr"))
		rr_many(&e, size, seconds, connections, &s);
	else
		errx(2, "no such pattern: %s", argv[1]);
	return 0;
}
