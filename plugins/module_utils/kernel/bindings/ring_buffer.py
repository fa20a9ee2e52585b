# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ring buffers, as libbpf reads them."""

from __future__ import annotations

import ctypes
import errno as errnos
from typing import Any, Callable, Optional

from .binding import SAMPLE, BpfError, Descriptor, call, library, number_of, open_pointer


class RingBuffer:
    """The consumer of a ring buffer map.

    :param descriptor: of the map; must stay open while this lives.
    :param on_sample: called with each record's bytes inside :meth:`poll` or :meth:`consume`; what it raises ends that.
    """

    def __init__(self, descriptor: Descriptor, on_sample: Callable[[bytes], None]) -> None:
        self._pointer = 0
        self._on_sample = on_sample
        self._raised: Optional[BaseException] = None
        self._callback = SAMPLE(self._sample)
        self._pointer = open_pointer(
            "opening the ring buffer", "ring_buffer__new", number_of(descriptor), self._callback, None, None
        )

    def _sample(self, _context: int, data: int, size: int) -> int:
        try:
            self._on_sample(ctypes.string_at(data, size))
        except BaseException as error:  # pylint: disable=broad-exception-caught  # must not unwind through C
            self._raised = error
            return -errnos.ECANCELED
        return 0

    def poll(self, timeout_ms: int) -> int:
        """Wait for records at most ``timeout_ms`` milliseconds (-1: for ever); how many came, 0 also after a signal."""
        return self._run("ring_buffer__poll", timeout_ms)

    def consume(self) -> int:
        """Take what is there without waiting; how many records came."""
        return self._run("ring_buffer__consume")

    def _run(self, name: str, *arguments: Any) -> int:
        try:
            return call("reading the ring buffer", name, self._pointer, *arguments)
        except BpfError as error:
            raised, self._raised = self._raised, None
            if raised is not None:
                raise raised from None
            if error.errno == errnos.EINTR:
                return 0
            raise

    def close(self) -> None:
        pointer, self._pointer = self._pointer, 0
        if pointer:
            library().ring_buffer__free(pointer)

    def __enter__(self) -> RingBuffer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
