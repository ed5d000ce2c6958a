// Formatted values, and elements. Data becomes text, never markup.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const two = (number) => String(number).padStart(2, "0");

export function clock(seconds, fine = false) {
  const at = new Date(seconds * 1000);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return fine ? `${text}.${String(at.getMilliseconds()).padStart(3, "0")}` : text;
}

export function duration(ms) {
  if (ms === null) return "";
  if (ms < 0.05) return "< 0.1 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  return span(ms / 1000);
}

export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  for (const unit of ["kB", "MB", "GB"]) {
    bytes /= 1000;
    if (bytes < 999.5 || unit === "GB") return `${bytes < 9.95 ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
  }
}

export const method = (one) => (one.kind === "websocket" ? "WS" : one.kind === "sse" ? `${one.method} ⇣` : one.method);

// A colour, and the shape of the mark before it.
export function tone({ status, outcome, open }) {
  if (!status && open) return "open";
  if (status >= 500 || !status || (outcome && status < 400)) return "bad";
  if (status >= 400) return "warn";
  return status >= 300 ? "moved" : "good";
}

export const statusText = ({ status, open }) => (status ? String(status) : open ? "…" : "none");

// Why it failed, in a word: keyrelay's own reason, or that the status is the provider's.
export const reason = ({ status, outcome }) => outcome || (status >= 400 ? "provider" : "");

export function elapsed(one, now) {
  return one.open ? Math.max(0, now - one.started * 1000) : one.duration_ms;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Against keyrelay, which adds the credential: there is none in it.
export function curl(one, status) {
  const route = status?.routes[one.route];
  if (!route) return null;
  const own = status.listeners.find((listener) => listener.route === one.route);
  const shared = status.listeners.find((listener) => listener.route === null);
  const listener = shared ?? own;
  if (!listener) return null;
  const prefix = listener.route === null ? route.prefix : "";
  // A path may hold brackets and braces, which cURL would take for ranges and sets.
  const words = ["curl", "--globoff"];
  let base = listener.url;
  if (base.startsWith("unix:")) {
    words.push("--unix-socket", quoted(base.slice("unix:".length)));
    base = "http://localhost";
  }
  if (one.kind === "websocket") {
    words.push("--no-buffer", "--http1.1", "-i", "-H 'Connection: Upgrade'", "-H 'Upgrade: websocket'");
    words.push("-H 'Sec-WebSocket-Version: 13'", "-H 'Sec-WebSocket-Key: a2V5cmVsYXkgaW5zcGVjdA=='");
  } else {
    if (one.kind === "sse") words.push("--no-buffer");
    if (one.method === "HEAD") words.push("--head");
    else if (one.method !== "GET") words.push("-X", one.method);
    if (one.sent) words.push("--data-binary @body");
  }
  words.push(quoted(base + prefix + one.path));
  return words.join(" ");
}
