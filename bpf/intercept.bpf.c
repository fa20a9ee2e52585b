// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Interception: connections of some programs go to a local proxy, without iptables and conntrack.
 *
 * `connect4/6` send a connection to the proxy and remember where it wanted to go. `claims` takes
 * that from the client's socket to the one that the proxy accepts. `getsockopt` tells the proxy,
 * as iptables would, and `getpeername4/6` tell the client that it is where it wanted to be.
 * `sendmsg4/6` and `recvmsg4/6` do the same for questions to name servers.
 *
 * All of them are attached to the programs' cgroups and to the proxies': the rules say who is who.
 */
#ifdef __BCC__
#error "interception is for clang alone: BCC cannot tell its programs' places apart; use compiler: clang"
#endif

#include "intercept.h"

#define OBJECT_LAYOUT INTERCEPT_LAYOUT
#include "dialect/libbpf.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM  2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

/* Atomics that return the old value: kernels have them since 5.12, clang 14 unless told not. */
#pragma clang attribute push(__attribute__((target("arch=v3"))), apply_to = function)

#include "intercept_rules.h"
#include "intercept_connect.h"
#include "intercept_claim.h"
#include "intercept_inbound.h"
#include "intercept_answer.h"
#include "intercept_dns.h"

#pragma clang attribute pop
