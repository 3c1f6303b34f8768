"use strict";
const grid = document.getElementById("grid"), more = document.getElementById("more"), undo = document.getElementById("undo");
const predicted = document.getElementById("predicted"), exporting = document.getElementById("export");
const filters = [...document.querySelectorAll("[data-show]")];
const keys = { p: "poisoned", c: "clean", u: "unsure" }, titles = { poisoned: "Poisoned", clean: "Clean", unsure: "Unsure" };
const done = [];
let show = "", next = null, turn = 0;

function say(text) { document.getElementById("status").textContent = text; }

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ? answer.error.message : `the service answered ${response.status}`);
  return answer;
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function percent(share) { return `${(100 * share).toFixed(1)} %`; }

function tile(entry) {
  const guess = entry.name === null ? "" : `predicted ${entry.name}`;
  const when = new Date(entry.first_seen * 1000).toISOString().slice(0, 16).replace("T", " ");
  const times = entry.seen > 1 ? `, sent ${entry.seen} times` : "";
  const marks = element("div", { className: "marks" });
  for (const mark of Object.values(keys)) {
    const button = element("button", { type: "button", textContent: titles[mark], tabIndex: -1 });
    button.dataset.mark = mark;
    button.addEventListener("click", () => choose(item, item.dataset.mark === mark ? null : mark));
    marks.append(button);
  }
  const caption = element("figcaption", {}, guess,
    element("small", { textContent: `suspicion ${entry.suspicion.toFixed(3)}` }),
    element("small", { textContent: `confidence ${percent(entry.confidence)}` }),
    element("small", { textContent: `${when} UTC${times}` }));
  const picture = element("img", { src: `/quarantine/${entry.key}.png`, alt: `Picture ${entry.key.slice(0, 8)}, ${guess}`, loading: "lazy" });
  const item = element("li", { tabIndex: -1 }, element("figure", {}, picture, caption), marks);
  item.dataset.key = entry.key;
  display(item, entry.mark);
  return item;
}

function display(item, mark) {
  item.dataset.mark = mark ?? "";
  item.setAttribute("aria-label", `${item.querySelector("img").alt}, ${mark ?? "unmarked"}`);
  for (const button of item.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.mark === mark);
}

async function send(item, mark) {
  const headers = { "Content-Type": "application/json" };
  await ask(`/quarantine/${item.dataset.key}`, { method: "POST", headers, body: JSON.stringify({ mark }) });
  display(item, mark);
  count();
}

async function choose(item, mark) {
  const before = item.dataset.mark || null;
  try {
    await send(item, mark);
    done.push([item, before]);
    undo.disabled = false;
    say(mark === null ? "Mark taken back" : `Marked ${mark}`);
  } catch (error) { say(error.message); }
}

async function takeBack() {
  if (!done.length) return;
  const [item, before] = done.at(-1);
  try {
    await send(item, before);
    done.pop();
    undo.disabled = !done.length;
    say("Undone");
    if (item.isConnected) item.focus();
  } catch (error) { say(error.message); }
}

function numbers(counts) {
  for (const button of filters) {
    const shown = button.dataset.show;
    button.querySelector("b").textContent = shown ? counts[shown] : Object.values(counts).reduce((sum, one) => sum + one, 0);
  }
}

async function count() {
  try { numbers((await ask("/quarantine?limit=1")).counts); } catch (error) { say(error.message); }
}

async function load(after) {
  const mine = ++turn, query = new URLSearchParams();
  if (show) query.set("mark", show);
  if (predicted.value) query.set("predicted", predicted.value);
  if (after) query.set("after", after);
  try {
    const page = await ask(`/quarantine?${query}`);
    if (mine !== turn) return;
    if (!after) grid.replaceChildren();
    grid.append(...page.entries.map(tile));
    if (!grid.querySelector('[tabindex="0"]') && grid.firstElementChild) grid.firstElementChild.tabIndex = 0;
    next = page.next;
    more.hidden = next === null;
    document.getElementById("empty").hidden = grid.childElementCount > 0;
    numbers(page.counts);
  } catch (error) { say(error.message); }
}

function columns() {
  const [first, ...rest] = grid.children;
  const below = rest.findIndex((item) => item.offsetTop > first.offsetTop);
  return below < 0 ? grid.childElementCount : below + 1;
}

function move(key) {
  const items = [...grid.children], at = items.indexOf(document.activeElement.closest("#grid li"));
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[key];
  const to = at < 0 ? 0 : at + step;
  if (to >= 0 && to < items.length) items[to].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  const item = document.activeElement.closest("#grid li");
  if (event.key.startsWith("Arrow") && grid.childElementCount) move(event.key);
  else if (event.key === "z") takeBack();
  else if (keys[event.key] && item) choose(item, keys[event.key]);
  else return;
  event.preventDefault();
});
grid.addEventListener("focusin", (event) => {
  for (const item of grid.querySelectorAll('[tabindex="0"]')) item.tabIndex = -1;
  event.target.closest("li").tabIndex = 0;
});
for (const button of filters) {
  button.addEventListener("click", () => {
    show = button.dataset.show;
    for (const other of filters) other.setAttribute("aria-pressed", other === button);
    const mark = show || "poisoned";
    exporting.href = `/quarantine/export.zip?mark=${mark}`;
    exporting.textContent = `Export ${mark}`;
    load(null);
  });
}
predicted.addEventListener("change", () => load(null));
more.addEventListener("click", () => load(next));
undo.addEventListener("click", takeBack);
load(null);
