# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cases, by name, and what each says of its transcript: the same as TCP, or a named kernel limit."""

ALL = ("ipv4", "ipv6", "mapped", "mapped-client")
BOTH = ("ipv4", "ipv6")
ONE = ("ipv4",)


class Limit:
    """A difference from TCP that the kernel imposes on a socket in a sockmap.

    name: as in docs/limits.md.
    differs: {label: what the redirected transcript shows there, or a tuple of what it may show}; every other line is
        the same as TCP's.
    varies: the difference does not show every time, or not on every kernel of the range.
    kernels: (first, last) release prefixes as number tuples, None for open; outside of it the case is the same as TCP.
    """

    def __init__(self, name, differs, varies=False, kernels=(None, None)):
        self.name = name
        self.differs = differs
        self.varies = varies
        self.kernels = kernels

    def applies(self, release):
        """True when ``release``, a tuple of numbers such as (6, 1), lies in the range of kernels."""
        first, last = self.kernels
        return not (first and release[: len(first)] < first) and not (last and release[: len(last)] > last)


class Case:
    """One program to run on both paths."""

    def __init__(self, function, families, options):
        self.function = function
        self.name = function.__name__
        self.group = function.__module__.rsplit(".", 1)[-1]
        self.families = families
        self.limit = options.pop("limit", None)
        #: Least number of messages that must go redirected, else the run proves nothing. None: any number will do.
        self.redirects = options.pop("redirects", 1)
        #: Seconds after which the case counts as hung.
        self.bound = options.pop("bound", 40)
        #: Returns why this host cannot run the case, or None.
        self.needs = options.pop("needs", None)
        #: Runs in every state of states.py, too. False where the case changes modes itself, or is about the map's size.
        self.in_states = options.pop("in_states", "load" not in options)
        #: Arguments (map sizes, settings) for programs loaded apart for this case; not on an installed host.
        self.load = options.pop("load", None)
        if options:
            raise TypeError(f"unknown options of a case: {sorted(options)}")

    @property
    def title(self):
        """First line of the case's description."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def keys(self):
        """The names of this case's runs: group.name[family]."""
        return [f"{self.group}.{self.name}[{family}]" for family in self.families]


CASES = {}


def case(families=ONE, **options):
    """Register the decorated ``function(net, log)`` as a case."""

    def register(function):
        if function.__name__ in CASES:
            raise ValueError(f"two cases are named {function.__name__}")
        CASES[function.__name__] = Case(function, families, options)
        return function

    return register


def differences(plain, redirected):
    """Return [(label, plain value, redirected value)] where two transcripts differ; None stands for a missing line."""
    first, second = dict(map(tuple, plain)), dict(map(tuple, redirected))
    labels = [label for label, _value in plain] + [label for label, _value in redirected if label not in first]
    found = [(label, first.get(label), second.get(label)) for label in labels if first.get(label) != second.get(label)]
    if not found and [label for label, _value in plain] != [label for label, _value in redirected]:
        found = [("order of events", [label for label, _value in plain], [label for label, _value in redirected])]
    return found


def judge(limit, release, plain, redirected, must_show=True):
    """Return what is wrong about the two transcripts as a list of lines; an empty list when nothing is.

    must_show: a limit that does not show is wrong, too.
    """
    found = differences(plain, redirected)
    expected = limit.differs if limit is not None and limit.applies(release) else {}
    wrong = []
    for label, tcp, ours in found:
        allowed = expected.get(label)
        if label not in expected or ours not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            wrong.append(f"{label}: TCP gives {tcp!r}, redirected {ours!r}")
    differing = {label for label, _tcp, _ours in found}
    if must_show and expected and not limit.varies and not wrong:
        for label in sorted(set(expected) - differing):
            wrong.append(f"limit {limit.name} no longer shows at {label!r}: narrow or remove it")
    return wrong
