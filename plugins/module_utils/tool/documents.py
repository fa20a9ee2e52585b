# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed beside the tool for those who type its name: the manual page, and completion."""

from __future__ import annotations

from typing import Dict

from ..host import files, install
from . import completion, main, manual


def made(places: install.Places, state_dir: str) -> Dict[str, files.File]:
    """The files, by path."""
    parser = main.parser(state_dir)
    return {
        places.manual: files.File(manual.page(parser, state_dir)),
        places.bash_completion: files.File(completion.bash(parser)),
        places.zsh_completion: files.File(completion.zsh(parser)),
    }
