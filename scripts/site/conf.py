# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for the site; ./run docs copies this into the tree that it builds from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml
from docutils import nodes

_SOURCE = Path(__file__).parent
_CHECKOUT = Path(os.environ["SOCKREDIR_ROOT"])
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)\)")
_CONTENTS = re.compile(r"^\.\. contents::.*\n(?:[ ]+:.*\n)*", re.MULTILINE)
#: Labels of Ansible's own documentation that antsibull-docs refers to.
_ANSIBLE = "https://docs.ansible.com/ansible/latest/"
_LABELS = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}

project = "ebpf.sockredir"
copyright = "sockredir contributors"
version = release = yaml.safe_load((_CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["version"]

extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["README.md", "LICENSES"]
myst_heading_anchors = 4
# Quoted quotes in Jinja, which the highlighter does not know.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "text"

html_theme = "furo"
html_title = f"ebpf.sockredir {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False


def _without_checkout(app, name, source) -> None:
    """What is in the checkout and not on the site is named, but not linked to."""
    page = Path(app.env.doc2path(name)).parent

    def linked(found: re.Match) -> str:
        target = os.path.relpath(page / found[2], _SOURCE)
        here, there = _SOURCE / target, _CHECKOUT / target
        return (
            found[1]
            if (there.exists() and not here.is_file()) or (here.name == "README.md" and here.parent == _SOURCE)
            else found[0]
        )

    source[0] = _LINK.sub(linked, source[0])


def _without_contents(app, name, source) -> None:
    """The theme has a table of contents at the side of each page, and objects to another."""
    source[0] = _CONTENTS.sub("", source[0])


def _ansible_label(app, env, node, content):
    page = _LABELS.get(node.get("reftarget"))
    return page and nodes.reference("", "", content, internal=False, refuri=_ANSIBLE + page)


def setup(app) -> None:
    app.connect("missing-reference", _ansible_label)
    app.connect("source-read", _without_checkout)
    app.connect("source-read", _without_contents)
