// One exchange: an overview, and its messages if it has some.

import { account, explanation } from "./account.js";
import { clock, duration, elapsed, element, method, size, statusText, tone } from "./format.js";
import { Messages } from "./messages.js";

const KINDS = { http: "HTTP", sse: "event stream", websocket: "WebSocket" };

export class Detail {
  #box;
  #actions;
  #facts;
  #aside;
  #done; // what keyrelay did
  #reason;
  #tabs;
  #messages = null;
  #chosen = false; // whether the user has chosen a view of this exchange
  number = null;

  constructor(box, actions) {
    this.#box = box;
    this.#actions = actions;
  }

  // Shows the exchange at once; the rest follows with `showDetail`, or `failed`.
  open(one) {
    this.number = one.number;
    this.#chosen = false;
    this.#facts = element("dl", { className: "facts" });
    this.#aside = element("p", { className: "hint", hidden: true });
    this.#reason = element("section", { className: "reason", "aria-label": "Why it failed", hidden: true });
    this.#done = element("div", { className: "done" });
    this.#messages = new Messages(this.#actions.copyText);
    this.#messages.hold();
    const overview = element("div", { className: "overview", tabIndex: 0 }, this.#reason, this.#facts, this.#done, this.#aside);
    this.#tabs = new Tabs({ Overview: overview, Messages: this.#messages.node }, () => { this.#chosen = true; });
    const copy = element("button", { id: "copy", textContent: "Copy as cURL", onclick: this.#actions.copy });
    const close = element("button", { id: "close", textContent: "Close", onclick: this.#actions.close });
    const title = element("h2", { textContent: `${method(one)} ${one.path}` });
    this.#box.replaceChildren(
      element("div", { className: "detail-head" }, title, copy, close), this.#tabs.node, overview, this.#messages.node);
    this.#box.hidden = false;
    this.update(one);
  }

  close() {
    this.number = null;
    this.#messages = null;
    this.#box.hidden = true;
    this.#box.replaceChildren();
  }

  update(one) {
    const status = element("span", { className: `status tone-${tone(one)}`, textContent: statusText(one) });
    const facts = [
      ["Status", status],
      ["Route", one.route],
      ["Kind", KINDS[one.kind] + (one.open ? ", open" : "")],
      ["Strategy", one.strategy],
      ["Outcome", one.outcome],
      ["Note", one.note],
      ["Started", clock(one.started, true)],
      ["First byte", duration(one.first_byte_ms)],
      ["Duration", duration(elapsed(one, Date.now()))],
      ["Sent", size(one.sent)],
      ["Received", size(one.received)],
      ["Request", one.request_id],
    ];
    const filled = facts.filter(([, value]) => value !== "");
    this.#facts.replaceChildren(...filled.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", {}, value),
    ]));
    const why = explanation(one);
    this.#reason.hidden = !why;
    this.#reason.className = `reason tone-${tone(one)}`;
    this.#reason.replaceChildren(...(why ?? []).filter(Boolean).map((text, place) =>
      element("p", { className: place ? "advice" : "what", textContent: text })));
    this.#tabs.offer(one.kind !== "http");
    if (!this.#chosen) this.#tabs.show(one.kind === "http" ? "Overview" : "Messages");
  }

  // Messages are held back until `showDetail` or `failed`, as some that were before may be missing.
  hold() {
    this.#messages.hold();
  }

  // The messages captured so far; null if no inspector was open when it began.
  showDetail(one, conversation, detail) {
    this.#done.replaceChildren(...(detail ? account(one, detail) : []));
    const unread = one.kind === "websocket" && one.status === 101 && !conversation;
    this.#messages.settle(conversation, unread
      ? "Opened while no inspector was: the boundaries of its messages are unknown, so only its bytes are counted." : "");
    this.#explain(detail ? "Values of other fields, queries and bodies are not recorded."
      : "What keyrelay did was not recorded: no inspector was open when it began, or it was refused before a route was found.");
  }

  failed(reason) {
    this.#messages.settle(null, `Earlier messages could not be fetched: ${reason}`);
    this.#explain(reason);
  }

  append(message) {
    this.#messages.append(message);
  }

  #explain(text) {
    this.#aside.textContent = text;
    this.#aside.hidden = !text;
  }
}

// Views of which one is visible (WAI-ARIA Authoring Practices, tabs).
class Tabs {
  #views;
  #buttons = {};
  node;

  constructor(views, chosen) {
    this.#views = views;
    this.node = element("div", { className: "tabs views", role: "tablist", "aria-label": "Views of the exchange" });
    for (const [name, view] of Object.entries(views)) {
      const id = `view-${name.toLowerCase()}`;
      view.id = id;
      view.setAttribute("role", "tabpanel");
      view.setAttribute("aria-labelledby", `tab-${id}`);
      this.#buttons[name] = element("button", { id: `tab-${id}`, role: "tab", "aria-controls": id, textContent: name,
        onclick: () => { chosen(); this.show(name); } });
    }
    this.node.append(...Object.values(this.#buttons));
    this.node.addEventListener("keydown", (event) => {
      const names = Object.keys(views);
      const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!steps || this.node.hidden) return;
      event.stopPropagation();
      const now = names.findIndex((name) => !views[name].hidden);
      const next = names[(now + steps + names.length) % names.length];
      this.#buttons[next].click();
      this.#buttons[next].focus();
    });
  }

  offer(several) {
    this.node.hidden = !several;
  }

  show(name) {
    for (const [one, view] of Object.entries(this.#views)) {
      view.hidden = one !== name;
      this.#buttons[one].ariaSelected = String(one === name);
      this.#buttons[one].tabIndex = one === name ? 0 : -1;
    }
  }
}
