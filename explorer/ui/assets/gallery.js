// Thumbnails in a grid: click or Enter picks one, arrows move. Text is set as text, never as HTML.
// Which one is picked comes by an event (picked.js), so that picking sends no picture again.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".gallery");
  const focused = root.getRootNode().activeElement?.dataset?.id;
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const cards = data.items.map((item, number) => {
    const card = make(data.clickable ? "button" : "div", "card");
    card.dataset.id = item.id;
    card.title = item.title;
    if (item.waits) card.classList.add("waits");
    if (item.colour) card.style.setProperty("--mark", item.colour);
    if (data.clickable) {
      card.type = "button";
      card.setAttribute("aria-label", item.title);
      card.tabIndex = number === 0 ? 0 : -1;
      card.onclick = () => setTriggerValue("clicked", item.id);
    }
    const frame = make("span", "frame");
    const picture = make("img", "picture");
    picture.src = item.src;
    picture.alt = data.clickable ? "" : item.title;
    picture.draggable = false;
    frame.append(picture);
    if (item.rank) frame.append(make("span", "rank", item.rank));
    if (item.colour) frame.append(make("span", "dot"));
    card.append(frame);
    if (item.label !== undefined) {
      const caption = make("span", "caption");
      caption.append(make("span", "label", item.label), make("span", "value", item.value));
      card.append(caption);
    }
    if (item.fill !== undefined) {
      const bar = make("span", "bar");
      bar.style.setProperty("--fill", `${100 * item.fill}%`);
      card.append(bar);
    }
    return card;
  });
  root.style.setProperty("--size", `${data.size}px`);
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.name);
  root.replaceChildren(...cards);
  const mark = () => {
    if (!data.clickable) return;
    for (const card of cards) card.setAttribute("aria-pressed", card.dataset.id === window.explorerPicked);
  };
  mark();
  root.unlisten?.();
  window.addEventListener("explorer-picked", mark);
  root.unlisten = () => window.removeEventListener("explorer-picked", mark);
  const focus = (card) => {
    cards.forEach((each) => (each.tabIndex = each === card ? 0 : -1));
    card.focus();
  };
  const again = data.clickable && cards.find((card) => card.dataset.id === focused);
  if (again) focus(again);
  root.onkeydown = (event) => {
    const at = cards.indexOf(event.target);
    if (at < 0) return;
    const top = cards[0].offsetTop;
    const row = Math.max(1, cards.filter((card) => card.offsetTop === top).length);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[event.key];
    const next = { Home: cards[0], End: cards.at(-1) }[event.key] ?? cards[at + step];
    if (!next || (step === undefined && !["Home", "End"].includes(event.key))) return;
    event.preventDefault();
    focus(next);
  };
  return root.unlisten;
}
