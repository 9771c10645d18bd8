// A histogram with logarithmic counts; each bar says what it counts under the pointer.
const SPACE = "http://www.w3.org/2000/svg";
export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".bars");
  const make = (tag, attributes, text) => {
    const node = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const W = 330, H = 160, LEFT = 32, RIGHT = 6, TOP = 6, BOTTOM = 34, LEAST = 0.7;
  const [start, end] = [data.edges[0], data.edges.at(-1)];
  const most = Math.log10(Math.max(...data.counts, 1) * 1.15), least = Math.log10(LEAST);
  const across = (v) => LEFT + ((v - start) / (end - start || 1)) * (W - LEFT - RIGHT);
  const up = (n) => H - BOTTOM - ((Math.log10(n) - least) / (most - least)) * (H - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": data.name });
  for (let n = 1; Math.log10(n) <= most; n *= 10) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: up(n), y2: up(n) }));
    svg.append(make("text", { x: LEFT - 6, y: up(n) + 4, "text-anchor": "end" }, n.toLocaleString("en")));
  }
  const rough = (end - start || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let each = Math.ceil(start / step - 1e-9); each * step <= end; each++) {
    const text = (each * step).toFixed(digits);
    svg.append(make("text", { x: across(each * step), y: H - BOTTOM + 15, "text-anchor": "middle" }, text));
  }
  svg.append(make("text", { x: (LEFT + W) / 2, y: H - 3, "text-anchor": "middle" }, "activation"));
  data.counts.forEach((count, at) => {
    if (!count) return;
    const [left, right] = [across(data.edges[at]), across(data.edges[at + 1])];
    const width = Math.max(0.9 * (right - left), 1), top = up(count);
    const bar = make("rect", { x: left, y: top, width, height: H - BOTTOM - top });
    if (data.threshold !== null && data.edges[at + 1] >= data.threshold) bar.classList.add("above");
    const middle = ((data.edges[at] + data.edges[at + 1]) / 2).toFixed(digits + 1);
    bar.append(make("title", {}, `activation ${middle}: ${count.toLocaleString("en")} pictures`));
    svg.append(bar);
  });
  root.replaceChildren(svg);
}
