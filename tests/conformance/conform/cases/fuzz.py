# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random operations and settings for some seconds each: conform/fuzz.py. Longer ones: run.py --soak MINUTES."""

import os
import random

from ..case import BOTH, case
from ..fuzz import play

#: Another one for each run; SOCKREDIR_SEED repeats one that failed. Its name is in what went wrong.
SEED = os.environ.get("SOCKREDIR_SEED") or str(random.SystemRandom().getrandbits(40))
#: Of each run; SOCKREDIR_SECONDS for longer ones.
SECONDS = float(os.environ.get("SOCKREDIR_SECONDS", "12"))


@case(BOTH, load={}, bound=120 + SECONDS)
def fixed_seed(net, log):
    """The same random program every time."""
    log("wrong", play(net, "1", SECONDS))


@case(BOTH, load={}, bound=120 + SECONDS)
def new_seed(net, log):
    """A random program with a new seed."""
    log("wrong", play(net, SEED, SECONDS))
