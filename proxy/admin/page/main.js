// The inspector: applies events of the stream and actions of the user to the page.

import { Detail } from "./detail.js";
import { parse } from "./filter.js";
import { curl, elapsed, element } from "./format.js";
import { List } from "./list.js";
import { Routes } from "./routes.js";
import { listen, Refused, request, takeToken } from "./stream.js";

// Exchanges in this page; older ones go.
const KEPT = 2000;
const AGAIN_MS = 1500;

const $ = (id) => document.getElementById(id);
const byNumber = new Map();
let order = []; // numbers of the exchanges, ascending
let clearedTo = 0;
let frozen = null; // what is shown while paused
let arrivedMeanwhile = 0;
let matches = null;
let sorting = null; // a comparison of two exchanges; null for the newest first
let status = null;
let selected = null;
let drawing = false;
let run = null; // which start of keyrelay the numbers belong to

const list = new List($("list"), $("space"), (number) => { select(number); openDetail(); });
const detail = new Detail($("detail"), { copy: () => copy(), copyText: (text) => toClipboard(text, "Copied."), close: () => closeDetail() });
const routes = new Routes($("routes"), () => reload());

// -- exchanges ------------------------------------------------------------------------------------

function take(one) {
  const before = byNumber.get(one.number);
  if (!before) {
    if (one.number <= clearedTo) return;
    if (!order.length || one.number > order.at(-1)) order.push(one.number);
    else order.splice(order.findIndex((number) => number > one.number), 0, one.number);
    arrivedMeanwhile += 1;
  } else if (!before.open && one.open) {
    return;
  }
  byNumber.set(one.number, one);
  if (order.length > KEPT * 1.1) forget(order.length - KEPT);
  if (one.number === detail.number) detail.update(one);
}

function forget(count) {
  for (const number of order.splice(0, count)) byNumber.delete(number);
}

function newestFirst() {
  return order.slice(-KEPT).reverse().map((number) => byNumber.get(number));
}

function apply(name, data) {
  if (name === "exchanges") resume(data);
  else if (name === "status") showStatus(data);
  else if (name === "progress") data.moved.forEach(progress);
  else if (name === "message") addMessage(data);
  else if (name === "gap") resync(data.lost);
  else changed(data);
  drawSoon();
}

// An exchange has begun, has a response, or has ended: what keyrelay did has become more.
function changed(one) {
  take(one);
  if (one.number !== detail.number) return;
  detail.hold();
  fetchDetail(one.number);
}

// After another start of keyrelay its numbers begin anew, and those before mean something else.
function takeAll(data) {
  if (run !== null && run !== data.run) {
    clear();
    clearedTo = 0;
  }
  run = data.run;
  data.exchanges.forEach(take);
}

// The stream begins, or begins again: events in between are not known.
function resume(data) {
  takeAll(data);
  if (detail.number === null) return;
  detail.hold();
  fetchDetail(detail.number);
}

function progress([number, sent, received]) {
  const one = byNumber.get(number);
  if (one?.open) take({ ...one, sent, received });
}

function addMessage(message) {
  // Its messages reveal a stream of server-sent events before the record of the exchange does.
  const one = byNumber.get(message.number);
  if (one && one.kind !== message.conversation) take({ ...one, kind: message.conversation });
  if (message.number === detail.number) detail.append(message);
}

async function resync(lost) {
  toast(`${lost} events came too fast for this page and were left out.`);
  if (detail.number !== null) detail.hold();
  try {
    takeAll(await (await request("/api/exchanges")).json());
  } catch (error) {
    toast(error.message);
  }
  if (detail.number !== null) await fetchDetail(detail.number);
  drawSoon();
}

// -- drawing --------------------------------------------------------------------------------------

function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; draw(); });
}

function draw() {
  const all = frozen ?? newestFirst();
  const found = matches ? all.filter(matches) : all;
  const shown = sorting ? found.toSorted(sorting) : found;
  list.show(shown, selected);
  const waiting = frozen && arrivedMeanwhile ? `, ${arrivedMeanwhile} more since` : "";
  $("count").value = (matches ? `${shown.length} of ${all.length}` : `${all.length}`) + waiting;
  const empty = $("empty");
  empty.hidden = shown.length > 0;
  if (!shown.length) showEmpty(empty, all.length > 0);
}

function showEmpty(empty, filtered) {
  const url = status?.listeners.find((one) => one.route === null)?.url;
  const text = filtered ? "Nothing matches the filter."
    : url ? `Waiting for the first request to ${url}` : "Waiting for the first request.";
  if (empty.textContent !== text) empty.textContent = text;
}

function showStatus(current) {
  status = current;
  $("version").textContent = current.version;
  const unready = Object.values(current.routes).filter((route) => route.unready).length;
  $("unready").hidden = !unready;
  $("unready").textContent = unready;
  $("unready").title = `${unready} not ready`;
  routes.show(current);
}

function link(state, text) {
  if ($("link").textContent === text) return;
  $("link").dataset.state = state;
  $("link").textContent = text;
}

let hiding;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { $("toast").hidden = true; }, 3500);
}

function gate(title, text) {
  $("gate").hidden = !title;
  document.querySelector("main").hidden = Boolean(title);
  $("gate-title").textContent = title;
  $("gate-text").textContent = text;
}

function view(name) {
  for (const one of ["traffic", "routes"]) {
    $(one).hidden = one !== name;
    $(`tab-${one}`).ariaSelected = String(one === name);
    $(`tab-${one}`).tabIndex = one === name ? 0 : -1;
  }
  drawSoon();
}

// -- actions of the user ------------------------------------------------------------------------

function select(number) {
  selected = number;
  drawSoon();
}

function move(steps) {
  const { shown } = list;
  if (!shown.length) return;
  const now = shown.findIndex((one) => one.number === selected);
  const place = Math.min(shown.length - 1, Math.max(0, now < 0 ? 0 : now + steps));
  list.reveal(place);
  select(shown[place].number);
  if (detail.number !== null) openDetail();
}

function openDetail() {
  const one = byNumber.get(selected) ?? list.shown.find(({ number }) => number === selected);
  if (!one || one.number === detail.number) return;
  detail.open(one);
  fetchDetail(one.number);
}

async function fetchDetail(number) {
  try {
    const found = await (await request(`/api/exchanges/${number}`)).json();
    take(found.exchange);
    if (detail.number === number) detail.showDetail(found.exchange, found.conversation, found.detail);
  } catch (error) {
    // It ended too long ago, while this page kept it, or keyrelay ended.
    if (detail.number === number) detail.failed(error.message);
  }
}

function closeDetail() {
  if (detail.number === null) return;
  detail.close();
  $("list").focus({ preventScroll: true });
}

async function copy() {
  const one = byNumber.get(selected) ?? list.shown.find(({ number }) => number === selected);
  const text = one && curl(one, status);
  if (!text) return toast("There is no route to copy a call of.");
  const without = ["query", "headers", ...(one.sent && one.kind !== "websocket" ? ["body"] : [])];
  await toClipboard(text, `Copied. Not in it, as not recorded: ${without.join(", ")}.`);
}

async function toClipboard(text, done) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return toast(text); // the browser does not let this page copy, so it is there to be selected
  }
  toast(done);
}

async function reload() {
  routes.busy(true);
  try {
    const report = await (await request("/api/reload", { method: "POST" })).json();
    toast(report.findings.length ? "Not taken: see what was found." : "Reloaded.");
    showStatus(await (await request("/api/status")).json());
  } catch (error) {
    toast(error.message);
  } finally {
    routes.busy(false);
  }
}

function pause() {
  frozen = frozen ? null : newestFirst();
  arrivedMeanwhile = 0;
  $("pause").ariaPressed = String(Boolean(frozen));
  $("pause").textContent = frozen ? "Resume" : "Pause";
  drawSoon();
}

function clear() {
  clearedTo = order.at(-1) ?? clearedTo;
  forget(order.length);
  if (frozen) frozen = [];
  selected = null;
  detail.close();
  drawSoon();
}

// Comparisons of two exchanges; the newer of equal ones first.
const by = (value) => (a, b) => value(b) - value(a) || b.number - a.number;
const SORTS = {
  slowest: by((one) => elapsed(one, Date.now())),
  waited: by((one) => one.first_byte_ms ?? 0),
  largest: by((one) => one.received + one.sent),
  status: by((one) => one.status),
};

// A link cannot send the token, so the archive is fetched and given to the browser as a file.
async function exportHar() {
  try {
    const file = URL.createObjectURL(await (await request("/api/har")).blob());
    element("a", { href: file, download: "keyrelay.har" }).click();
    setTimeout(() => URL.revokeObjectURL(file), 10_000);
    toast("Exported: without bodies, credentials and values of queries.");
  } catch (error) {
    toast(error.message);
  }
}

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  PageDown: () => move(list.page), PageUp: () => move(-list.page),
  Home: () => move(-KEPT * 2), End: () => move(KEPT * 2),
  Enter: () => openDetail(), c: () => copy(), "/": () => $("filter").focus(), Escape: () => closeDetail(),
};

const SCROLLING = new Set(["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End"]);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("traffic").hidden) return;
  const { target } = event;
  if (target === $("filter")) {
    if (event.key === "Escape" && !target.value) $("list").focus();
    if (event.key === "Enter" || event.key === "ArrowDown") { $("list").focus(); move(0); }
    return;
  }
  // A field of text or of choices has its own keys.
  if (target.closest("input, select")) {
    if (event.key === "Escape") $("list").focus();
    return;
  }
  // Enter presses a button that has the focus, and a pane with the focus scrolls.
  if (event.key === "Enter" && target.closest("button")) return;
  if (SCROLLING.has(event.key) && target.closest("#detail")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

$("filter").addEventListener("input", () => { matches = parse($("filter").value); drawSoon(); });
$("sort").addEventListener("change", () => { sorting = SORTS[$("sort").value] ?? null; drawSoon(); });
$("pause").addEventListener("click", pause);
$("clear").addEventListener("click", clear);
$("export").addEventListener("click", exportHar);
for (const one of ["traffic", "routes"]) $(`tab-${one}`).addEventListener("click", () => view(one));
document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  const other = $("traffic").hidden ? "traffic" : "routes";
  view(other);
  $(`tab-${other}`).focus();
});
setInterval(() => {
  routes.tick();
  if (!document.hidden) list.draw();
  const one = byNumber.get(detail.number);
  if (one?.open) detail.update(one);
}, 1000);

// -- the stream -----------------------------------------------------------------------------------

// The token is reported as wrong only after a response with status 401.
async function watch() {
  for (;;) {
    const again = new Promise((resolve) => { addEventListener("hashchange", resolve, { once: true }); });
    if (!takeToken()) {
      link("lost", "no token");
      gate("This address has no token", TOKEN_HELP);
      await again;
      continue;
    }
    try {
      await listen((name, data) => { gate("", ""); link("live", "live"); apply(name, data); });
      link("lost", "ended, trying again");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        link("lost", "wrong token");
        gate("The token is not the right one", TOKEN_HELP);
        await again;
        continue;
      }
      link("lost", error instanceof Refused ? error.message : "not reached, trying again");
    }
    await Promise.race([again, new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); })]);
  }
}

const TOKEN_HELP = "keyrelay makes a new token at every start. It stands within the address of this page:\n\n" +
  `${location.origin}/#token=…\n\nOpen that address as a whole. This prints it: keyrelay status --page`;

watch();
