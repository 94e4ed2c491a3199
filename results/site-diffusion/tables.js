// Sorting and filtering of tables that are already in the page. All state lives in the address (after #), so that a view can be
// shared and reloaded. Text enters the page as text only, never as HTML.
"use strict";

const state = new URLSearchParams(location.hash.slice(1));

function remember() {
  for (const key of [...state.keys()]) if (!state.get(key)) state.delete(key);
  history.replaceState(null, "", state.size ? "#" + state : location.pathname + location.search);
}

function sortValue(row, column) {
  const cell = row.cells[column];
  if (!("value" in cell.dataset)) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

// Empty values stand last in both directions; equal values keep their order.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en"));
}

function sortTable(table) {
  const { sort, direction } = table.dataset;
  const headers = [...table.tHead.rows[0].cells];
  const column = sort ? headers.findIndex((header) => header.dataset.key === sort) : -1;
  headers.forEach((header, i) => (i === column ? header.setAttribute("aria-sort", direction) : header.removeAttribute("aria-sort")));
  if (column < 0) return;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [sortValue(row, column), row]);
  rows.sort((a, b) => compare(a[0], b[0], direction === "ascending" ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
}

function makeSortable(table) {
  for (const header of table.tHead.rows[0].cells) {
    const key = header.dataset.key;
    if (!key || key === "plot") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const first = header.classList.contains("numeric") && key !== "tier" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const again = table.dataset.sort === key && table.dataset.direction === first;
      Object.assign(table.dataset, { sort: key, direction: again ? other : first });
      state.set(`${table.id}.sort`, key);
      state.set(`${table.id}.direction`, table.dataset.direction);
      remember();
      sortTable(table);
    });
  }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A row of the ranking, as the template of the page makes it. The texts are made when the site is built.
function rankingRow(row, keys) {
  const line = element("tr", row.why ? "unranked" : "");
  row.cells.forEach(([value, text], i) => {
    if (keys[i] === "augmenter") {
      const name = element("th", "", row.name);
      name.scope = "row";
      if (row.control) name.append(" ", element("span", "badge", "control"));
      if (row.why) name.append(element("span", "why", "not ranked: " + row.why));
      line.append(name);
    } else if (keys[i] === "plot") {
      const cell = element("td", "plot");
      if (row.bar.length) cell.append(intervalBar(row));
      line.append(cell);
    } else {
      const cell = element("td", "", text);
      cell.dataset.value = value ?? "";
      line.append(cell);
    }
  });
  return line;
}

function intervalBar(row) {
  const track = element("span", "track");
  const [zero, bar, dot] = ["zero", "bar", "dot"].map((name) => element("span", name));
  zero.style.left = row.zero + "%";
  bar.style.left = row.bar[0] + "%";
  bar.style.width = row.bar[2] - row.bar[0] + "%";
  dot.style.left = row.bar[1] + "%";
  track.append(zero, bar, dot);
  return track;
}

function showView(table, views, choices) {
  const view = views[JSON.stringify([choices.task, choices.dataset, choices.learner])];
  const keys = [...table.tHead.rows[0].cells].map((header) => header.dataset.key);
  table.tBodies[0].replaceChildren(...(view ? view.rows : []).map((row) => rankingRow(row, keys)));
  const cells = view ? view.cells : 0;
  document.querySelector("[data-size]").textContent =
    cells ? `${cells} cells, n = ${view.seeds} independent augmented sets each.` : "Nothing ran in this selection.";
  document.querySelector("[data-notes]").replaceChildren(...(view ? view.notes : []).map((note) => element("li", "", note)));
  return view ? view.rows.length : 0;
}

function hideRows(table, choices) {
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = Object.entries(choices).some(([axis, choice]) => choice && row.dataset[axis] !== choice);
    shown += !row.hidden;
  }
  return shown;
}

function makeFilters(form, table) {
  const embedded = document.getElementById("views");
  const views = embedded && JSON.parse(embedded.textContent);
  const selects = [...form.querySelectorAll("select")];
  const apply = () => {
    const choices = Object.fromEntries(selects.map((select) => [select.name, select.value]));
    const shown = views ? showView(table, views, choices) : hideRows(table, choices);
    form.querySelector("output").textContent = `${shown} ${shown === 1 ? "row" : "rows"}`;
    sortTable(table);
  };
  const keep = () => {
    for (const select of selects) state.set(select.name, select.value);
    remember();
    apply();
  };
  const restore = () => {
    for (const select of selects) {
      const wanted = state.get(select.name) ?? "";
      select.value = [...select.options].some((option) => option.value === wanted) ? wanted : "";
    }
    apply();
  };
  form.addEventListener("change", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(keep));
  form.hidden = false;
  return restore;
}

const tables = [...document.querySelectorAll("table[data-sortable]")];
const original = new Map(tables.map((table) => [table, { sort: table.dataset.sort, direction: table.dataset.direction }]));
const restorers = [];

function restoreAll() {
  for (const table of tables) {
    const sort = state.get(`${table.id}.sort`);
    const { sort: usual, direction } = original.get(table);
    if (sort) Object.assign(table.dataset, { sort, direction: state.get(`${table.id}.direction`) === "ascending" ? "ascending" : "descending" });
    else if (usual) Object.assign(table.dataset, { sort: usual, direction });
    sortTable(table);
  }
  for (const restore of restorers) restore();
}

tables.forEach(makeSortable);
for (const form of document.querySelectorAll("form[data-filters]")) restorers.push(makeFilters(form, tables[0]));
restoreAll();
addEventListener("hashchange", () => {
  for (const key of [...state.keys()]) state.delete(key);
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) state.set(key, value);
  restoreAll();
});
