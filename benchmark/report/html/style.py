"""Style sheet and script of the HTML page; the script only sorts tables."""

CSS = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 76rem; }
h1, h2, h3, p, li, summary, figcaption, table.cards td { overflow-wrap: anywhere; }
td:not(.number) { min-width: 5rem; max-width: 44rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.3rem; border-bottom: 2px solid var(--line); margin-top: 3rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
nav ul { padding-left: 1.2rem; }
.caption, .notes, small { opacity: .8; }
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
button {
  font: inherit;
  color: inherit;
  background: none;
  border: 0;
  padding: 0;
  cursor: pointer;
  text-align: inherit;
}
button::after { content: " \\2195"; opacity: .5; }
[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
button:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid;
  outline-offset: 2px;
}
.figures {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 1.5rem;
}
figure { margin: 0; }
figure img { width: 100%; max-width: 34rem; height: auto; background: white; }
figure.full { grid-column: 1 / -1; }
figure.full img { max-width: 56rem; }
figcaption { font-size: .85rem; }
details {
  border: 1px solid var(--line);
  border-radius: .4rem;
  margin: .4rem 0;
  padding: .3rem .8rem;
}
summary { cursor: pointer; }
details svg { max-width: 30rem; width: 100%; height: auto; }
pre { overflow-x: auto; font-size: .8rem; background: var(--soft); padding: .5rem; }
.warning {
  border-left: .4rem solid;
  padding: .3rem .8rem;
  background: var(--soft);
  font-weight: 600;
}
@media (max-width: 40rem) {
  figure.full { overflow-x: auto; }
  figure.full img { width: 42rem; max-width: none; }
  figure.full figcaption { position: sticky; left: 0; }
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
  table.cards td {
    display: flex;
    justify-content: space-between;
    gap: 1rem;
    text-align: right;
    white-space: normal;
    max-width: none;
    border-bottom: 1px solid var(--line);
    padding: .25rem 0;
  }
  table.cards td:last-child { border-bottom: 0; }
  table.cards td::before {
    content: attr(data-label);
    flex: 0 0 40%;
    text-align: left;
    opacity: .75;
  }
  table.cards td > span { min-width: 0; }
  table.cards td:first-child { font-weight: 600; }
  table.cards td small { text-align: right; }
}
@media print {
  details { break-inside: avoid; }
  nav { display: none; }
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
"""
