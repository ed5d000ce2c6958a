// One exchange: its fields, and its messages while it is open.

import { clock, duration, elapsed, element, method, size, statusText, tone } from "./format.js";

// What the listener keeps of a conversation as well.
const KEPT = 500;
const ARROWS = { client: "↑", provider: "↓", keyrelay: "·" };

export class Detail {
  #box;
  #actions;
  #facts;
  #messages = null;
  #more = null;
  #last = 0;
  number = null;

  constructor(box, actions) {
    this.#box = box;
    this.#actions = actions;
  }

  // Shows the exchange at once; its messages follow with `showMessages`.
  open(one) {
    this.number = one.number;
    this.#messages = null;
    this.#last = 0;
    this.#facts = element("dl", { className: "facts" });
    this.#more = element("div", { className: "more" });
    const copy = element("button", { id: "copy", textContent: "Copy as cURL", onclick: this.#actions.copy });
    const close = element("button", { id: "close", textContent: "Close", onclick: this.#actions.close });
    const title = element("h2", { textContent: `${method(one)} ${one.path}` });
    this.#box.replaceChildren(
      element("div", { className: "detail-head" }, title, copy, close), this.#facts, this.#more);
    this.#box.hidden = false;
    this.#box.scrollTop = 0;
    this.update(one);
  }

  close() {
    this.number = null;
    this.#box.hidden = true;
    this.#box.replaceChildren();
  }

  update(one) {
    const status = element("span", { className: `status tone-${tone(one)}`, textContent: statusText(one) });
    const facts = [
      ["Status", status],
      ["Route", one.route],
      ["Kind", { http: "HTTP", sse: "event stream", websocket: "WebSocket" }[one.kind] + (one.open ? ", open" : "")],
      ["Strategy", one.strategy],
      ["Outcome", one.outcome],
      ["Note", one.note],
      ["Started", clock(one.started, true)],
      ["First byte", duration(one.first_byte_ms)],
      ["Duration", duration(elapsed(one, Date.now()))],
      ["Sent", one.open && one.kind === "websocket" ? "" : size(one.sent)],
      ["Received", one.open && one.kind === "websocket" ? "" : size(one.received)],
      ["Request", one.request_id],
    ];
    const filled = facts.filter(([, value]) => value !== "");
    this.#facts.replaceChildren(...filled.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", {}, value),
    ]));
    if (this.#messages === null && this.#more.childElementCount === 0 && one.kind === "http") {
      this.#explain("Headers and bodies are never recorded.");
    }
  }

  // The messages captured so far; null if no inspector was open when it began.
  showMessages(one, conversation) {
    if (conversation) {
      this.#begin(conversation.dropped);
      for (const message of conversation.messages) this.append(message);
    } else if (one.kind === "websocket" && one.status === 101) {
      this.#explain("Opened while no inspector was: the boundaries of its messages are unknown, so only its bytes are counted.");
    } else {
      this.#explain("Headers and bodies are never recorded.");
    }
  }

  append(message) {
    if (message.place <= this.#last) return;
    if (this.#messages === null) this.#begin(0);
    this.#last = message.place;
    const below = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 60;
    this.#messages.append(line(message));
    while (this.#messages.childElementCount > KEPT) this.#messages.firstElementChild.remove();
    const earlier = message.place - this.#messages.childElementCount;
    this.#more.querySelector(".message-count").textContent =
      `${message.place}${earlier > 0 ? `, the last ${this.#messages.childElementCount} of them here` : ""}`;
    if (below) this.#box.scrollTop = this.#box.scrollHeight;
  }

  #begin() {
    this.#messages = element("div", { className: "messages", role: "log", "aria-label": "Messages" });
    const head = element("div", { className: "messages-head" },
      element("h3", { textContent: "Messages" }), element("span", { className: "message-count quiet", textContent: "none yet" }));
    this.#more.replaceChildren(head, this.#messages);
  }

  #explain(text) {
    this.#more.replaceChildren(element("p", { className: "aside", textContent: text }));
  }
}

function line(message) {
  const control = ["ping", "pong", "close"].includes(message.kind);
  const meta = [clock(message.at, true)];
  if (message.kind === "note") meta.length = 0;
  else if (!control) meta.push(message.kind === "binary" ? `${size(message.size)} binary` : size(message.size));
  const text = `${control ? `${message.kind} ` : ""}${message.text}${message.cut ? " …" : ""}`;
  return element("div", { className: `message from-${message.sender}${control ? " control" : ""}` },
    element("span", { className: "arrow", textContent: ARROWS[message.sender], title: `from the ${message.sender}` }),
    element("pre", { textContent: text }),
    element("span", { className: "meta", textContent: meta.join("  ") }));
}
