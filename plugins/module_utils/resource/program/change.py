# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load and pin an object's programs and maps, or take them away: observe, plan and apply for ``sockmap_program``."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ... import atomic_file as files
from ...change.step import Plan, Step
from ...change.transaction import Handler, Watch, apply
from ...compile import compilers
from ...errors import SockredirError
from ...host import mounts
from ...kernel import elf, hooks, libbpf, objects
from ...kernel.loader import Loadable, spec
from ...state import lock, manifest, store
from ..snapshot import Snapshot
from . import plan as decide

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_SOCKET_MAPS = (libbpf.MAP_TYPE_SOCKMAP, libbpf.MAP_TYPE_SOCKHASH)


class Request(NamedTuple):
    """What is asked for; the options of ``sockmap_program``.

    :ivar src: a C file or an object on this host.
    :ivar config: ``const volatile`` variable -> value.
    :ivar max_entries: map -> number of entries.
    :ivar checksum: sha256 that ``src`` must have, 64 hex digits, ``sha256:`` before them or not; empty for any.
    :ivar recreate: whether pinned maps that do not fit may be replaced.
    """

    name: str
    pin_dir: str
    state_dir: str
    src: str = ""
    compiler: str = compilers.AUTO
    defines: Dict[str, Any] = {}
    config: Dict[str, Any] = {}
    max_entries: Dict[str, Any] = {}
    checksum: str = ""
    recreate: bool = False


class Result(NamedTuple):
    """What came of it.

    :ivar plan: the steps that were done, or would be.
    :ivar programs: name -> ``id``, ``type``, ``tag``, ``pin``; id and tag None where only a run would tell.
    :ivar maps: name -> ``id``, ``type``, ``pin``.
    :ivar draining: programs that live connections still use: ``name``, ``program_id``, ``since``.
    :ivar notes: what could not be known, or what the compiler said.
    """

    plan: Plan
    programs: Dict[str, Dict[str, Any]] = {}
    maps: Dict[str, Dict[str, Any]] = {}
    digest: Optional[str] = None
    compiler: Optional[str] = None
    object: Optional[str] = None
    draining: Tuple[Dict[str, Any], ...] = ()
    notes: Tuple[str, ...] = ()


class _Object(NamedTuple):
    data: bytes
    compiler: str
    source_digest: str
    notes: Tuple[str, ...] = ()


class NotYet(SockredirError):
    """Check mode cannot know more: an earlier task of the same play has only pretended."""


def present(
    request: Request,
    check: bool = False,
    watch: Optional[Watch] = None,
    wait_seconds: float = lock.WAIT_SECONDS,
) -> Result:
    """Have the object loaded and its programs and maps pinned.

    :param check: change nothing, say what a run would do.
    :param watch: see :func:`...change.transaction.apply`.
    :param wait_seconds: how long to wait for another run on this host.
    :raises SockredirError: it cannot be; the host is as it was.
    """
    objects.need_root()
    _check_names(request)
    try:
        with _turn(request.state_dir, check, wait_seconds):
            host = Snapshot(request.state_dir)
            _check_pin_dir(request.pin_dir, check, host)
            return _load(request, _obtain(request, check, host), check, watch, host)
    except (NotYet, compilers.Missing, libbpf.Missing) as unknown:
        if not check:
            raise
        return _pretended(request, str(unknown))


def _turn(state_dir: str, check: bool, wait_seconds: float) -> ContextManager[None]:
    return contextlib.nullcontext() if check else lock.hold(state_dir, wait_seconds)


@contextlib.contextmanager
def planned(name: str, document: manifest.Manifest, host: Snapshot) -> Iterator[Tuple[Plan, Dict[str, Handler]]]:
    """What it takes to load and pin what a manifest names, from the stored object: no compiler, no source.

    A pinned map that does not fit is replaced. The handlers are good while the context lasts.

    :param document: the manifest with the wish; what is there is told from that of the host.
    :raises SockredirError: the object is damaged, or something foreign is in the way.
    """
    entry = document["programs"][name]
    pin_dir = os.path.dirname(min(entry["pins"].values()))
    kept = {key: entry[key] for key in ("src", "compiler", "defines", "config", "max_entries")}
    request = Request(name, pin_dir, host.state_dir, recreate=True, **kept)
    running = os.uname().release
    if entry.get("kernel") not in (None, running):
        raise SockredirError(
            f"bcc compiled the programs of {name} for the kernel {entry['kernel']}, this is {running}",
            "run the role again: it compiles them for this kernel",
        )
    data = store.get(host.state_dir, entry["object_sha256"])
    with _planned(request, _Object(data, entry["compiler"], entry["source_digest"]), host) as (_wanted, plan, work):
        yield plan, work.handlers()


def removal(name: str, document: Optional[manifest.Manifest], state_dir: str) -> Tuple[Plan, Dict[str, Handler]]:
    """What it takes to have nothing of this name pinned or recorded, once it is detached.

    :param document: the manifest that knows it.
    """
    entry = _entry(document, name)
    if entry is None:
        return [], {}
    pin_dir = os.path.dirname(min(entry["pins"].values()))
    return decide.absent(name, pin_dir, _observe(entry, pin_dir, document, name)), _Work(state_dir).handlers()


def absent(
    name: str,
    pin_dir: str,
    state_dir: str,
    check: bool = False,
    watch: Optional[Watch] = None,
    wait_seconds: float = lock.WAIT_SECONDS,
) -> Result:
    """Have nothing of this name pinned or recorded. Live connections finish on what they have.

    :raises SockredirError: a program is still attached.
    """
    objects.need_root()
    with _turn(state_dir, check, wait_seconds):
        return _remove(name, pin_dir, state_dir, check, watch)


def _remove(name: str, pin_dir: str, state_dir: str, check: bool, watch: Optional[Watch]) -> Result:
    document = manifest.known(state_dir)
    entry = _entry(document, name)
    if entry is None:
        return Result([], draining=draining(document))
    observed = _observe(entry, pin_dir, document, name)
    observed = observed._replace(attached=_attached(observed.pins.values(), document))
    notes: Tuple[str, ...] = ()
    if check and observed.attached:  # an earlier task of the same play may have pretended to detach it
        notes = (f"{name} is attached to {', '.join(observed.attached)}: detach it before removing it",)
        observed = observed._replace(attached=())
    plan = decide.absent(name, pin_dir, observed)
    if not check:
        apply(plan, _Work(state_dir).handlers(), watch)
        _drop_objects(state_dir)
    return Result(plan, draining=draining(manifest.known(state_dir)), notes=notes)


def draining(document: Optional[manifest.Manifest]) -> Tuple[Dict[str, Any], ...]:
    """The replaced or removed programs that live connections still use."""
    if not document or not document["draining"] or not manifest.ids_valid(document):
        return ()
    return tuple(_alive(document["draining"]))


def _alive(entries: Iterable[Dict[str, Any]]) -> List[Dict[str, Any]]:
    entries = list(entries)
    alive = objects.alive([entry["program_id"] for entry in entries])
    return [entry for entry in entries if entry["program_id"] in alive]


# --- what is wanted ---


def _check_names(request: Request) -> None:
    if not _NAME.fullmatch(request.name):
        raise SockredirError(f"name: {request.name!r} is not made of up to 32 letters, digits, - and _")
    if request.checksum and not _SHA256.fullmatch(request.checksum):
        raise SockredirError(f"checksum: {request.checksum!r} is not a sha256: 64 hex digits")


def _check_pin_dir(pin_dir: str, check: bool, host: Snapshot) -> None:
    """:raises SockredirError: pins cannot be there."""
    if not os.path.isabs(pin_dir):
        raise SockredirError(f"pin_dir: {pin_dir} is not an absolute path")
    bpffs = mounts.bpffs_holding(pin_dir, host.mounts)
    if not bpffs:
        if check and (not os.path.exists(pin_dir) or not os.listdir(pin_dir)):
            raise NotYet(f"no bpffs is mounted for {pin_dir} yet")
        other = mounts.holding(os.path.realpath(pin_dir), host.mounts)
        raise SockredirError(
            f"pin_dir: {pin_dir} is not on a bpffs but on {other.fstype if other else 'nothing'}",
            "use a directory below /sys/fs/bpf, or mount a bpffs with bpffs_pin state=mounted",
        )
    if "." in os.path.realpath(pin_dir)[len(bpffs.point) :]:
        raise SockredirError(f"pin_dir: {pin_dir} has a dot in a name, which a bpffs refuses")


def _obtain(request: Request, check: bool, host: Snapshot) -> _Object:
    """The object: stored by an earlier run of the same source, taken as it is, or compiled now."""
    if not request.src:
        raise SockredirError("src: a C file or an object is needed with state=present")
    if check and not os.path.exists(request.src):
        raise NotYet(f"{request.src} is not there yet")
    data = compilers.read(request.src)
    _verify(request, data)
    if elf.is_elf(data):
        return _Object(data, compilers.OBJECT, store.sha256(data))
    if b"\0" in data[:4096]:
        raise SockredirError(f"src: {request.src} is neither C nor an ELF file")
    return _stored(request, host) or _compile(request)


def _verify(request: Request, data: bytes) -> None:
    wanted = _SHA256.fullmatch(request.checksum)
    if wanted and store.sha256(data) != wanted[1]:
        raise SockredirError(
            f"checksum: {request.src} has the sha256 {store.sha256(data)}, not {wanted[1]}",
            "look where the file comes from; if it is right, correct the checksum",
        )


def _stored(request: Request, host: Snapshot) -> Optional[_Object]:
    entry = _entry(host.document, request.name)
    if not entry or entry["compiler"] == compilers.OBJECT:
        return None
    if request.compiler not in (compilers.AUTO, entry["compiler"]):
        return None
    digest = compilers.source_digest(request.src, _macros(request, entry["compiler"]), entry["compiler"])
    if digest != entry["source_digest"]:
        return None
    try:
        return _Object(store.get(request.state_dir, entry["object_sha256"]), entry["compiler"], digest)
    except SockredirError:  # gone or damaged: compile again
        return None


def _compile(request: Request) -> _Object:
    compiler = compilers.choose(request.compiler)
    digest = compilers.source_digest(request.src, _macros(request, compiler), compiler)
    compiled = compilers.compile_source(request.src, _macros(request, compiler), compiler)
    return _Object(compiled.data, compiler, digest, (compiled.warnings,) if compiled.warnings else ())


def _macros(request: Request, compiler: str) -> Dict[str, Any]:
    """BCC has no ``const volatile`` variables: there the configuration is compiled in."""
    return {**request.defines, **request.config} if compiler == compilers.BCC else request.defines


def _wanted(request: Request, found: _Object, loadable: Loadable) -> decide.Wanted:
    sha256 = store.sha256(found.data)
    types = {name: (program.prog_type, program.attach_type) for name, program in loadable.programs.items()}
    entry = {
        "object_sha256": sha256,
        "source_digest": found.source_digest,
        "digest": decide.digest(sha256, types, request.config, request.max_entries),
        "compiler": found.compiler,
        "kernel": compilers.kernel_of(found.compiler),
        "src": request.src,
        "defines": request.defines,
        "config": request.config,
        "max_entries": request.max_entries,
        "layout_version": loadable.layout_version,
        "pins": {name: decide.pin_path(request.pin_dir, name) for name in loadable.programs},
        "map_pins": {name: decide.pin_path(request.pin_dir, name) for name in loadable.maps},
    }
    return decide.Wanted(request.name, request.pin_dir, entry, types, loadable.maps, request.recreate)


# --- what is there ---


def _entry(document: Optional[manifest.Manifest], name: str) -> Optional[Dict[str, Any]]:
    """The program's section; without ids where they are of another boot."""
    entry = ((document or {}).get("programs") or {}).get(name)
    if entry and not manifest.ids_valid(document or {}):
        return dict(entry, program_ids={}, program_tags={}, map_ids={})
    return entry


def _observe(
    entry: Optional[Dict[str, Any]],
    pin_dir: str,
    document: Optional[manifest.Manifest],
    name: str,
    programs: Iterable[str] = (),
    maps: Iterable[str] = (),
) -> decide.Observed:
    recorded = decide.recorded_pins(entry or {})
    wanted = [decide.pin_path(pin_dir, one) for one in [*programs, *maps]]
    pins = {path: _known(pin, entry) for path in dict.fromkeys(wanted + recorded) for pin in [objects.at(path)] if pin}
    pinned = {path: pin.map for path, pin in pins.items() if pin.map}
    loaded = [pin.program for pin in pins.values() if pin.program and pin.program.digest]
    layout = next((one.layout for one in loaded if one.layout is not None), (entry or {}).get("layout_version"))
    names = _listing(pin_dir)
    leftovers = tuple(path for path in names if path.endswith(decide.TEMPORARY) and _stem(path) in wanted + recorded)
    running = _running(loaded, entry, [*maps] or list((entry or {}).get("map_pins", {})))
    return decide.Observed(
        pin_dir_exists=os.path.isdir(pin_dir),
        pins=pins,
        maps={path: decide.HostMap(info.id, spec(info, layout)) for path, info in pinned.items()},
        running={one: decide.HostMap(info.id, spec(info, layout)) for one, info in running.items()},
        entry=entry,
        same_boot=bool(document and manifest.ids_valid(document)),
        taken=_taken(document, name),
        leftovers=leftovers,
        others=tuple(path for path in names if path not in pins and path not in leftovers),
    )


def _known(pin: objects.Pin, entry: Optional[Dict[str, Any]]) -> objects.Pin:
    """A program that has no place for our mark is known by its id."""
    recorded = (entry or {}).get("program_ids", {}).values()
    if pin.program and pin.program.digest is None and pin.id in recorded:
        return pin._replace(object=pin.program._replace(digest=(entry or {}).get("digest")))
    return pin


def _stem(path: str) -> str:
    return path[: -len(decide.TEMPORARY)]


def _listing(pin_dir: str) -> List[str]:
    try:
        return [os.path.join(pin_dir, name) for name in sorted(os.listdir(pin_dir))]
    except FileNotFoundError:
        return []


def _running(
    loaded: List[objects.Program], entry: Optional[Dict[str, Any]], names: List[str]
) -> Dict[str, libbpf.MapInfo]:
    """The maps behind our loaded programs, by name; the recorded ones where the programs do not use them themselves."""
    used = [number for program in loaded for number in program.map_ids]
    infos = {info.name: info for number in used for info in [_map_info(number)] if info}
    found = {name: infos[_short(name)] for name in names if _short(name) in infos}
    for name, number in ((entry or {}).get("map_ids") or {}).items():
        info = None if name in found else _map_info(number)
        if info and name in names:
            found[name] = info
    return found


def _short(name: str) -> str:
    return name[:15]  # BPF_OBJ_NAME_LEN, less the end


def _map_info(number: int) -> Optional[libbpf.MapInfo]:
    try:
        with libbpf.map_by_id(number) as descriptor:
            return libbpf.map_info(descriptor)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _taken(document: Optional[manifest.Manifest], name: str) -> Dict[str, str]:
    others = {other: entry for other, entry in ((document or {}).get("programs") or {}).items() if other != name}
    return {
        path: other
        for other, entry in others.items()
        for key in ("pins", "map_pins")
        for path in entry.get(key, {}).values()
    }


def _attached(pins: Iterable[objects.Pin], document: Optional[manifest.Manifest]) -> Tuple[str, ...]:
    """To what these pins' programs are attached: by links, to these pins' maps, and to cgroups as the manifest says."""
    pins = list(pins)
    programs = {pin.id for pin in pins if pin.kind == "program"}
    found = [f"link {info.id}" for info in _links() if info.program_id in programs and not _is_dead(info)]
    for pin in pins:
        if pin.map and pin.map.type in _SOCKET_MAPS and programs & set(_map_programs(pin.id)):
            found.append(f"the map {pin.path}")
    for attachment in (document or {}).get("attachments", []):
        cgroup = attachment.get("cgroup")
        if attachment.get("method") == "legacy" and cgroup and programs & set(_cgroup_programs(cgroup)):
            found.append(cgroup)
    return tuple(found)


def _is_dead(info: libbpf.LinkInfo) -> bool:
    """Whether the link's cgroup has gone: it holds its program, but that does not run."""
    return info.type == libbpf.LINK_TYPE_CGROUP and info.cgroup_id == 0


def _links() -> List[libbpf.LinkInfo]:
    found = []
    for number in libbpf.link_ids():
        try:
            with libbpf.link_by_id(number) as descriptor:
                found.append(libbpf.link_info(descriptor))
        except libbpf.BpfError as error:
            if error.errno != errno.ENOENT:
                raise
    return found


def _map_programs(map_id: int) -> List[int]:
    try:
        with libbpf.map_by_id(map_id) as descriptor:
            return _queried(descriptor, hooks.MAP)
    except libbpf.BpfError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):  # gone; a kernel before 5.18 cannot say
            return []
        raise


def _cgroup_programs(cgroup: str) -> List[int]:
    try:
        number = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone, and its attachments with it
        return []
    with libbpf.Fd(number) as descriptor:
        return _queried(descriptor, hooks.CGROUP)


def _queried(target: libbpf.Descriptor, kind: str) -> List[int]:
    """The programs at every hook of a cgroup or map."""
    found = [libbpf.query(target, hook.attach_type).program_ids for hook in hooks.of_kind(kind)]
    return [number for one in found for number in one]


# --- doing it ---


def _load(request: Request, found: _Object, check: bool, watch: Optional[Watch], host: Snapshot) -> Result:
    with _planned(request, found, host) as (wanted, plan, work):
        if not check:
            apply(plan, work.handlers(), watch)
            _drop_objects(request.state_dir)
            host.refresh()
    programs, maps = _described(wanted, request.pin_dir)
    return Result(
        plan,
        programs,
        maps,
        wanted.entry["digest"],
        found.compiler,
        store.path(request.state_dir, wanted.entry["object_sha256"]),
        draining(host.document),
        found.notes,
    )


@contextlib.contextmanager
def _planned(request: Request, found: _Object, host: Snapshot) -> Iterator[Tuple[decide.Wanted, Plan, _Work]]:
    where = request.src if found.compiler != compilers.OBJECT or os.path.exists(request.src) else request.name
    config = {} if found.compiler == compilers.BCC else request.config
    with Loadable(found.data, request.name, where, config, request.max_entries) as loadable:
        wanted = _wanted(request, found, loadable)
        loadable.stamp(wanted.entry["digest"])
        document = host.document
        observed = _observe(
            _entry(document, request.name), request.pin_dir, document, request.name, wanted.programs, wanted.maps
        )
        observed = observed._replace(
            stored=_is_stored(request.state_dir, wanted.entry["object_sha256"]),
            damage=host.damage or "",
        )
        yield wanted, decide.present(wanted, observed), _Work(request.state_dir, found.data, loadable)


def _is_stored(state_dir: str, digest: str) -> bool:
    try:
        store.get(state_dir, digest)
    except SockredirError:
        return False
    return True


def _drop_objects(state_dir: str) -> None:
    """Keep on disk what the manifest, or a rollback, could load again; all where that cannot be known."""
    try:
        both = (manifest.known(state_dir), manifest.previous(state_dir))
    except manifest.Damaged:
        return
    store.keep_only(state_dir, [digest for document in both for digest in manifest.objects(document)])


def _described(wanted: decide.Wanted, pin_dir: str) -> Tuple[Dict[str, Dict[str, Any]], Dict[str, Dict[str, Any]]]:
    """What is pinned by now; in check mode what is not yet has no id."""
    programs, maps = {}, {}
    for name, types in wanted.types.items():
        path = decide.pin_path(pin_dir, name)
        pin = objects.at(path) if os.path.isdir(pin_dir) else None
        loaded = pin.program if pin else None
        programs[name] = {
            "id": loaded.id if loaded else None,
            "tag": loaded.tag if loaded else None,
            "type": libbpf.prog_type_name(types[0]),
            "pin": path,
        }
    for name, one in wanted.maps.items():
        path = decide.pin_path(pin_dir, name)
        pin = objects.at(path) if os.path.isdir(pin_dir) else None
        maps[name] = {"id": pin.id if pin and pin.kind == "map" else None, "type": one.type, "pin": path}
    return programs, maps


def _pretended(request: Request, reason: str) -> Result:
    """Check mode with nothing to look at: it would be loaded, more is not known."""
    try:
        entry = _entry(manifest.known(request.state_dir), request.name) or {}
    except SockredirError:
        entry = {}
    after = {"src": request.src, "config": request.config, "max_entries": request.max_entries}
    step = Step("load", f"programs of {request.name}", entry.get("digest"), after)
    return Result([step], notes=(f"{reason}: what a run would load cannot be known in full",))


def remove_directory(step: Step) -> Callable[[], None]:
    """The handler that removes an empty directory of pins; returns how to undo it."""
    os.rmdir(step.subject)
    return lambda: os.mkdir(step.subject, 0o700)


class _Work:
    """The handlers of a plan's steps: each does its step and returns how to undo it."""

    def __init__(self, state_dir: str, data: bytes = b"", loadable: Optional[Loadable] = None) -> None:
        self._state_dir = state_dir
        self._data = data
        self._loadable = loadable

    def handlers(self) -> Dict[str, Handler]:
        """By verb."""
        return {
            "make_directory": self._make_directory,
            "remove_directory": remove_directory,
            "store": self._store,
            "load": self._load,
            "pin": self._pin,
            "replace": self._replace,
            "unpin": self._unpin,
            "record": self._record,
            "identify": self._identify,
            "forget": self._forget,
        }

    def _make_directory(self, step: Step) -> Callable[[], None]:
        try:
            os.makedirs(step.subject, 0o700)
        except OSError as error:
            raise SockredirError(f"pin_dir: cannot make {step.subject}: {error.strerror}") from error
        return lambda: os.rmdir(step.subject)

    def _store(self, _step: Step) -> Callable[[], None]:
        digest = store.put(self._state_dir, self._data)
        return lambda: files.remove(store.path(self._state_dir, digest))

    def _load(self, step: Step) -> Callable[[], None]:
        maps = {name: libbpf.map_by_id(number) for name, number in step.need(decide.Load).reuse.items()}
        self._loaded().load(maps)
        for descriptor in maps.values():
            descriptor.close()
        return self._loaded().close

    def _loaded(self) -> Loadable:
        if self._loadable is None:
            raise RuntimeError("a plan with these steps is made from an object only")
        return self._loadable

    def _pin(self, step: Step) -> Callable[[], None]:
        with self._target(step) as descriptor:
            libbpf.pin(descriptor, step.subject)
        return lambda: os.unlink(step.subject)

    def _replace(self, step: Step) -> Callable[[], None]:
        old = libbpf.get(step.subject)
        with self._target(step) as descriptor:
            _put(descriptor, step.subject)
        return lambda: _put(old, step.subject)

    def _target(self, step: Step) -> libbpf.Fd:
        what = step.need(decide.Pinned)
        if what.id is not None:
            return libbpf.map_by_id(what.id)
        found = self._loaded().map if what.kind == "map" else self._loaded().program
        return libbpf.Fd(os.dup(found(what.name).fileno()))

    def _unpin(self, step: Step) -> Callable[[], None]:
        old = libbpf.get(step.subject)
        os.unlink(step.subject)
        return lambda: libbpf.pin(old, step.subject)

    def _record(self, step: Step) -> Callable[[], None]:
        name, entry = step.need(decide.Recorded)

        def change(document: manifest.Manifest) -> None:
            ids = {key: document["programs"].get(name, {}).get(key, {}) for key in decide.IDS}
            document["programs"][name] = dict(entry, **ids)
            pins = [*entry["pins"].values(), *entry["map_pins"].values()]
            document["pin_dir"] = document["pin_dir"] or os.path.dirname(pins[0])

        return self._edit(change)

    def _identify(self, step: Step) -> Callable[[], None]:
        name, replaced = step.need(decide.Identified)

        def change(document: manifest.Manifest) -> None:
            entry = document["programs"][name]
            before = dict(entry["program_ids"])
            pins = {name: objects.at(path) for name, path in entry["pins"].items()}
            programs = {name: pin.program for name, pin in pins.items() if pin and pin.program}
            entry["program_ids"] = {name: program.id for name, program in programs.items()}
            entry["program_tags"] = {name: program.tag for name, program in programs.items()}
            maps = {name: objects.at(path) for name, path in entry["map_pins"].items()}
            entry["map_ids"] = {name: pin.id for name, pin in maps.items() if pin}
            gone = {name: number for name, number in before.items() if number != entry["program_ids"].get(name)}
            _note_draining(document, dict(gone, **replaced))

        return self._edit(change)

    def _forget(self, step: Step) -> Callable[[], None]:
        name = step.need(decide.Forgotten).name

        def change(document: manifest.Manifest) -> None:
            entry = document["programs"].pop(name)
            _note_draining(document, entry.get("program_ids", {}))

        return self._edit(change)

    def _edit(self, change: Callable[[manifest.Manifest], None]) -> Callable[[], None]:
        saved = manifest.snapshot(self._state_dir)
        manifest.edit(self._state_dir, change)
        return lambda: manifest.put_back(self._state_dir, saved)


def _put(descriptor: libbpf.Descriptor, path: str) -> None:
    """Pin in the place of what is pinned there, in one step."""
    temporary = path + decide.TEMPORARY
    if os.path.lexists(temporary):
        os.unlink(temporary)
    libbpf.pin(descriptor, temporary)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _note_draining(document: manifest.Manifest, programs: Dict[str, int]) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = {entry["program_id"] for entry in document["draining"]}
    fresh = [
        {"name": name, "program_id": number, "since": now} for name, number in programs.items() if number not in known
    ]
    document["draining"] = _alive(document["draining"] + fresh)
