# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set interception rules: observe, plan, apply for ``sockredir_intercept``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from ...change import journal
from ...change.step import Plan
from ...change.transaction import Handler, Watch, apply
from ...datapath import intercept_rules
from ...host import systemd
from ...kernel import objects
from ...state import lock, manifest
from . import apply as handlers
from . import placing, services
from . import plan as planning
from .known import Given, accelerated, lacks
from .observe import observe, recorded, relative, to_layout, unlisted

Rule = Dict[str, Any]


class Options(NamedTuple):
    """What is asked for.

    :ivar cgroup: the accelerated cgroup, as the operator names it; with it, check mode refuses a cgroup that does not
        exist and that nothing known makes, and a service that systemd does not know. Else any may be missing then.
    :ivar restart: whether services that no rule names any more may be restarted.
    :ivar proxies_only: whether only the proxies are to be put into their slices; then no rule changes.
    :ivar commit: whether this makes the change final.
    """

    rules: Sequence[Rule]
    pin_dir: str
    state_dir: str
    cgroup: Optional[str] = None
    unit_dir: str = systemd.UNIT_DIR
    restart: bool = False
    proxies_only: bool = False
    commit: bool = True


class Result(NamedTuple):
    """:ivar rules: the rules in their canonical form.
    :ivar waiting: services that leave their slice at their next start.
    """

    steps: Plan
    rules: List[Rule]
    waiting: List[str]


def ensure(
    options: Options, check: bool = False, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS
) -> Result:
    """Put exactly these rules in force; live connections stay where they are.

    :param check: change nothing, say what a run would do.
    :raises SockredirError: a rule makes no sense or cannot work here; the host is as it was.
    """
    objects.need_root()
    if check:
        return _Work(options, True).result()
    with journal.change("intercept") as done, lock.hold(options.state_dir, wait_seconds):
        work = _Work(options, False)
        apply(work.steps, work.handlers, watch)
        done(work.steps)
    return work.result()


class _Work:
    """The plan, part by part, and what carries it out."""

    def __init__(self, options: Options, check: bool) -> None:
        self.options, self.check = options, check
        document = manifest.known(options.state_dir)
        self.below = accelerated(options.cgroup, document)
        placed = placing.placed([relative(rule) for rule in options.rules], self.below)
        slices = tuple(placing.slices(placed))
        self.services = services.Wanted(options.unit_dir, placing.below(self.below), slices, options.restart, check)
        self.seen = services.observe(self.services)
        self.rules = self._normal(placed, document)
        self.observed = observe(options.pin_dir, document)
        self.steps: Plan = []
        self.handlers: Dict[str, Handler] = {}
        self._plan()

    def _normal(self, placed: List[Rule], document: Optional[manifest.Manifest]) -> List[Rule]:
        strict = not self.check or self.options.cgroup is not None
        host = Given(document, self.below, self.check or self.options.proxies_only, strict)

        def wrong(rule: Rule) -> List[str]:
            found = placing.wrong(rule, placed, self.below)
            return found + lacks(rule, host) + (services.lacks(rule, self.seen) if strict else [])

        return intercept_rules.normal(placed, recorded(document), wrong)

    def _plan(self) -> None:
        for part in services.proxies(self.services, self.seen, self.rules):
            self._part(part.steps, handlers.part(part.wanted))
        if self.options.proxies_only:
            self._record(None, services.recorded(self._proxies()))
            return
        if not self.check:
            planning.refuse(self.rules, self.observed)
        pin_dir, rules = self.options.pin_dir, to_layout(self.rules, self.check)
        told = planning.steps(self.rules, rules, self.observed, unlisted(pin_dir, rules))
        self._part(told, {"settings": handlers.write(pin_dir), "enlist": handlers.enlist(pin_dir)})
        for part in services.apps(self.services, self.seen):
            self._part(part.steps, handlers.part(part.wanted))
        self._record(self.rules, services.recorded(self.services))

    def _proxies(self) -> services.Wanted:
        return self.services._replace(slices=tuple(each for each in self.services.slices if each.proxy))

    def _record(self, rules: Optional[List[Rule]], files: Dict[str, str]) -> None:
        """:param rules: None: nothing but the files changes, and nothing is final yet."""
        if rules is None:
            files = {**self.observed.files, **files}
        commit = rules is not None and self.options.commit
        record = handlers.Record(rules, files, commit)
        observed = self.observed if commit else self.observed._replace(committed=True)
        steps = planning.record(observed.recorded if rules is None else rules, files, observed)
        self._part(steps, {"record": handlers.record(self.options.state_dir, self.options.pin_dir, record)})

    def _part(self, steps: Plan, own: Dict[str, Handler]) -> None:
        prefix = f"{len(self.handlers)} "
        self.handlers.update({prefix + verb: handler for verb, handler in own.items()})
        self.steps += [replace(step, verb=prefix + step.verb) for step in steps]

    def result(self) -> Result:
        return Result(self.steps, self.rules, services.waiting(self.services, self.seen))
