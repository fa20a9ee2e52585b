# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds images with mmdebstrap and keeps them in the user's cache directory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, Mapping, Optional, Sequence, Tuple

from . import guest_files
from .errors import NoMirror, VmError
from .shell import captured, find, need, run, say
from .suites import Recipe, Suite, suite_named

DISK_SIZE = "8G"
SPACE_TO_BUILD = 4 << 30
# Distributions move on: an older image is built again.
MAX_AGE_S = 14 * 24 * 3600
NO_MIRROR = re.compile(r"Could not (resolve|connect)|Temporary failure resolving|Failed to fetch|Unable to connect")


@dataclass(frozen=True)
class Image:
    """What a machine boots from: a disk, and for images built here the kernel and initrd outside of it."""

    disk: Path
    disk_format: str
    kernel: Optional[Path] = None
    initrd: Optional[Path] = None


def ssh_key(cache: Path) -> Path:
    """The private key that may log in to every machine of this user; made at first use."""
    key = cache / "ssh_key"
    with _lock(cache / "ssh_key.lock"):
        if not key.exists():
            need("ssh-keygen")
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sockredir-vm", "-f", str(key)]
            run(command, f"cannot make {key}")
    return key


def recipe(suite: str, packages: Sequence[str], cache: Path, environ: Optional[Mapping[str, str]] = None) -> Recipe:
    """The recipe of an image with these extra packages, under this host's apt settings."""
    public = ssh_key(cache).with_suffix(".pub").read_text(encoding="ascii").strip()
    chosen = suite_named(suite)
    return Recipe(
        suite=chosen,
        packages=tuple(packages),
        mirrors=_mirrors(environ),
        files=guest_files.all_files(public, environ),
    )


def ensure(wanted: Recipe, cache: Path, fresh: bool = False) -> Image:
    """The cached image of this recipe, built if it is missing, too old, or `fresh` is asked."""
    images = cache / "images"
    place = images / wanted.key
    with _lock(images / f"{wanted.key}.lock"):
        if fresh or not _is_good(place):
            need("mmdebstrap", "mke2fs", *([] if os.geteuid() == 0 else ["fakeroot"]))
            _build(wanted, images, place)
    return Image(place / "disk.raw", "raw", place / "vmlinuz", place / "initrd.img")


def _is_good(place: Path) -> bool:
    try:
        return time.time() - (place / "recipe.json").stat().st_mtime < MAX_AGE_S
    except FileNotFoundError:
        return False


def _remove_old(images: Path) -> None:
    """Removes images past their age; a machine that runs on one keeps its disk open."""
    for recipe_file in images.glob("*/recipe.json"):
        if not _is_good(recipe_file.parent):
            shutil.rmtree(recipe_file.parent, ignore_errors=True)


def _build(wanted: Recipe, images: Path, place: Path) -> None:
    _remove_old(images)
    need_space(images, SPACE_TO_BUILD)
    for stale in images.glob(f".{wanted.key}-*"):
        # The lock is ours: what is there was left by a build that was killed.
        shutil.rmtree(stale, ignore_errors=True)
    say(f"building {place.name} ({len(wanted.all_packages)} packages and what they need)")
    started = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f".{wanted.key}-", dir=images))
    try:
        _bootstrap(wanted, work)
        _make_disk(work)
        (work / "recipe.json").write_text(json.dumps(asdict(wanted), indent=2), encoding="utf-8")
        work.chmod(0o755)
        if place.exists():
            shutil.rmtree(place)
        work.rename(place)
    except OSError as error:
        raise VmError(f"cannot build {place.name} in {images}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"built {place.name} in {time.monotonic() - started:.0f} s")


def _bootstrap(wanted: Recipe, work: Path) -> None:
    """Runs mmdebstrap; leaves root.tar."""
    files = work / "files.tar"
    with tarfile.open(files, "w") as tar:
        guest_files.add_to_tar(tar, wanted.files)
    # Package lists stay in the image: an installation inside needs no `apt-get update` first.
    options = [f"--include={','.join(wanted.all_packages)}", "--skip=cleanup/apt/lists"]
    options.append(f"--essential-hook=tar-in {files} /")
    # mmdebstrap unpacks under TMPDIR. Beside the images there is room; but without root it works in a user namespace,
    # whose users must not be able to enter a home directory.
    env = {**os.environ, "TMPDIR": str(work)} if os.geteuid() == 0 else None
    _mmdebstrap(wanted.suite, options, work / "root.tar", wanted.mirrors, env)


def ask_mirror(suite: str, environ: Optional[Mapping[str, str]] = None) -> None:
    """Fetches a suite's package lists and nothing else; raises NoMirror where no mirror gives them."""
    need("mmdebstrap")
    _mmdebstrap(suite_named(suite), ["--simulate"], Path(os.devnull), _mirrors(environ))


def _mirrors(environ: Optional[Mapping[str, str]]) -> Tuple[str, ...]:
    return tuple((os.environ if environ is None else environ).get("SOCKREDIR_VM_MIRROR", "").split())


def _mmdebstrap(
    suite: Suite, options: Sequence[str], target: Path, mirrors: Sequence[str], env: Optional[Mapping[str, str]] = None
) -> None:
    # Where we are killed, it ends too, and cleans up.
    command = ["setpriv", "--pdeathsig", "TERM", find("mmdebstrap") or "", "--variant=minbase", *options]
    if suite.main_archive_only:
        command += ["""--setup-hook=sed -i -E '/(-security|-updates) /d' "$1"/etc/apt/sources.list"""]
    if suite.ignore_validity_date:
        # mmdebstrap leaves this setting in the image, where it is needed too.
        command += ['--aptopt=Acquire::Check-Valid-Until "false"']
    code, log = captured([*command, suite.name, str(target), *mirrors], env=env)
    if code:
        raise bootstrap_failure(suite.name, log)


def bootstrap_failure(suite: str, log: str) -> VmError:
    """The one line that a person needs of mmdebstrap's log, with the log's end."""
    end = "\n".join(log.splitlines()[-30:])
    lines = [line.strip() for line in log.splitlines()]
    errors = [line[3:] for line in lines if line.startswith("E: ")]
    if any("No space left on device" in line for line in lines):
        cure = "free some, or set XDG_CACHE_HOME"
        return VmError(f"cannot build {suite}: no space left in the cache directory; {cure}", end)
    fetch = next((line for line in lines if NO_MIRROR.search(line)), None)
    if fetch:
        cure = "check the network and apt's proxy, or set SOCKREDIR_VM_MIRROR"
        return NoMirror(f"cannot build {suite}: no package mirror answers ({fetch}); {cure}", end)
    reason = errors[0] if errors else (lines[-1] if lines else "mmdebstrap said nothing")
    return VmError(f"cannot build {suite}: {reason}", end)


def _make_disk(work: Path) -> None:
    """Turns root.tar into disk.raw, vmlinuz and initrd.img."""
    script = """set -e
        mkdir tree
        tar -xpf root.tar -C tree --numeric-owner
        rm root.tar files.tar
        cp "$(ls tree/boot/vmlinuz-* | sort -V | tail -n 1)" vmlinuz
        cp "$(ls tree/boot/initrd.img-* | sort -V | tail -n 1)" initrd.img
        "$MKE2FS" -q -t ext4 -m 0 -L root -d tree disk.raw "$DISK_SIZE"
        rm -rf tree
        chmod 644 vmlinuz initrd.img disk.raw"""
    as_root = [] if os.geteuid() == 0 else ["fakeroot"]
    env = {**os.environ, "MKE2FS": find("mke2fs") or "", "DISK_SIZE": DISK_SIZE}
    run([*as_root, "sh", "-c", script], "cannot make a disk image", cwd=work, env=env)


def need_space(directory: Path, size: int) -> None:
    """Raises VmError where less than `size` bytes are free."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < size:
        have = f"{directory} has {free / 2**30:.1f} GiB free, {size / 2**30:.0f} GiB needed"
        raise VmError(f"no space: {have}; free some, or set XDG_CACHE_HOME")


def cloud(source: str, cache: Path) -> Image:
    """A distribution's cloud image (with cloud-init), from a path or a URL; a URL is fetched once."""
    if not re.match(r"[a-z]+://", source):
        path = Path(source).expanduser().resolve()
        if not path.is_file():
            raise VmError(f"no image at {path}")
        return Image(path, _format(path))
    place = cache / "images" / f"cloud-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    with _lock(place.with_suffix(".lock")):
        if not place.exists():
            need("curl")
            need_space(place.parent, SPACE_TO_BUILD)
            part = place.with_suffix(".part")
            say(f"fetching {source}")
            command = ["curl", "-fsSL", "--retry", "3", "-o", str(part), source]
            try:
                run(command, f"cannot fetch {source}", "check the address and the network")
                part.rename(place)
            finally:
                part.unlink(missing_ok=True)
    return Image(place, _format(place))


def _format(disk: Path) -> str:
    need("qemu-img")
    told: Dict[str, str] = json.loads(run(["qemu-img", "info", "--output=json", str(disk)], f"{disk} is no disk image"))
    return told["format"]


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Holds an exclusive lock; the kernel frees it when we die."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
