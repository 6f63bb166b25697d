// The flow of events as a graph: services where they always are, an arrow for each pair that events pass between.
const SVG = "http://www.w3.org/2000/svg";
const PLACES = { orders: [320, 70], products: [110, 190], payments: [530, 190], notifications: [450, 395], users: [190, 395] };
const [WIDTH, HEIGHT] = [120, 44];

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text != null) made.textContent = text;
  return made;
}

function places(names) {
  const rest = names.filter((name) => !(name in PLACES) && !["broker", "gateway", "console"].includes(name));
  const others = rest.map((name, i) => [name, [320, 190 + 70 * i]]);
  return { ...PLACES, ...Object.fromEntries(others) };
}

// Where the line from the centre of a box towards a point leaves the box.
function border([x, y], [toX, toY]) {
  const [dx, dy] = [toX - x, toY - y];
  const scale = Math.min((WIDTH / 2 + 6) / Math.abs(dx || 1e-9), (HEIGHT / 2 + 6) / Math.abs(dy || 1e-9));
  return [x + dx * scale, y + dy * scale];
}

function edge(from, to, flows, service) {
  const [[x1, y1], [x2, y2]] = [from, to];
  const length = Math.hypot(x2 - x1, y2 - y1);
  // Bent to the left of its direction, so that both directions are seen.
  const middle = [(x1 + x2) / 2 - ((y2 - y1) / length) * 34, (y1 + y2) / 2 + ((x2 - x1) / length) * 34];
  const [start, end] = [border(from, middle), border(to, middle)];
  const count = flows.reduce((sum, flow) => sum + flow.count, 0);
  const rate = flows.reduce((sum, flow) => sum + flow.rate, 0);
  const made = shape("g", { class: `edge s-${service}${rate > 0 ? " live" : ""}` });
  const width = 1.5 + Math.min(3, Math.log10(1 + count));
  made.append(shape("path", { d: `M${start} Q${middle} ${end}`, "stroke-width": width, "marker-end": "url(#arrow)" }));
  const at = [(start[0] + end[0] + 2 * middle[0]) / 4, (start[1] + end[1] + 2 * middle[1]) / 4];
  made.append(shape("text", { x: at[0], y: at[1] + 4 }, `${count}${rate > 0 ? ` · ${rate.toFixed(1)}/s` : ""}`));
  made.append(shape("title", {}, flows.map((flow) => `${flow.type}: ${flow.count}, p95 ${flow.p95_ms} ms`).join("\n")));
  return made;
}

export function drawFlow(svg, names, flows) {
  const where = places(names);
  const pairs = new Map();
  for (const flow of flows) {
    if (!(flow.from in where) || !(flow.to in where) || flow.from === flow.to) continue;
    const key = `${flow.from}>${flow.to}`;
    pairs.set(key, [...(pairs.get(key) ?? []), flow]);
  }
  const definitions = shape("defs", {});
  const arrow = shape("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 9, markerHeight: 9,
    markerUnits: "userSpaceOnUse", orient: "auto" });
  arrow.append(shape("path", { d: "M0 0 L8 4 L0 8 z", fill: "context-stroke" }));
  definitions.append(arrow);
  const edges = [...pairs.values()].map((of) => edge(where[of[0].from], where[of[0].to], of, of[0].from));
  const nodes = Object.entries(where).filter(([name]) => names.includes(name)).map(([name, [x, y]]) => {
    const node = shape("g", { class: `node s-${name}` });
    const handled = flows.filter((flow) => flow.to === name).reduce((sum, flow) => sum + flow.count, 0);
    node.append(shape("rect", { x: x - WIDTH / 2, y: y - HEIGHT / 2, width: WIDTH, height: HEIGHT, rx: 8 }),
      shape("text", { x, y: y - 1 }, name), shape("text", { x, y: y + 14, class: "note" }, `${handled} events handled`));
    return node;
  });
  svg.replaceChildren(definitions, ...edges, ...nodes);
}
