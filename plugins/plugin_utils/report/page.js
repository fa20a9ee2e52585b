// SPDX-FileCopyrightText: sockredir contributors
// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";
(function () {
  const table = document.getElementById("hosts");
  const find = document.getElementById("find");
  const status = document.getElementById("status");
  const chosen = document.querySelector("[data-chooses]");
  const unfold = document.getElementById("unfold");
  const shown = document.getElementById("shown");
  const none = document.getElementById("none");
  const tiles = Array.from(document.querySelectorAll(".tile"));
  const headers = Array.from(table.tHead.rows[0].cells);
  const compareText = new Intl.Collator(undefined, { numeric: true }).compare;
  const number = new Intl.NumberFormat("en");
  const column = (key) => headers.findIndex((header) => header.dataset.column === key);
  const hosts = Array.from(table.tBodies, (body) => ({
    body,
    cells: body.rows[0].cells,
    status: body.dataset.status,
    choice: body.rows[0].cells[column(chosen.dataset.chooses)].textContent,
    text: null,
  }));

  function textOf(host) {
    host.text ??= host.body.textContent.toLowerCase();
    return host.text;
  }

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const host of hosts) {
      const matches =
        (!status.value || host.status === status.value) &&
        (!chosen.value || host.choice === chosen.value) &&
        words.every((word) => textOf(host).includes(word));
      host.body.hidden = !matches;
      count += matches;
    }
    shown.textContent = `${number.format(count)} of ${number.format(hosts.length)} ${table.dataset.rows}`;
    none.hidden = count > 0;
    for (const tile of tiles) tile.setAttribute("aria-pressed", String(tile.dataset.status === status.value));
  }

  function sort(header) {
    const index = headers.indexOf(header);
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const compare =
      header.dataset.type === "number"
        ? (a, b) => Number(a.cells[index].dataset.sort) - Number(b.cells[index].dataset.sort)
        : (a, b) => compareText(a.cells[index].textContent, b.cells[index].textContent);
    hosts.sort(descending ? (a, b) => compare(b, a) : compare);
    table.append(...hosts.map((host) => host.body));
  }

  function fold(body, folded) {
    const button = body.querySelector(".fold");
    if (!button) return;
    body.classList.toggle("folded", folded);
    button.setAttribute("aria-expanded", String(!folded));
  }

  function foldAll(folded) {
    for (const host of hosts) fold(host.body, folded);
    unfold.textContent = folded ? "Show all details" : "Hide all details";
    unfold.dataset.folded = String(folded);
  }

  find.addEventListener("input", filter);
  status.addEventListener("change", filter);
  chosen.addEventListener("change", filter);
  unfold.addEventListener("click", () => foldAll(unfold.dataset.folded === "false"));
  for (const header of headers) header.firstElementChild.addEventListener("click", () => sort(header));
  for (const tile of tiles) {
    tile.addEventListener("click", () => {
      status.value = status.value === tile.dataset.status ? "" : tile.dataset.status;
      filter();
    });
  }
  table.addEventListener("click", (event) => {
    const button = event.target.closest(".fold");
    if (button) fold(button.closest("tbody"), button.getAttribute("aria-expanded") === "true");
  });
  document.documentElement.classList.add("js");
  foldAll(true);
  // A browser keeps the fields of a page that is loaded again.
  filter();
})();
