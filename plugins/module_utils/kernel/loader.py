# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads an object file: its variables set, its maps sized or taken from pins, its identity written into it."""

from __future__ import annotations

import errno
import re
from typing import Any, Dict, Mapping, Optional

from ..errors import SockredirError
from . import btf, elf, libbpf, objects
from .map_spec import MapSpec

_DIGEST_BYTES = 72  # "sha256:" and 64 hex digits, and an end
_LOG_BEGIN, _LOG_END = "-- BEGIN PROG LOAD LOG --", "-- END PROG LOAD LOG --"
_FAILED = re.compile(r"prog '([^']+)': BPF program load failed")
_STATISTICS = re.compile(r"^(processed \d+ insns|verification time|stack depth|insns processed)")
_DETAIL_BYTES = 64 * 1024


class Loadable:
    """An object file, opened and adjusted but not loaded; a context manager.

    :param data: bytes, the ELF file.
    :param name: str, begins the names of its .rodata map.
    :param where: str, how to call the file in errors.
    :raises SockredirError: it cannot be loaded by this loader, or not with these settings.
    """

    def __init__(self, data: bytes, name: str, where: str, config: Dict[str, Any], max_entries: Dict[str, Any]) -> None:
        self.where = where
        #: Name -> what the object says of each program.
        self.programs: Dict[str, elf.Program] = {program.name: program for program in elf.programs(data, where)}
        try:
            self._object = libbpf.Object(data, name)
        except libbpf.BpfError as error:
            raise SockredirError(f"libbpf cannot use {where}: {_last(error.detail)}", "", error.detail) from error
        for program in self._object.programs():
            known = self.programs[program.name]
            program.set_type(known.prog_type, known.attach_type)
            program.set_autoload(True)
        self._types = btf.Btf(self._object.btf())
        self._maps = {found.name: found for found in self._object.maps() if not found.internal}
        self._resize(max_entries)
        self._configure(config)
        #: int, the version of its maps' layout; None if it does not say.
        self.layout_version: Optional[int] = self._layout_version()
        #: Name -> what the object wants of each map that is not internal.
        self.maps: Dict[str, MapSpec] = {name: self._spec(found) for name, found in self._maps.items()}

    def stamp(self, digest: str) -> None:
        """Write the identity to a place that the kernel shows; nothing if the object has no place for it."""
        variable = self._variables().get(objects.DIGEST)
        if variable and variable.size >= _DIGEST_BYTES:
            self._write(variable, digest.encode("ascii").ljust(variable.size, b"\0"))

    def load(self, reuse: Mapping[str, libbpf.Descriptor]) -> None:
        """Create its maps, or use existing ones, and load its programs: all, or none stays.

        :param reuse: map name -> an existing map that has no :func:`differences` to the wanted one.
        :raises SockredirError: the verifier's last line, ``detail`` its log.
        """
        for name, descriptor in reuse.items():
            self._maps[name].reuse(descriptor)
        try:
            self._object.load()
        except libbpf.BpfError as error:
            raise _explain(self.where, error) from error

    def program(self, name: str) -> libbpf.ObjectProgram:
        """Of a loaded object: the program of this name."""
        return next(program for program in self._object.programs() if program.name == name)

    def map(self, name: str) -> libbpf.ObjectMap:
        """Of a loaded object: the map of this name."""
        return self._maps[name]

    def close(self) -> None:
        """Let go of it; what is pinned or attached stays."""
        self._object.close()

    def __enter__(self) -> Loadable:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _resize(self, max_entries: Dict[str, Any]) -> None:
        for name, entries in max_entries.items():
            if name not in self._maps:
                raise SockredirError(f"max_entries: {self.where} has no map {name}", f"it has {_list(self._maps)}")
            if not isinstance(entries, int) or isinstance(entries, bool) or not 0 < entries < 1 << 32:
                raise SockredirError(f"max_entries: {name} takes a whole number of at least 1, not {entries!r}")
            self._maps[name].set_max_entries(entries)

    def _configure(self, config: Dict[str, Any]) -> None:
        variables = {name: found for name, found in self._variables().items() if not name.startswith(objects.METADATA)}
        for name, value in config.items():
            if name not in variables:
                raise SockredirError(
                    f"config: {self.where} has no const volatile variable {name}", f"it has {_list(variables)}"
                )
            try:
                self._write(variables[name], self._types.encode(variables[name].type_id, value))
            except ValueError as error:
                raise SockredirError(f"config: {name}: {error}") from error

    def _variables(self) -> Dict[str, btf.Variable]:
        return self._types.variables(objects.RODATA)

    def _rodata(self) -> Optional[libbpf.ObjectMap]:
        found = [one for one in self._object.maps() if one.internal and one.name.endswith(objects.RODATA)]
        return found[0] if found else None

    def _write(self, variable: btf.Variable, value: bytes) -> None:
        rodata = self._rodata()
        if rodata:
            whole = bytearray(rodata.initial_value())
            whole[variable.offset : variable.offset + variable.size] = value
            rodata.set_initial_value(bytes(whole))

    def _layout_version(self) -> Optional[int]:
        rodata = self._rodata()
        found = objects.variables(self._types, rodata.initial_value()) if rodata else {}
        version = found.get(objects.LAYOUT)
        return version if isinstance(version, int) else None

    def _spec(self, found: libbpf.ObjectMap) -> MapSpec:
        ids = {"key": found.key_type_id, "value": found.value_type_id}
        layout = {side: self._types.fields(number) for side, number in ids.items() if number}
        kind = libbpf.map_type_name(found.type)
        return MapSpec(
            kind, found.key_size, found.value_size, found.max_entries, found.flags, layout, self.layout_version
        )


def spec(info: libbpf.MapInfo, layout_version: Optional[int]) -> MapSpec:
    """What an existing map is."""
    kind = libbpf.map_type_name(info.type)
    return MapSpec(
        kind, info.key_size, info.value_size, info.max_entries, info.flags, objects.layout(info), layout_version
    )


def _explain(where: str, error: libbpf.BpfError) -> SockredirError:
    log = _verifier_log(error.detail)
    name = _FAILED.search(error.detail)
    if log and name:
        message = f"the kernel's verifier rejects the program {name[1]} of {where}: {_last(log)}"
        return SockredirError(message, "", log[-_DETAIL_BYTES:])
    cure = error.cure
    if error.errno in (errno.EPERM, errno.EACCES) and not cure:
        cure = "the kernel forbids it even to root: look for lockdown, a container or missing capabilities"
    return SockredirError(f"{where} cannot be loaded: {_last(error.detail) or error.message}", cure, error.detail)


def _verifier_log(detail: str) -> str:
    begin = detail.rfind(_LOG_BEGIN)
    if begin < 0:
        return ""
    return detail[begin + len(_LOG_BEGIN) :].split("libbpf: prog")[0].replace(_LOG_END, "").strip()


def _last(log: str) -> str:
    """The last line that says why: the verifier's statistics come after it."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _STATISTICS.match(line.strip())]
    return lines[-1].replace("libbpf: ", "", 1) if lines else ""


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
