# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl``: the tool on the host. Verbs are in the other files of this package."""

from __future__ import annotations

import argparse
import os
import sys
from typing import List, Optional

from ..errors import SockredirError
from ..operation.restore import NotEnabled
from . import cgroup, change, context, counters, identity, intercepts, learn, ports, status, top, trace, verify

STATE_DIR = "/var/lib/sockredir"

_EPILOG = """\
exit codes: 0 done; 1 the host differs from its manifest (status); 2 wrong usage; 3 an error, in one line on standard
error; 4 not enabled on this host; exec: the program's own, 126 and 127 if it cannot be started.
"""


def main(arguments: Optional[List[str]] = None, state_dir: str = STATE_DIR) -> int:
    """Run one verb.

    :param arguments: without the program's name; the process's own when not given.
    :param state_dir: the default of ``--state-dir``.
    :returns: the exit code.
    """
    options = parser(state_dir).parse_args(arguments)
    try:
        context.require_root(options.verb)
        code = options.run(options)
        sys.stdout.flush()
        return code
    except SockredirError as error:
        context.say(str(error))
        if error.detail and options.verbose:
            sys.stderr.write(f"{error.detail}\n")
        if isinstance(error, NotEnabled):
            return context.NOT_ENABLED
    except BrokenPipeError:
        # The reader is gone; without this, Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        context.say(str(error))
    except KeyboardInterrupt:
        return 130
    return context.FAILED


def parser(state_dir: str = STATE_DIR) -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="sockredirctl",
        description="Inspect, use and control the redirection of local TCP connections on this host.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--state-dir", default=state_dir, metavar="DIR", help="where the manifest is (%(default)s)")
    whole.add_argument("-v", "--verbose", action="store_true", help="after an error, also show the kernel's own log")
    verbs = whole.add_subparsers(metavar="VERB", dest="verb", required=True)
    _looking(verbs)
    _steering(verbs)
    return whole


def _looking(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("status", help="compare the host with its manifest; a line for each difference")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.set_defaults(run=lambda options: status.show(options.state_dir, options.json))

    verb = verbs.add_parser(
        "verify", help="check by real connections that the host does what its mode and its interception rules say"
    )
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.add_argument("--speed", action="store_true", help="also compare plain TCP and redirection, for some seconds")
    verb.set_defaults(run=lambda options: verify.verify(options.state_dir, options.json, options.speed))

    verb = verbs.add_parser("counters", help="show what was redirected, what was not, and why")
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="as JSON")
    form.add_argument("--prometheus", dest="form", action="store_const", const="prometheus", help="as metrics")
    form.add_argument("--textfile", metavar="FILE", help="write the metrics to FILE in one step, and show nothing")
    verb.set_defaults(form="text", run=_counters)

    verb = verbs.add_parser("flows", help="list the connections in the map, a line for each direction")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.add_argument("--limit", type=_count, metavar="N", help="at most N connections")
    verb.set_defaults(run=lambda options: counters.show_flows(options.state_dir, options.json, options.limit))

    verb = verbs.add_parser("ports", help="show which server ports gain, and which do not and why")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.add_argument("--watch", action="store_true", help="repeat at each interval, until Ctrl-C")
    verb.add_argument("--interval", type=_seconds, default=2, metavar="SECONDS", help="for --watch (%(default)s)")
    verb.set_defaults(run=_ports)

    verb = verbs.add_parser("top", help="show a live view by server port: connections, rates, what goes by TCP and why")
    verb.add_argument("-n", "--count", type=_count, metavar="N", help="quit after so many views")
    verb.add_argument(
        "-d", "--interval", type=_seconds, default=2, metavar="SECONDS", help="between views (%(default)s)"
    )
    verb.set_defaults(run=lambda options: top.top(options.state_dir, options.interval, options.count))

    verb = verbs.add_parser("intercepts", help="list the interception rules, and what they have done")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.set_defaults(run=lambda options: intercepts.show(options.state_dir, options.json))

    verb = verbs.add_parser("trace", help="print a line for each socket put in the map, and for what interception does")
    verb.add_argument("--seconds", type=_seconds, metavar="N", help="end after N seconds")
    verb.add_argument("--count", type=_count, metavar="N", help="end after N lines")
    verb.set_defaults(run=lambda options: trace.trace(options.state_dir, options.seconds, options.count))
    _learning(verbs)


def _learning(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("learn", help="find out which ports would gain and which would break; changes nothing")
    verb.add_argument("--seconds", type=_seconds, default=60, metavar="N", help="watch for N seconds (%(default)s)")
    verb.add_argument("--cgroup", metavar="PATH", help="watch only programs in this cgroup, not the whole host")
    verb.add_argument("--source", metavar="FILE", help="learn.bpf.c or learn.bpf.o, if the role has not installed it")
    verb.add_argument("--estimate", action="store_true", help="estimate the gain instead of measuring it on this host")
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="as JSON")
    form.add_argument("--vars", dest="form", action="store_const", const="vars", help="the role's variables, as YAML")
    _waits(verb).set_defaults(
        form="text",
        run=lambda options: learn.learn(options.state_dir, options),
    )


def _steering(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("exec", help="run a program in the accelerated cgroup")
    verb.add_argument("--user", metavar="NAME", help="as this user, with its groups, HOME, SHELL, USER and LOGNAME")
    verb.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD ...", help="the program and its arguments")
    verb.set_defaults(run=_execute)

    verb = verbs.add_parser("mode", help="enforce: redirect; observe: only count; drain: return to TCP")
    verb.add_argument("mode", choices=("enforce", "observe", "drain"))
    _waits(verb).set_defaults(run=lambda options: change.mode(options.state_dir, options.mode, options.wait))

    verb = verbs.add_parser("restore", help="make the host match its manifest; runs at boot")
    _waits(verb).set_defaults(run=lambda options: change.restore(options.state_dir, options.wait))

    verb = verbs.add_parser("rollback", help="return to the state before the last change")
    _waits(verb).set_defaults(run=lambda options: change.rollback(options.state_dir, options.wait))


def _waits(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    text = "how long to wait for another run on this host (%(default)s)"
    verb.add_argument("--wait", type=_seconds, default=60, metavar="SECONDS", help=text)
    return verb


def _execute(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser().error("exec: name a program")
    user = identity.find(options.user) if options.user is not None else None
    cgroup.enter(context.accelerated(context.enabled(options.state_dir)))
    if user:
        identity.become(user)
    return cgroup.execute(command)


def _counters(options: argparse.Namespace) -> int:
    if options.textfile is not None:
        return counters.write_metrics(options.state_dir, options.textfile)
    return counters.show_counters(options.state_dir, options.form)


def _ports(options: argparse.Namespace) -> int:
    if options.watch:
        return ports.watch(options.state_dir, options.json, options.interval)
    return ports.show(options.state_dir, options.json)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
