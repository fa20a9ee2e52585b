/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SOCKBENCH_H
#define SOCKBENCH_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#define READ_SIZE (128 << 10)

enum pattern { RR, STREAM, CRR, FEED };

/* What a client says first. FEED: the server sends SIZE bytes at a time until the client goes. */
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

struct endpoint parse_endpoint(const char *text);
int new_socket(const struct endpoint *e);
int new_listener(const struct endpoint *e);
int dial(const struct endpoint *e);
void send_at_once(const struct endpoint *e, int fd);
ssize_t receive(int fd, void *buf, size_t size);
bool read_all(int fd, void *buf, size_t size);
bool write_all(int fd, const void *buf, size_t size);
void *allocate(size_t size);
double now(void);

/* One thread and epoll for all connections, until killed. */
int serve_loop(const struct endpoint *e);

#endif
