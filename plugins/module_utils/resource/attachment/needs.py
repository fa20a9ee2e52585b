# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program may need of the kernel beyond being loaded: if that is missing, it is not attached."""

from __future__ import annotations

from typing import Callable, Dict, Optional

from ...errors import SockredirError
from ...kernel import queues

#: How each need is tried out.
TRIALS: Dict[str, Callable[[], Optional[bool]]] = {"one_queue": lambda: queues.one_queue().ok}


def met(need: str) -> Optional[bool]:
    """Whether this kernel meets it; None: it could not be tried.

    :raises SockredirError: a later version wrote that need into the manifest.
    """
    if need not in TRIALS:
        raise SockredirError(
            f"manifest: a program needs {need}, which this version does not know",
            "use the version of the collection that wrote the manifest",
        )
    return TRIALS[need]()
