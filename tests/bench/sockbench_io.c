// SPDX-License-Identifier: GPL-3.0-or-later
/* Endpoints, and reading and writing all of something. */
#define _GNU_SOURCE
#include "sockbench.h"
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

struct endpoint parse_endpoint(const char *text)
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

int new_socket(const struct endpoint *e)
{
	int one = 1;
	int fd = socket(e->any.sa_family, SOCK_STREAM, 0);

	if (fd < 0)
		err(1, "socket");
	if (e->any.sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return fd;
}

/* Says that it is there. */
int new_listener(const struct endpoint *e)
{
	int fd = new_socket(e);

	if (e->any.sa_family == AF_UNIX)
		unlink(e->local.sun_path);
	if (bind(fd, &e->any, e->len) || listen(fd, 4096))
		err(1, "bind or listen");
	puts("serving");
	fflush(stdout);
	return fd;
}

int dial(const struct endpoint *e)
{
	int fd = new_socket(e);

	if (connect(fd, &e->any, e->len))
		err(1, "connect");
	return fd;
}

/* As programs that ask and wait for answers have it; one-way streams have TCP as it comes. */
void send_at_once(const struct endpoint *e, int fd)
{
	int one = 1;

	if (e->any.sa_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* A recv that waits in the plain pair's map says EAGAIN when anything but data wakes it, such as an
 * acknowledged FIN. */
ssize_t receive(int fd, void *buf, size_t size)
{
	ssize_t n;

	do
		n = recv(fd, buf, size, 0);
	while (n < 0 && errno == EAGAIN);
	return n;
}

/* All of it; false at the end of the stream or when the connection is gone. */
bool read_all(int fd, void *buf, size_t size)
{
	for (size_t got = 0; got < size;) {
		ssize_t n = receive(fd, (char *)buf + got, size - got);

		if (n <= 0)
			return false;
		got += n;
	}
	return true;
}

bool write_all(int fd, const void *buf, size_t size)
{
	for (size_t put = 0; put < size;) {
		ssize_t n = send(fd, (const char *)buf + put, size - put, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		put += n;
	}
	return true;
}

void *allocate(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		err(1, "memory");
	return p;
}
