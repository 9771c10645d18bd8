// References on a plane: a line drawn around points, or a click on one, chooses them; arrows move
// through the points from left to right, Enter chooses. Text is set as text, never as HTML.
const SPACE = "http://www.w3.org/2000/svg";
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".plane");
  const make = (tag, attributes, text) => {
    const node = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const W = 330, H = 260, EDGE = 10;
  const scale = (values, from, to) => {
    const low = Math.min(...values), span = Math.max(...values) - low;
    return (v) => (span > 0 ? from + ((v - low) / span) * (to - from) : (from + to) / 2);
  };
  const across = scale(data.points.map((point) => point.x), EDGE, W - EDGE);
  const up = scale(data.points.map((point) => point.y), H - EDGE, EDGE);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": data.name });
  const line = make("path", { class: "line" });
  const places = data.points.map((point) => [across(point.x), up(point.y)]);
  const order = places.map((place, at) => at).sort((a, b) => places[a][0] - places[b][0]);
  const dots = data.points.map((point, at) => {
    const [cx, cy] = places[at];
    const dot = make("circle", { cx, cy, r: point.marked ? 7 : 4.5, fill: point.colour, role: "button" });
    dot.setAttribute("aria-label", point.title);
    dot.setAttribute("tabindex", at === order[0] ? 0 : -1);
    if (point.marked) dot.classList.add("marked");
    if (point.dim) dot.classList.add("dim");
    dot.append(make("title", {}, point.title));
    return dot;
  });
  svg.append(...dots, line);
  const choose = (chosen) => setTriggerValue("chosen", chosen);
  const inside = ([x, y], around) => {
    let within = false;
    around.forEach(([x1, y1], at) => {
      const [x2, y2] = around[(at + 1) % around.length];
      if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) within = !within;
    });
    return within;
  };
  let around = null;
  const stop = () => {
    around = null;
    line.removeAttribute("d");
  };
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * W, ((event.clientY - box.top) / box.height) * H];
  };
  svg.onpointerdown = (event) => {
    if (event.button) return;
    svg.setPointerCapture(event.pointerId);
    around = [place(event)];
  };
  svg.onpointermove = (event) => {
    if (!around) return;
    around.push(place(event));
    line.setAttribute("d", `M${around.map((each) => each.join(" ")).join("L")}Z`);
  };
  svg.onpointerup = (event) => {
    if (!around) return;
    const [x, y] = around[0];
    const far = Math.max(...around.map(([a, b]) => Math.hypot(a - x, b - y)));
    const near = order.find((at) => Math.hypot(places[at][0] - x, places[at][1] - y) < 7);
    if (far > 6) choose(order.filter((at) => inside(places[at], around)));
    else if (near !== undefined) choose([near]);
    stop();
  };
  svg.onpointercancel = stop;
  svg.onkeydown = (event) => {
    const at = dots.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (event.key === "Escape") stop();
    if (at >= 0 && event.key === "Enter") choose([at]);
    const next = order[order.indexOf(at) + step];
    if (at < 0 || step === undefined || next === undefined) return;
    event.preventDefault();
    dots.forEach((dot, number) => dot.setAttribute("tabindex", number === next ? 0 : -1));
    dots[next].focus();
  };
  const legend = document.createElement("div");
  legend.className = "legend";
  for (const group of data.groups) {
    const name = document.createElement("span");
    name.textContent = group.name;
    name.style.setProperty("--mark", group.colour);
    legend.append(name);
  }
  root.replaceChildren(legend, svg);
}
