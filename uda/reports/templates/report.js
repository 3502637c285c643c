"use strict";
// Tables: a click on a heading sorts by its column, a second one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (head.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ||
        (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (x, y) => {
        if (!head.classList.contains("n")) return x.localeCompare(y) * (down ? -1 : 1);
        const [a, b] = [parseFloat(x), parseFloat(y)];
        // What is no number comes last, either way.
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
        return (a - b) * (down ? -1 : 1);
      };
      body.append(...[...body.rows].sort((x, y) => compare(text(x), text(y))));
    });
  });
}
// Sliders: a native range over two pictures, so mouse, touch and arrow keys work by themselves.
for (const input of document.querySelectorAll(".slider input")) {
  const move = () => input.parentElement.style.setProperty("--at", `${input.value}%`);
  input.addEventListener("input", move);
  move();
}
// Lists of pictures in another order: each option names a data attribute; "-" before it: downward.
for (const select of document.querySelectorAll("select[data-sorts]")) {
  const list = document.getElementById(select.dataset.sorts);
  select.addEventListener("change", () => {
    const down = select.value.startsWith("-");
    const key = select.value.slice(down ? 1 : 0);
    const compare = (x, y) => {
      const [a, b] = [x, y].map(item => item.getAttribute(`data-${key}`));
      // What has no such value comes last, either way.
      if (a === null || b === null) return (a === null) - (b === null);
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    };
    list.append(...[...list.children].sort(compare));
  });
}
