# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters ``ebpf.sockredir.fleet_advice`` and ``ebpf.sockredir.advice_page``."""

from __future__ import annotations

from typing import Callable, Dict

from ..plugin_utils.fleet_advice import advise
from ..plugin_utils.report.advice import to_page


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> Dict[str, Callable]:
        return {"fleet_advice": advise, "advice_page": to_page}
