// A table with pictures and bars: a row opens, a heading sorts, arrows move between rows.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".table");
  const focused = root.getRootNode().activeElement?.dataset?.id;
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const cell = (column, value) => {
    const node = make("td", `is-${column.kind}${column.minor ? " minor" : ""}`);
    if (value === null || value === undefined) return node;
    if (column.kind === "pictures") {
      const strip = make("div", "strip");
      for (const [source, name] of value) {
        const picture = make("img", "picture");
        Object.assign(picture, { src: source, alt: name, title: name, draggable: false });
        strip.append(picture);
      }
      node.append(strip);
    } else if (column.kind === "bar") {
      const bar = make("span", "bar");
      bar.style.setProperty("--fill", `${Math.abs(value.fill) * 100}%`);
      if (value.colour) bar.style.setProperty("--tone", value.colour);
      node.append(bar, make("span", "text", value.text));
    } else if (column.kind === "badge") {
      const badge = make("span", `badge ${value.tone}`, value.text);
      node.append(badge);
    } else node.textContent = value;
    return node;
  };
  const head = make("tr", "");
  for (const column of data.columns) {
    const title = make("th", `is-${column.kind}${column.minor ? " minor" : ""}`);
    if (!column.sort) title.textContent = column.title;
    title.scope = "col";
    if (column.help) title.title = column.help;
    if (column.sort) {
      const button = make("button", "sort", column.title);
      const here = data.sorted?.[0] === column.id;
      button.append(make("span", "arrow", here ? (data.sorted[1] ? "↓" : "↑") : ""));
      title.setAttribute("aria-sort", here ? (data.sorted[1] ? "descending" : "ascending") : "none");
      button.onclick = () => setTriggerValue("sorted", column.id);
      title.append(button);
    }
    head.append(title);
  }
  const rows = data.rows.map((row) => {
    const line = make("tr", "row");
    data.columns.forEach((column, number) => {
      const node = cell(column, row.cells[column.id]);
      if (number === 0 && row.id !== undefined) {
        const open = make("button", "open", node.textContent);
        open.dataset.id = row.id;
        open.setAttribute("aria-label", row.title ?? node.textContent);
        if (row.title) line.title = row.title;
        node.replaceChildren(open);
      }
      line.append(node);
    });
    if (row.id !== undefined) {
      line.classList.add("link");
      line.onclick = () => setTriggerValue("opened", row.id);
    }
    return line;
  });
  const table = make("table", "");
  table.setAttribute("aria-label", data.name);
  if (data.columns.some((column) => column.title)) {
    table.append(make("thead", ""));
    table.tHead.append(head);
  }
  table.append(make("tbody", ""));
  table.tBodies[0].append(...rows);
  root.style.setProperty("--size", `${data.size}px`);
  root.replaceChildren(table);
  const links = [...root.querySelectorAll("button.open")];
  links.find((link) => link.dataset.id === focused)?.focus();
  root.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = step && links[links.indexOf(event.target) + step];
    if (!next || !links.includes(event.target)) return;
    event.preventDefault();
    next.focus();
  };
}
