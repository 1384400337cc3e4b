// A table that is wider than the window shows one row after the other, each cell with its heading,
// instead of hiding columns behind its edge.
(() => {
  const name = table => {
    const heads = [...table.querySelectorAll("thead th")].map(cell => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr"))
      [...row.cells].forEach((cell, at) => { cell.dataset.head = heads[at] || ""; });
  };
  const fit = table => {
    table.classList.remove("rows");
    // The theme puts a box that scrolls around each table, once the page is there.
    const box = table.closest(".md-typeset__scrollwrap") || table.parentElement;
    table.classList.toggle("rows", box.scrollWidth > box.clientWidth);
  };
  const tables = () => document.querySelectorAll("article table:not(.highlighttable)");
  const all = () => tables().forEach(fit);
  tables().forEach(name);
  addEventListener("load", all);
  addEventListener("resize", all);
})();
