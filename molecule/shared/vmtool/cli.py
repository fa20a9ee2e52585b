# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of `molecule/shared/vm`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import List, Sequence, Tuple

from . import groups
from . import image as images
from .accel import decide
from .errors import NoMirror, VmError
from .layout import cache_dir, state_dir
from .machine import Machine
from .shell import say
from .suites import SUITES

PROJECT = Path(__file__).resolve().parents[3]

DESCRIPTION = "Boots, reaches and destroys the virtual machines that the molecule scenarios use."
EPILOG = """environment:
  XDG_CACHE_HOME        images, state and logs are kept under $XDG_CACHE_HOME/sockredir-vm
  SOCKREDIR_VM_ACCEL    kvm or tcg, instead of the trial boot's outcome
  SOCKREDIR_VM_PORTS    FROM-TO, the loopback ports to choose from
  SOCKREDIR_VM_MIRROR   package mirrors for mmdebstrap, instead of its default

examples:
  vm run bookworm -- uname -r
  vm run trixie --with clang,libbpf-dev --copy bpf:/root/bpf -- 'cd bpf && clang -O2 -g -target bpf -c sockredir.bpf.c'
  vm up sid --name newest; vm ssh newest -- uname -r; vm down newest
"""


def main(argv: Sequence[str]) -> int:
    """Runs one subcommand; the exit code is 1 for an error of our own, 69 for a mirror's, else the guest command's."""
    ours, command = _split(list(argv))
    options = _parser().parse_args(ours)
    options.command = command
    # A plain `kill` unwinds like Ctrl-C, so that the machine goes with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.run(options)
    except VmError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(f"vm: error: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE if isinstance(error, NoMirror) else 1
    except KeyboardInterrupt:
        return 130


def _split(argv: List[str]) -> Tuple[List[str], List[str]]:
    """Our options, and the guest's command line behind the first `--`."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vm", description=DESCRIPTION, epilog=EPILOG, formatter_class=plain)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    build = verbs.add_parser("build", help="build an image into the cache, or find it there")
    _image_options(build)
    build.add_argument("--fresh", action="store_true", help="build it again")
    build.set_defaults(run=_build)

    mirror = verbs.add_parser("mirror", help="ask the package mirror for a suite's lists; exit code 69: no answer")
    mirror.add_argument("suite", choices=SUITES)
    mirror.set_defaults(run=_mirror)

    up = verbs.add_parser("up", help="boot a machine, wait for ssh, print how to reach it")
    _image_options(up)
    _machine_options(up)
    up.add_argument("--name", help="default: the suite")
    up.set_defaults(run=_up)

    create = verbs.add_parser("create", help="boot all machines of a group, print how to reach them")
    create.add_argument(
        "platforms", type=json.loads, metavar="JSON", help="list of {name, image, packages, memory, cpus}"
    )
    create.set_defaults(run=_create)

    run = verbs.add_parser("run", help="boot a machine, run the command behind -- in it, destroy it")
    _image_options(run)
    _machine_options(run)
    run.add_argument("--copy", action="append", default=[], metavar="LOCAL:REMOTE", help="copy this in first")
    run.set_defaults(run=_run)

    ssh = verbs.add_parser("ssh", help="a shell, or the command behind --, in a running machine")
    ssh.add_argument("name")
    ssh.set_defaults(run=_ssh)

    copy = verbs.add_parser("copy", help="copy a file or a directory into a running machine")
    copy.add_argument("name")
    copy.add_argument("local", type=Path)
    copy.add_argument("remote")
    copy.set_defaults(run=_copy)

    down = verbs.add_parser("down", help="destroy machines of the group, all of them by default")
    down.add_argument("names", nargs="*")
    down.set_defaults(run=_down)

    group = "a molecule scenario's name (default: adhoc)"
    for verb in (up, create, run, ssh, copy, down):
        verb.add_argument("--group", default="adhoc", help=group)

    claim = "molecule's directory: refused where another checkout's machines use it"
    for verb in (create, down):
        verb.add_argument("--claim", type=Path, metavar="DIRECTORY", help=claim)

    listing = verbs.add_parser("list", help="this checkout's machines")
    listing.set_defaults(run=_list)

    accelerator = verbs.add_parser("accelerator", help="tell whether KVM works here")
    accelerator.set_defaults(run=_accelerator)

    clean = verbs.add_parser("clean", help="remove the cached images")
    clean.set_defaults(run=_clean)
    return parser


def _image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IMAGE", help=f"{', '.join(SUITES)}, or a cloud image's URL or path")
    packages = "what the built image has besides its base: names separated by commas"
    parser.add_argument("--with", dest="packages", default="", metavar="PACKAGES", help=packages)


def _machine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--cpus", type=int, default=2)


def _image(source: str, packages: Sequence[str], fresh: bool = False) -> images.Image:
    cache = cache_dir()
    if "/" in source:
        return images.cloud(source, cache)
    return images.ensure(images.recipe(source, packages, cache), cache, fresh)


def _names(text: str) -> List[str]:
    return [name for name in text.split(",") if name]


def _machine(options: argparse.Namespace, name: str, **more: object) -> Machine:
    return Machine(state_dir(PROJECT, options.group) / name, cache_dir(), **more)


def _build(options: argparse.Namespace) -> int:
    print(_image(options.source, _names(options.packages), options.fresh).disk)
    return 0


def _mirror(options: argparse.Namespace) -> int:
    images.ask_mirror(options.suite)
    return 0


def _up(options: argparse.Namespace) -> int:
    name = options.name or Path(options.source).name.split(".")[0]
    machine = _machine(options, name, memory_mib=options.memory, cpus=options.cpus)
    machine.start(_image(options.source, _names(options.packages)))
    print(json.dumps({"instance": name, **machine.address()}))
    return 0


def _create(options: argparse.Namespace) -> int:
    addresses = []
    _claim(options)
    with groups.creating(state_dir(PROJECT, options.group)):
        for platform in options.platforms:
            size = {"memory_mib": platform.get("memory", 1024), "cpus": platform.get("cpus", 2)}
            machine = _machine(options, platform["name"], **size)
            machine.start(_image(platform["image"], platform.get("packages", [])))
            addresses.append({"instance": machine.name, **machine.address()})
    print(json.dumps(addresses))
    return 0


def _run(options: argparse.Namespace) -> int:
    if not options.command:
        raise VmError("nothing to run: add -- and a command")
    machine = _machine(options, f"run-{os.getpid()}", memory_mib=options.memory, cpus=options.cpus, tied_to_us=True)
    _remove_dead(machine.directory.parent)
    ended_well = False
    try:
        machine.start(_image(options.source, _names(options.packages)))
        for pair in options.copy:
            local, _colon, remote = pair.partition(":")
            machine.copy_in(Path(local), remote or Path(local).name)
        code = machine.call(options.command, stdin=sys.stdin.buffer)
        ended_well = True
        return code
    finally:
        machine.stop(keep_log=not ended_well)


def _remove_dead(group: Path) -> None:
    """Removes what `vm run` left when it was killed."""
    for directory in group.glob("run-*"):
        if not Path(f"/proc/{directory.name[len('run-') :]}").exists():
            Machine(directory, cache_dir()).stop()


def _ssh(options: argparse.Namespace) -> int:
    return _machine(options, options.name).call(options.command)


def _copy(options: argparse.Namespace) -> int:
    _machine(options, options.name).copy_in(options.local, options.remote)
    return 0


def _down(options: argparse.Namespace) -> int:
    _claim(options)
    group = state_dir(PROJECT, options.group)
    if not options.names:
        groups.end_creation(group)
    for machine in groups.machines(group):
        if not options.names or machine.name in options.names:
            machine.stop()
            say(f"{machine.name}: destroyed; its serial log: {machine.kept_log}")
    return 0


def _claim(options: argparse.Namespace) -> None:
    if options.claim:
        groups.claim(options.claim, PROJECT, options.group)


def _list(options: argparse.Namespace) -> int:
    for group in sorted(state_dir(PROJECT, "adhoc").parent.glob("*")):
        for machine in groups.machines(group):
            pid = machine.qemu.pid()
            print(f"{group.name}/{machine.name}: " + (f"pid {pid}, port {machine.port}" if pid else "not running"))
    return 0


def _accelerator(options: argparse.Namespace) -> int:
    decision = decide(cache_dir())
    print(f"{decision.accelerator}: {decision.reason}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    shutil.rmtree(cache_dir() / "images", ignore_errors=True)
    return 0
