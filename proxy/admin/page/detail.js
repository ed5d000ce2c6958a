// One exchange: its fields, and its messages while it is open.

import { clock, duration, elapsed, element, method, size, statusText, tone } from "./format.js";

// What the listener keeps of a conversation as well.
const KEPT = 500;
const ARROWS = { client: "↑", provider: "↓", keyrelay: "·" };

export class Detail {
  #box;
  #actions;
  #facts;
  #talk = null;
  #more = null;
  #last = 0;
  number = null;

  constructor(box, actions) {
    this.#box = box;
    this.#actions = actions;
  }

  // Shows the exchange at once; its messages follow with `tell`.
  open(one) {
    this.number = one.number;
    this.#talk = null;
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
    const said = facts.filter(([, value]) => value !== "");
    this.#facts.replaceChildren(...said.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", {}, value),
    ]));
    if (this.#talk === null && this.#more.childElementCount === 0 && one.kind === "http") {
      this.#explain("Headers and bodies are never recorded.");
    }
  }

  // The messages captured so far; null if no inspector was open when it began.
  tell(one, conversation) {
    if (conversation) {
      this.#begin(conversation.dropped);
      for (const said of conversation.messages) this.hear(said);
    } else if (one.kind === "websocket" && one.status === 101) {
      this.#explain("It was opened before anybody watched, so where its messages begin is not known: only its bytes are counted.");
    } else {
      this.#explain("Headers and bodies are never recorded.");
    }
  }

  hear(said) {
    if (said.place <= this.#last) return;
    if (this.#talk === null) this.#begin(0);
    this.#last = said.place;
    const below = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 60;
    this.#talk.append(line(said));
    while (this.#talk.childElementCount > KEPT) this.#talk.firstElementChild.remove();
    const earlier = said.place - this.#talk.childElementCount;
    this.#more.querySelector(".talk-count").textContent =
      `${said.place}${earlier > 0 ? `, the last ${this.#talk.childElementCount} of them here` : ""}`;
    if (below) this.#box.scrollTop = this.#box.scrollHeight;
  }

  #begin() {
    this.#talk = element("div", { className: "talk", role: "log", "aria-label": "Messages" });
    const head = element("div", { className: "talk-head" },
      element("h3", { textContent: "Messages" }), element("span", { className: "talk-count quiet", textContent: "none yet" }));
    this.#more.replaceChildren(head, this.#talk);
  }

  #explain(text) {
    this.#more.replaceChildren(element("p", { className: "aside", textContent: text }));
  }
}

function line(said) {
  const control = ["ping", "pong", "close"].includes(said.kind);
  const meta = [clock(said.at, true)];
  if (said.kind === "note") meta.length = 0;
  else if (!control) meta.push(said.kind === "binary" ? `${size(said.size)} binary` : size(said.size));
  const text = `${control ? `${said.kind} ` : ""}${said.text}${said.cut ? " …" : ""}`;
  return element("div", { className: `said from-${said.sender}${control ? " control" : ""}` },
    element("span", { className: "arrow", textContent: ARROWS[said.sender], title: `from the ${said.sender}` }),
    element("pre", { textContent: text }),
    element("span", { className: "meta", textContent: meta.join("  ") }));
}
