// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * sink PORT FILE: puts what comes on a connection into the file, by splice alone, and answers with a byte
 * at its end. One connection at a time, until it is killed; one on which nothing came changes nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define AT_ONCE (64 << 10)

static int listening(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8))
		err(1, "port %d", port);
	return fd;
}

static void move(int from, int to, int pipes[2])
{
	ssize_t got = splice(from, NULL, pipes[1], NULL, AT_ONCE, SPLICE_F_MOVE);

	for (; got > 0; got = splice(from, NULL, pipes[1], NULL, AT_ONCE, SPLICE_F_MOVE)) {
		while (got > 0) {
			ssize_t put = splice(pipes[0], NULL, to, NULL, got, SPLICE_F_MOVE);

			if (put <= 0)
				err(1, "splice to the file");
			got -= put;
		}
	}
}

int main(int argc, char **argv)
{
	int listener, pipes[2];

	if (argc != 3 || pipe(pipes))
		errx(1, "sink PORT FILE");
	listener = listening(atoi(argv[1]));
	for (;;) {
		int connection = accept(listener, NULL, NULL);
		int file = open(argv[2], O_WRONLY | O_CREAT, 0644);

		if (connection < 0 || file < 0)
			err(1, "a connection");
		move(connection, file, pipes);
		if (write(connection, "!", 1) != 1)
			warnx("the peer is gone");
		close(file);
		close(connection);
	}
}
