# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The redirection that cases run against: loaded by this suite for itself, or the one installed on the host.

The project's own library does the work: from the checkout, or as installed on the host.
"""

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import struct
import sys

LIBRARY_INSTALLED = "/usr/local/lib/sockredir"
PIN_DIR = "/sys/fs/bpf/sockredir"

_FIRST = struct.pack("=I", 0)

#: Ports are used again by cases that have nothing to do with one another: nothing is learned of them.
_UNLEARNED = {"leave_after": 0}

#: Where in the settings the budget is: behind version, size, mode and flags.
_BUDGET_AT = 16


def library(name):
    """A module of the project's library, such as ``kernel.libbpf``."""
    if "sockredir" not in sys.modules:
        root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
        package = os.path.join(root, "plugins", "module_utils")
        if os.path.isdir(package):
            _alias("sockredir", package)
        else:
            sys.path.insert(0, LIBRARY_INSTALLED)
    return importlib.import_module("sockredir." + name)


def _alias(name, directory):
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


@functools.lru_cache(maxsize=None)
def _receives():
    """Whether this kernel keeps its account right with ``receive`` attached; the role leaves it out elsewhere, too."""
    return library("kernel.queues").one_queue().ok


class Maps:
    """The maps of a loaded pair, as the suite looks at them."""

    def __init__(self, open_map):
        self._peers, self._flows = open_map("peers"), open_map("flows")
        self._counters, self._settings, self._pressure = (
            open_map("counters"),
            open_map("settings"),
            open_map("pressure"),
        )
        self._layout = library("datapath.layout")
        self._value = library("datapath.settings_value")

    def counters(self):
        """Events by reason."""
        counts = [self._counters.lookup(struct.pack("=I", index)) for index in range(self._layout.REASONS_SIZE)]
        named = self._layout.name_counters(self._layout.sum_counter(raw) for raw in counts)
        return {name: count.events for name, count in named.items()}

    def entries(self):
        """Entries of both maps, and bytes charged that nobody holds any more count as one."""
        flows = len(list(self._flows.keys()))
        peers = len(list(self._peers.keys()))
        charged = self._layout.decode_pressure(self._pressure.lookup(_FIRST)).used
        return flows + peers + int(charged > 0 and flows == 0)

    def records(self):
        """The flow records, decoded: [(owners, Flow)]; bit 0 or 1 of owners: that side has not gone."""
        raw = [self._flows.lookup(key) for key in list(self._flows.keys())]
        return [(value[0] & 3, self._layout.decode_flow(value)) for value in raw if value]

    def settings(self, **changes):
        """Change some settings, as sockredirctl does it."""
        current = self._settings.lookup(_FIRST)
        wanted = self._value.Settings() if self._value.is_unset(current) else self._value.decode_settings(current)
        for value in self._value.change_steps(current, wanted._replace(**changes)):
            self._settings.update(_FIRST, value)

    def force(self, mode="enforce", budget=None, **changes):
        """Write settings, with defaults for what is not named; a budget that no tool would take, if need be."""
        wanted = self._value.Settings(mode=self._value.Mode[mode.upper()], **{**_UNLEARNED, **changes})
        for value in self._value.change_steps(self._settings.lookup(_FIRST), wanted):
            if budget is not None:
                value = value[:_BUDGET_AT] + struct.pack("=Q", budget) + value[_BUDGET_AT + 8 :]
            self._settings.update(_FIRST, value)

    def flow(self, namespace, one_port, other_port):
        """The record of the connection between two ports of the network namespace with that cookie, or None."""
        for raw in list(self._flows.keys()):
            key = self._layout.decode_key(raw)
            if key.netns == namespace and {key.local_port, key.remote_port} == {one_port, other_port}:
                value = self._flows.lookup(raw)
                return value and self._layout.decode_flow(value)
        return None

    def mode(self, name):
        """Switch to enforce, observe or drain."""
        self.settings(mode=self._value.Mode[name.upper()])

    def close(self):
        """Close the maps."""
        for held in (self._peers, self._flows, self._counters, self._settings, self._pressure):
            held.close()


class Loaded:
    """Programs loaded from an object file and attached to a cgroup of its own, until closed."""

    can_load = True

    def __init__(self, data, parent, name="redirected", max_entries=None, settings=None):
        self._data, self._parent, self._name = data, parent, name
        self._children = 0
        self._libbpf = libbpf = library("kernel.libbpf")
        self._loaded = library("kernel.loader").Loadable(data, "conformance", "the object", {}, max_entries or {})
        self._loaded.load({})
        self.maps = Maps(lambda which: libbpf.Map(libbpf.Fd(os.dup(self._loaded.map(which).fileno()))))
        self.maps.settings(**{**_UNLEARNED, **(settings or {})})
        self._attach_to_map({"verdict": libbpf.ATTACH_SK_MSG_VERDICT})
        if _receives():
            self._attach_to_map({"receive": libbpf.ATTACH_SK_SKB_STREAM_VERDICT})
        self.cgroup = os.path.join(parent, name)
        os.makedirs(self.cgroup)
        self._link = None
        self._attach()

    def _attach_to_map(self, types):
        for name, attach_type in types.items():
            if name in self._loaded.programs:
                self._libbpf.attach(self._loaded.program(name), self._loaded.map("peers"), attach_type)

    def _attach(self):
        number = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._link = self._libbpf.create_link(
                self._loaded.program("sockops"), number, self._libbpf.ATTACH_CGROUP_SOCK_OPS
            )
        finally:
            os.close(number)

    def _detach(self):
        self._libbpf.detach_link(self._link)  # the cases' processes have copies of the descriptor
        self._link.close()

    def operate(self, request):
        """Do what a case asks the operator for."""
        if request == "attach":
            self._attach()
        elif request == "detach":
            self._detach()
        elif request.startswith("mode "):
            self.maps.mode(request[5:])
        elif request.startswith("settings "):
            self.maps.force(**json.loads(request[9:]))
        else:
            raise ValueError(f"unknown request: {request}")

    @contextlib.contextmanager
    def apart(self, **arguments):
        """Another pair, loaded with other sizes or settings."""
        self._children += 1
        other = Loaded(self._data, self._parent, f"{self._name}-{self._children}", **arguments)
        try:
            yield other
        finally:
            other.close()

    def close(self):
        """Detach and unload."""
        self._detach()
        self.maps.close()
        self._loaded.close()
        os.rmdir(self.cgroup)


class Installed:
    """What `./run enable` left on this host. ``cgroup``: the accelerated cgroup's directory."""

    can_load = False

    def __init__(self, cgroup, pin_dir=PIN_DIR):
        libbpf = library("kernel.libbpf")
        self.cgroup = cgroup
        self.maps = Maps(lambda which: libbpf.Map.open_pin(os.path.join(pin_dir, which)))

    def operate(self, request):
        """Do what a case asks the operator for."""
        if not request.startswith("mode "):
            raise ValueError(f"not on an installed host: {request}")
        self.maps.mode(request[5:])

    def close(self):
        """Close the maps; nothing else was changed."""
        self.maps.close()


def cgroup2_mount():
    """Where cgroup2 is mounted."""
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            left, _dash, right = line.partition(" - ")
            if right.split()[0] == "cgroup2":
                return left.split()[4]
    raise RuntimeError("no cgroup2 is mounted")


def compiled():
    """The object file of this checkout's bpf/, compiled by the project's own code."""
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
    source = os.path.join(root, "bpf", "sockredir.bpf.c")
    return library("compile.compilers").compile_clang(source, {}).data


@contextlib.contextmanager
def own(data):
    """Load ``data`` for this run alone. Yields (cgroup directory of plain TCP, Loaded)."""
    base = os.path.join(cgroup2_mount(), f"sockredir-conformance-{os.getpid()}")
    plain = os.path.join(base, "plain")
    os.makedirs(plain)
    try:
        loaded = Loaded(data, base)
        try:
            yield plain, loaded
        finally:
            loaded.close()
    finally:
        os.rmdir(plain)
        os.rmdir(base)


@contextlib.contextmanager
def installed(cgroup):
    """Use what is installed; ``cgroup`` as the role has it. Yields (cgroup directory of plain TCP, Installed)."""
    mount = cgroup2_mount()
    accelerated = os.path.normpath(os.path.join(mount, cgroup.lstrip("/") if not cgroup.startswith(mount) else cgroup))
    if accelerated == mount:
        raise RuntimeError("the whole host is accelerated: there is no plain TCP to compare with; give a slice")
    plain = os.path.join(mount, f"sockredir-conformance-{os.getpid()}")
    os.makedirs(plain)
    try:
        redirection = Installed(accelerated)
        try:
            yield plain, redirection
        finally:
            redirection.close()
    finally:
        os.rmdir(plain)
