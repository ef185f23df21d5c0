"""Style sheet and script of the HTML pages.

The script sorts tables, hides methods, chooses what stands beside a value, enlarges figures, and
opens what a link points to. Pages show everything without it.
"""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fff;
  --ink: #1a1a1a;
  --faint: #555;
  --line: #8886;
  --soft: #8881;
  --errors: #e8710a;
  --link: #0b57d0;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #161616; --ink: #eee; --faint: #b5b5b5; --errors: #b45309; --link: #8ab4f8; }
}
html { background: var(--page); color: var(--ink); }
a { color: var(--link); }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 76rem; }
h1, h2, h3, p, li, summary, figcaption, table.cards td { overflow-wrap: anywhere; }
td:not(.number) { min-width: 5rem; max-width: 44rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.3rem; border-bottom: 2px solid var(--line); margin-top: 3rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; list-style: none; padding: 0; }
.finding { font-size: 1.2rem; line-height: 1.4; max-width: 52rem; text-wrap: pretty; }
.about, .caption, .notes, small, figcaption, .sd, .mark { color: var(--faint); }
.mark { margin-left: .15em; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.evidence { margin-bottom: 1rem; }
.swatch { width: .7em; height: .7em; margin-right: .4em; display: inline-block; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; font-size: .9rem; }
.controls[hidden] { display: none; }
.controls fieldset {
  border: 1px solid var(--line);
  border-radius: .4rem;
  display: flex;
  flex-wrap: wrap;
  gap: .1rem .9rem;
  margin: 0;
  padding: .2rem .8rem .4rem;
  min-width: 0;
}
.controls label { min-height: 1.7rem; overflow-wrap: anywhere; }
[data-spread=interval] .sd, [data-spread=sd] .interval { display: none; }
td.shaded { background: color-mix(in srgb, var(--errors) calc(var(--depth) * .75), transparent); }
.caption { max-width: 60rem; font-size: .9rem; }
.notes { font-size: .85rem; padding-left: 1.5rem; list-style: none; }
.notes b { display: inline-block; min-width: 1.5em; margin-left: -1.5em; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td {
  padding: .3rem .6rem;
  text-align: left;
  vertical-align: top;
  border-bottom: 1px solid var(--line);
}
thead th { border-bottom: 2px solid; vertical-align: bottom; }
td.number, th.number { text-align: right; white-space: nowrap; }
td small { display: block; }
table.facts td { min-width: 0; overflow-wrap: anywhere; }
tr.part th { background: var(--soft); font-weight: 600; }
tr.upstream td:first-child { font-style: italic; }
thead button, .enlarge {
  font: inherit;
  color: inherit;
  background: none;
  border: 0;
  padding: 0;
  cursor: pointer;
  text-align: inherit;
}
thead button::after { content: " \\2195"; color: var(--faint); }
[aria-sort=ascending] button::after { content: " \\2191"; }
[aria-sort=descending] button::after { content: " \\2193"; }
button:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid;
  outline-offset: 2px;
}
.figures {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 1.5rem;
  margin: 1.2rem 0;
}
figure { margin: 0; }
.drawing { position: relative; max-width: 40rem; }
.drawing svg { width: 100%; height: auto; display: block; }
figure.full { grid-column: 1 / -1; }
figure.paper .drawing { background: white; color: black; border-radius: .4rem; padding: .3rem; }
figcaption { font-size: .85rem; max-width: 60rem; margin-top: .3rem; }
.enlarge { position: absolute; inset: 0; width: 100%; cursor: zoom-in; }
dialog { max-width: 98vw; max-height: 98vh; padding: .5rem; border: 1px solid var(--line); }
dialog { background: var(--page); color: var(--ink); }
dialog.paper { background: white; color: black; }
dialog svg { width: 94vw; height: auto; max-height: 88vh; cursor: zoom-out; }
dialog.wide svg { width: auto; min-width: 94vw; max-height: none; }
details {
  border: 1px solid var(--line);
  border-radius: .4rem;
  margin: .4rem 0;
  padding: .3rem .8rem;
}
summary { cursor: pointer; }
details[open] > summary { margin-bottom: .5rem; }
details details { margin-left: 0; }
svg.curves { max-width: 30rem; width: 100%; height: auto; }
pre { overflow-x: auto; font-size: .8rem; background: var(--soft); padding: .5rem; }
.warning {
  border-left: .4rem solid;
  padding: .3rem .8rem;
  background: var(--soft);
  font-weight: 600;
}
@media (max-width: 40rem) {
  figure.full .drawing { overflow-x: auto; }
  figure.full svg, figure.full .enlarge { width: 42rem; max-width: none; }
  .finding { font-size: 1.1rem; }
  body { padding: .7rem; }
  table.cards thead {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
  }
  table.cards, table.cards tbody, table.cards tr, table.cards td { display: block; width: 100%; }
  table.cards tr {
    border: 1px solid var(--line);
    border-radius: .4rem;
    margin-bottom: .7rem;
    padding: .2rem .5rem;
  }
  table.cards tr { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem 1rem; }
  table.cards td {
    text-align: left;
    white-space: normal;
    max-width: none;
    min-width: 0;
    border: 0;
    padding: .1rem 0;
  }
  table.cards td::before {
    content: attr(data-label);
    display: block;
    font-size: .8rem;
    color: var(--faint);
  }
  table.cards td:first-child { font-weight: 600; grid-column: 1 / -1; font-size: 1rem; }
  table.cards td:first-child::before { display: none; }
}
@media (min-width: 56rem) {
  .evidence:has(figure) {
    display: grid;
    grid-template-columns: minmax(0, 32rem) minmax(0, 1fr);
    grid-template-rows: auto 1fr;
    gap: 1rem 2rem;
  }
  .evidence .figures, .evidence figure { display: contents; }
  .evidence .drawing { grid-row: 1 / 3; }
  .evidence .controls { flex-direction: column; justify-content: start; }
}
@media print {
  details { break-inside: avoid; }
  nav, .controls { display: none; }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = row => row.cells[column].dataset.sort;
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return descending ? -order : order;
      });
      body.append(...rows);
    });
  });
}
for (const controls of document.querySelectorAll(".controls")) {
  const section = controls.closest("section");
  controls.hidden = false;
  controls.addEventListener("change", event => {
    const input = event.target;
    if (input.type === "radio") {
      section.dataset.spread = input.value;
      return;
    }
    const parts = `[data-series="${input.value}"], .series-${input.value}`;
    for (const part of section.querySelectorAll(parts)) {
      part.style.display = input.checked ? "" : "none";
    }
  });
}
for (const drawing of document.querySelectorAll(".drawing")) {
  const button = document.createElement("button");
  button.className = "enlarge";
  button.type = "button";
  button.setAttribute("aria-label", "Enlarge: " + drawing.firstElementChild.ariaLabel);
  button.addEventListener("click", () => {
    const image = drawing.firstElementChild;
    const dialog = document.createElement("dialog");
    const box = image.viewBox.baseVal;
    const tall = box.height / box.width > innerHeight / innerWidth;
    const paper = drawing.parentElement.classList.contains("paper");
    dialog.className = (tall ? "wide" : "") + (paper ? " paper" : "");
    dialog.append(image);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { drawing.prepend(image); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
  drawing.append(button);
}
const reveal = () => {
  let found = location.hash && document.getElementById(location.hash.slice(1));
  for (; found; found = found.parentElement) if (found.localName === "details") found.open = true;
};
addEventListener("hashchange", reveal);
reveal();
"""
