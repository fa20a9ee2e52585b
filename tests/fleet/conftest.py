# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets of local hosts: real modules, real programs, one kernel."""

from support.fleet_fixture import fleet_of

__all__ = ["fleet_of"]
