// Predicted against actual: a point for each picture, the picture itself beside the pointer.
// Text is set as text, never as HTML. Arrows move through the points in order of the actual value.
const SPACE = "http://www.w3.org/2000/svg";
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".scatter");
  const make = (tag, attributes, text) => {
    const node = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const W = 640, H = 430, LEFT = 44, RIGHT = 10, TOP = 10, BOTTOM = 40;
  const values = data.points.flatMap((point) => [point.x, point.y]);
  const low = Math.min(...values), high = Math.max(...values, low + 1e-9);
  const span = (high - low) * 1.04, start = low - (high - low) * 0.02;
  const across = (v) => LEFT + ((v - start) / span) * (W - LEFT - RIGHT);
  const up = (v) => H - BOTTOM - ((v - start) / span) * (H - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": data.name });
  for (let each = 0; each <= 4; each++) {
    const v = start + (span * (each + 0.5)) / 5, text = v.toPrecision(2);
    svg.append(make("line", { class: "grid", x1: across(v), x2: across(v), y1: TOP, y2: H - BOTTOM }));
    svg.append(make("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: up(v), y2: up(v) }));
    svg.append(make("text", { x: across(v), y: H - BOTTOM + 16, "text-anchor": "middle" }, text));
    svg.append(make("text", { x: LEFT - 6, y: up(v) + 4, "text-anchor": "end" }, text));
  }
  const end = start + span;
  svg.append(make("line", { class: "equal", x1: across(start), y1: up(start), x2: across(end), y2: up(end) }));
  svg.append(make("text", { class: "title", x: (LEFT + W) / 2, y: H - 6, "text-anchor": "middle" }, "predicted"));
  const side = make("text", { class: "title", x: 12, y: H / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${H / 2})` }, "actual");
  svg.append(side);
  const card = document.createElement("div");
  card.className = "card";
  card.hidden = true;
  const image = document.createElement("img"), label = document.createElement("div");
  image.alt = "";
  card.append(image, label);
  const dots = data.points.map((point, number) => {
    const dot = make("circle", { cx: across(point.x), cy: up(point.y), r: 5, tabindex: number ? -1 : 0, role: "button" });
    dot.setAttribute("aria-label", point.title);
    if (point.extreme) dot.classList.add(point.extreme);
    const show = () => {
      image.src = point.src;
      label.textContent = point.title;
      card.hidden = false;
      const box = svg.getBoundingClientRect(), scale = box.width / W;
      const x = across(point.x) * scale, y = up(point.y) * scale;
      card.style.left = `${x > box.width - 170 ? x - 152 : x + 12}px`;
      card.style.top = `${Math.max(0, Math.min(y - 60, box.height - 150))}px`;
    };
    const hide = () => (card.hidden = true);
    dot.onpointerenter = show;
    dot.onpointerleave = hide;
    dot.onfocus = show;
    dot.onblur = hide;
    dot.onclick = () => setTriggerValue("clicked", point.id);
    return dot;
  });
  svg.append(...dots);
  svg.onkeydown = (event) => {
    const at = dots.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (at >= 0 && event.key === "Enter") dots[at].onclick();
    if (at < 0 || step === undefined || !dots[at + step]) return;
    event.preventDefault();
    dots.forEach((dot, number) => dot.setAttribute("tabindex", number === at + step ? 0 : -1));
    dots[at + step].focus();
  };
  root.replaceChildren(svg, card);
}
