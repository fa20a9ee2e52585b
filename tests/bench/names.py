# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the things compared are called, in tables and files. The place in SUBJECTS decides their ports."""

TCP, PLAIN, OURS, UNIX, OBSERVE = "TCP", "plain pair", "sockredir", "Unix sockets", "observe"
#: How a connection comes to a local proxy; compared too: a proxy whose configuration names its server.
REDIRECT, EXPLICIT, INTERCEPTED, ACCELERATED = "iptables REDIRECT", "explicit", "intercepted", "intercepted, redirected"
SUBJECTS = (TCP, PLAIN, OURS, UNIX, OBSERVE, REDIRECT, EXPLICIT, INTERCEPTED, ACCELERATED)
#: What sockredir is judged by besides TCP: the better of these two.
LIMITS = (PLAIN, UNIX)
HIGHER, LOWER = "higher", "lower"
