/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PAIR_BCC_H
#define PAIR_BCC_H

struct pair_key {
	u32 port;
};

struct pair_flow {
	u64 messages;
};

#endif
