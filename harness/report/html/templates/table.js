const ON_PAPER = 50;  // rows
for (const box of document.querySelectorAll(".sorted")) sortable(box);

function sortable(box) {
  const body = box.querySelector("tbody"), heads = [...box.querySelectorAll("thead th")];
  const names = heads.map(head => head.textContent.toLowerCase().replaceAll(" ", "_"));
  // read once: a thousand rows are sorted and filtered as values, not as cells
  const rows = [...body.rows].map(row => {
    const texts = [...row.cells].map(cell => cell.textContent.trim().toLowerCase());
    const values = [...row.cells].map((cell, i) => value(cell.dataset.v ?? texts[i]));
    return {row, texts, values, line: texts.map((text, i) => `${names[i]}=${text}`).join(" ")};
  });
  const shown = box.querySelector("output"), input = box.querySelector("input");

  function filter() {
    const tests = input.value.toLowerCase().split(/\s+/).filter(Boolean).map(word => test(word, names));
    let count = 0;
    for (const row of rows) {
      row.row.hidden = !tests.every(passes => passes(row));
      count += !row.row.hidden;
      row.row.classList.toggle("rest", count > ON_PAPER);
    }
    shown.textContent = `${count} of ${rows.length}`;
  }

  function sort(column) {
    const head = heads[column], before = head.getAttribute("aria-sort");
    const first = head.dataset.first ?? "ascending", other = first === "ascending" ? "descending" : "ascending";
    const order = before === first ? other : first;
    for (const each of heads) each.setAttribute("aria-sort", each === head ? order : "none");
    rows.sort((a, b) => compare(a.values[column], b.values[column], order === "ascending" ? 1 : -1));
    body.append(...rows.map(row => row.row));
    filter();
  }

  input.addEventListener("input", filter);
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(i)));
}

// null: missing; "0.1" and "1e-4" are numbers, "64x112" is none
function value(text) {
  if (text === "–" || text === "") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

// what is missing stays below, whatever the order
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

// name=text, name>number, or letters that stand anywhere in the row
function test(word, names) {
  const [, name, sign, text] = /^([^<>=]+)(<=|>=|=|<|>)(.+)$/.exec(word) ?? [];
  const column = names.indexOf(name), wanted = value(text ?? "");
  if (column < 0) return row => row.line.includes(word);
  if (sign === "=") return row => row.values[column] === wanted || row.texts[column] === text;
  return row => typeof row.values[column] === "number" && typeof wanted === "number" &&
    {"<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b}[sign](
      row.values[column], wanted);
}
