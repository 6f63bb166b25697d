// The console's page. Everything shown comes from spans or from outside: it is put in as text, never as markup.
import { drawFlow } from "/console/flow.js";
import { drawWaterfall } from "/console/waterfall.js";

const byId = (id) => document.getElementById(id);
const views = ["overview", "orders", "dead-letters"];
let chosen = null; // the order that is shown
let shown = ""; // what the order's card was drawn of

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function ask(path, options) {
  const answer = await fetch(`/console/api/${path}`, options);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? body.title ?? `status ${answer.status}`);
  return body;
}

const ms = (value) => (value == null ? "–" : value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`);
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
const short = (type) => type.replace(/^shop\./, "").replace(/\.v\d+$/, "");
const plain = (name) => name.replace(/^shop\.\w+\.v\d+\./, "");

function row(cells, failed) {
  const made = element("tr");
  made.append(...cells.map((cell) => (cell instanceof Node ? cell : element("td", String(cell)))));
  if (failed > 0) made.children[failed].className = "failed";
  return made;
}

function drawParts(parts) {
  byId("parts").tBodies[0].replaceChildren(...parts.map((part) => {
    const name = element("td");
    name.append(element("span", "", { class: part.ready ? "dot ready" : "dot", title: part.ready ? "ready" : "not ready" }));
    name.append(part.name);
    name.title = `${part.url} · pid ${part.pid ?? "none"}`;
    const work = part.work ?? { count: 0, rate: 0, failed: 0, p50_ms: null, p95_ms: null };
    const cells = [name, work.count, work.rate, work.failed, ms(work.p50_ms), ms(work.p95_ms), part.restarts];
    return row(cells, work.failed ? 3 : 0);
  }));
}

function drawOperations(operations) {
  const slowest = operations.filter((o) => !o.name.endsWith("/WatchOrder") && !o.name.endsWith("/stream"))
    .sort((a, b) => b.p95_ms - a.p95_ms).slice(0, 11);
  byId("operations").tBodies[0].replaceChildren(...slowest.map((o) => {
    const name = element("td", `${o.service}  ${plain(o.name)}`, { class: `s-${o.service}`, title: o.name });
    return row([name, o.count, o.failed, ms(o.p50_ms), ms(o.p95_ms)], o.failed ? 2 : 0);
  }));
}

function drawState(overview) {
  const down = overview.parts.filter((part) => !part.ready).map((part) => part.name);
  const state = byId("state");
  state.className = down.length || !overview.parts.length ? "bad" : "good";
  state.textContent = down.length ? `Not ready: ${down.join(", ")}` : `${overview.parts.length} parts ready`;
  const d = overview.deliveries;
  byId("deliveries").textContent =
    `${d.attempts} deliveries · ${d.retries} retries · ${d.failed} failed attempts · ${d.dead_lettered} dead-lettered`;
}

function drawOrders(orders) {
  chosen = chosen ?? orders[0]?.id ?? null;
  byId("orders-items").replaceChildren(...orders.map((order) => {
    const button = element("button", "", order.id === chosen ? { "aria-current": "true" } : {});
    button.append(element("span", `…${order.id.slice(-8)}`), element("span", order.status, { class: `status ${order.status}` }),
      element("small", clock(order.placed_at)), element("small", `${order.steps.length} events · ${order.seconds.toFixed(2)} s`));
    button.addEventListener("click", () => { location.hash = `orders/${order.id}`; });
    const item = element("li");
    item.append(button);
    return item;
  }));
  return orders.find((order) => order.id === chosen);
}

async function drawOrder(order) {
  if (!order) return;
  const traces = [...new Set(order.steps.map((step) => step.trace))];
  const answers = await Promise.all(traces.map((id) => ask(`traces/${id}`).catch(() => ({ items: [] }))));
  const spans = answers.flatMap((answer) => answer.items);
  const withStore = byId("with-store").checked;
  const now = JSON.stringify([order, spans.length, withStore]);
  if (now === shown) return;
  shown = now;
  byId("order-title").textContent = order.id;
  byId("order-note").textContent = `${order.status} · ${order.steps.length} events over ${order.seconds.toFixed(3)} s · ` +
    `${spans.length} spans in ${traces.length} trace${traces.length > 1 ? "s" : ""}`;
  byId("timeline").replaceChildren(...order.steps.map((step) => {
    const item = element("li", short(step.type), { class: `s-${step.service}` });
    item.append(element("small", `${step.service} · +${(step.at - order.placed_at).toFixed(3)} s`));
    return item;
  }));
  byId("store-label").hidden = false;
  drawWaterfall(byId("waterfall"), spans, withStore);
}

async function replay(id) {
  try {
    await ask(`dead-letters/${id}/replay`, { method: "POST", headers: { "x-console": "1" } });
    await refresh();
  } catch (error) {
    byId("letters-note").textContent = `Not replayed: ${error.message}`;
  }
}

function drawLetters(letters) {
  byId("letters-count").hidden = !letters.length;
  byId("letters-count").textContent = letters.length < 50 ? letters.length : "50+";
  byId("replay-all").hidden = !letters.length;
  byId("letters-note").textContent = letters.length ? "Events that their subscribers refused, or that were tried too often." :
    "None: every event was delivered.";
  byId("letters").tBodies[0].replaceChildren(...letters.map((letter) => {
    const button = element("button", "Replay");
    button.addEventListener("click", () => replay(letter.id));
    const cell = element("td");
    cell.append(button);
    const answer = element("td", `${letter.error_code ?? ""} ${letter.error ?? ""}`, { title: letter.error ?? "" });
    return row([short(letter.type), letter.subject ?? "", letter.trigger ?? "", answer, letter.failures,
      letter.last_failed_at.slice(11, 19), cell]);
  }));
}

async function refresh() {
  const [overview, letters] = await Promise.all([ask("overview"), ask("dead-letters").catch(() => ({ items: [] }))]);
  drawState(overview);
  drawLetters(letters.items);
  if (!byId("overview").hidden) {
    drawParts(overview.parts);
    drawOperations(overview.operations);
    drawFlow(byId("flow"), overview.parts.map((part) => part.name), overview.flow);
  }
  if (!byId("orders").hidden) await drawOrder(drawOrders((await ask("orders")).items));
}

function route() {
  const [view, id] = location.hash.slice(1).split("/");
  const current = views.includes(view) ? view : "overview";
  for (const name of views) byId(name).hidden = name !== current;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (id) chosen = id;
  tick();
}

let timer = 0;
async function tick() {
  clearTimeout(timer);
  try {
    if (!document.hidden) await refresh();
  } catch {
    byId("state").className = "bad";
    byId("state").textContent = "The platform does not answer";
  }
  clearTimeout(timer);
  timer = setTimeout(tick, 1000);
}

window.addEventListener("hashchange", route);
document.addEventListener("visibilitychange", tick);
byId("with-store").addEventListener("change", tick);
byId("replay-all").addEventListener("click", () => replay("all"));
route();
