"use strict";
// Sorts the table by its headings and filters its rows. Without this script the table is there in the suite's order.
const table = document.getElementById("results");
const rows = [...table.tBodies[0].rows];
const headings = [...table.tHead.rows[0].cells];
const filters = document.getElementById("filters");

// what a cell is sorted by: a number, a text, or null for what has none, which comes last in either direction
function key(row, column) {
  const value = row.cells[column].dataset.value;
  if (value === "") return null;
  return headings[column].dataset.kind === "number" ? Number(value) : value;
}

function order(one, other) {
  return typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
}

function sort(column) {
  const heading = headings[column];
  const first = heading.dataset.kind === "number" && column > 0 ? "descending" : "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  const direction = heading.getAttribute("aria-sort") === first ? second : first;
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = rows.map((row) => [key(row, column), row]);
  keyed.sort(([one], [other]) => {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * order(one, other);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function filter() {
  const wanted = filters.querySelector("input").value.toLowerCase().split(/\s+/);
  const chosen = [...filters.querySelectorAll("select")].filter((list) => list.value !== "");
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = wanted.every((word) => text.includes(word))
      && chosen.every((list) => row.cells[list.dataset.column].dataset.choice === list.value);
    row.hidden = !fits;
    count += fits;
    for (const mark of document.querySelectorAll(`[data-row="${row.id.slice(4)}"]`)) mark.classList.toggle("faded", !fits);
  }
  document.getElementById("shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} rows shown`;
}

function labeled(name, control) {
  const label = document.createElement("label");
  label.append(name, control);
  control.addEventListener("input", filter);
  filters.append(label);
}

headings.forEach((heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = heading.textContent;
  button.addEventListener("click", () => sort(column));
  heading.replaceChildren(button);
});

const search = document.createElement("input");
search.type = "search";
labeled("rows with the words", search);
headings.forEach((heading, column) => {
  const choices = [...new Set(rows.map((row) => row.cells[column].dataset.choice ?? ""))].filter(Boolean).sort();
  if (choices.length < 2) return;
  const list = document.createElement("select");
  list.dataset.column = column;
  list.append(new Option("all", ""), ...choices.map((choice) => new Option(choice, choice)));
  labeled(heading.textContent, list);
});
filters.hidden = false;
