"use strict";
const cells = document.getElementById("cells");
if (cells) {
  const body = cells.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(cells.tHead.rows[0].cells);
  const value = (row, column) => {
    const text = row.cells[column].textContent;
    const number = Number(text);
    return text === "" || Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === typeof b) return String(a).localeCompare(String(b));
    return typeof a === "number" ? -1 : 1;
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
    body.append(...rows);
  }));
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const texts = Array.from(row.cells, (cell) => cell.textContent.toLowerCase());
      const fits = words.every((word) => texts.some((text) => Number.isNaN(Number(word)) ? text.includes(word) : text === word));
      row.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = `${count} of ${rows.length}`;
  });
}
