// A trace as a waterfall: one line a span, in the order of the tree, its bar where it lies in time.
const SVG = "http://www.w3.org/2000/svg";

// Depth first, children by their start; what has lost its parent is a root.
function inOrder(spans) {
  const ids = new Set(spans.map((span) => span.id));
  const children = new Map();
  for (const span of spans) {
    const parent = ids.has(span.parent) ? span.parent : "";
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const lines = [];
  const visit = (span, depth) => {
    lines.push([span, depth]);
    for (const child of (children.get(span.id) ?? []).sort((a, b) => a.start - b.start)) visit(child, depth + 1);
  };
  for (const root of (children.get("") ?? []).sort((a, b) => a.start - b.start)) visit(root, 0);
  return lines;
}

function bar(span, start, total) {
  const svg = document.createElementNS(SVG, "svg");
  const [x, width] = [(100 * (span.start - start)) / total, (100 * (span.end - span.start)) / total];
  const rect = document.createElementNS(SVG, "rect");
  const at = { x: `${x}%`, y: 4, width: `${Math.max(width, 0.15)}%`, height: 10, rx: 2, fill: "currentcolor" };
  for (const [name, value] of Object.entries(at)) rect.setAttribute(name, value);
  const label = document.createElementNS(SVG, "text");
  // After the bar, else before it, else, where it fills its line, within.
  const [where, anchor] = x + width < 85 ? [x + width + 0.6, "start"] : x > 15 ? [x - 0.6, "end"] : [x + width - 0.6, "end"];
  label.setAttribute("x", `${where}%`);
  label.setAttribute("y", 13);
  label.setAttribute("text-anchor", anchor);
  if (where > x && where < x + width) label.setAttribute("class", "within");
  label.textContent = `${((span.end - span.start) * 1000).toFixed(1)} ms`;
  svg.append(rect, label);
  return svg;
}

// Without what all names share: a method's package, an event's prefix and version, the namespace of a trigger.
const short = (name) => name.replace(/^shop\.\w+\.v\d+\./, "").replace(/ shop[./]/, " ").replace(/\.v\d+$/, "");

const isStore = (span) => span.kind === "CLIENT" && "db.system.name" in span.attributes;

export function drawWaterfall(place, all, withStore) {
  const spans = withStore ? all : lifted(all);
  if (!spans.length) return place.replaceChildren();
  const start = Math.min(...spans.map((span) => span.start));
  const total = Math.max(...spans.map((span) => span.end)) - start || 1e-6;
  place.replaceChildren(...inOrder(spans).map(([span, depth]) => {
    const line = document.createElement("div");
    line.className = `span s-${span.service}`;
    const name = document.createElement("div");
    name.style.paddingLeft = `${Math.min(depth, 16) * 9}px`;
    name.textContent = `${span.service}  ${short(span.name)}`;
    name.title = `${span.service}  ${span.name}\n${Object.entries(span.attributes).map(([k, v]) => `${k}: ${v}`).join("\n")}`;
    if (span.failed) name.className = "failed";
    const time = document.createElement("div");
    time.className = "bar";
    time.append(bar(span, start, total));
    line.append(name, time);
    return line;
  }));
}

// All but the store operations, each hung under the nearest of its parents that is none.
function lifted(all) {
  const byId = new Map(all.map((span) => [span.id, span]));
  return all.filter((span) => !isStore(span)).map((span) => {
    let parent = byId.get(span.parent);
    while (parent && isStore(parent)) parent = byId.get(parent.parent);
    return { ...span, parent: parent?.id ?? span.parent };
  });
}
