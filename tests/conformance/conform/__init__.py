# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conformance: the same socket program on plain TCP and redirected, transcripts compared.

Python 3.8+ and its standard library only, so that the suite runs on any host it is copied to.
"""
