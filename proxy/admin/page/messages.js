// The messages of one exchange: those captured so far, then each as it arrives.

import { content } from "./content.js";
import { clock, element, size } from "./format.js";

// What the listener keeps of a conversation as well.
const KEPT = 500;
const ARROWS = { client: "↑", provider: "↓", keyrelay: "·" };
// Distance from the end, in pixels, within which the newest message stays in view.
const NEAR = 40;

export class Messages {
  #count = element("span", { className: "message-count quiet", role: "status", textContent: "none yet" });
  #search = element("input", { className: "message-search", type: "search", placeholder: "Search messages", "aria-label": "Search messages" });
  #side = element("select", { className: "message-side", "aria-label": "Direction" },
    element("option", { value: "", textContent: "Both ways" }),
    element("option", { value: "client", textContent: "↑ From the client" }),
    element("option", { value: "provider", textContent: "↓ From the provider" }));
  #newest = element("button", { className: "newest", textContent: "↓ Newest", hidden: true });
  #list = element("div", { className: "messages", role: "log", "aria-label": "Messages" });
  #note = element("p", { className: "aside" });
  #scroll;
  #rows = []; // [message, node, text to search]
  #last = 0;
  #held = null; // arrive before those captured so far have
  #following = true;
  #copy;
  node;

  constructor(copy) {
    this.#copy = copy;
    this.#scroll = element("div", { className: "messages-scroll", tabIndex: 0, role: "region", "aria-label": "Messages, oldest first" },
      this.#note, this.#list);
    this.node = element("div", { className: "messages-pane" },
      element("div", { className: "messages-head" }, element("h3", { textContent: "Messages" }), this.#count, this.#search, this.#side),
      this.#scroll, this.#newest);
    this.#newest.onclick = () => this.#follow(true);
    this.#search.oninput = this.#side.onchange = () => this.#filter();
    this.#scroll.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
      this.#follow(scrollHeight - scrollTop - clientHeight < NEAR);
    }, { passive: true });
    // Rows may become taller than they were, and the pane shorter.
    const observer = new ResizeObserver(() => this.#follow(this.#following));
    observer.observe(this.#list);
    observer.observe(this.#scroll);
  }

  // Hold what arrives until `settle`, so that no message overtakes an earlier one.
  hold() {
    this.#held ??= [];
  }

  // The messages captured so far, null if there are none; those held follow. `note` stands above.
  settle(conversation, note = "") {
    const held = this.#held ?? [];
    this.#held = null;
    for (const message of [...(conversation?.messages ?? []), ...held]) this.append(message);
    this.#note.textContent = note;
    this.#note.hidden = !note;
  }

  append(message) {
    if (this.#held) {
      this.#held.push(message);
      return;
    }
    if (message.place <= this.#last) return;
    this.#last = message.place;
    const found = content(message);
    const node = this.#line(message, found);
    const row = [message, node, `${found.label} ${found.whole}`.toLowerCase()];
    this.#rows.push(row);
    this.#list.append(node);
    node.hidden = !this.#matches(row);
    while (this.#rows.length > KEPT) this.#rows.shift()[1].remove();
    this.#report();
  }

  #matches([message, , text]) {
    const side = this.#side.value;
    return (!side || message.sender === side) && text.includes(this.#search.value.toLowerCase());
  }

  #filter() {
    for (const row of this.#rows) row[1].hidden = !this.#matches(row);
    this.#report();
    this.#follow(this.#following);
  }

  #report() {
    const kept = this.#rows.length;
    const shown = this.#rows.filter(([, node]) => !node.hidden).length;
    const last = this.#last > kept ? `, the last ${kept} of them here` : "";
    this.#count.textContent = shown === kept ? `${this.#last}${last}` : `${shown} of ${kept}`;
  }

  #follow(following) {
    this.#following = following;
    this.#newest.hidden = following;
    if (following) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  #line(message, { label, text, whole }) {
    const control = ["ping", "pong", "close"].includes(message.kind);
    const meta = message.kind === "note" ? [] : [clock(message.at, true), ...(control ? [] : [size(message.size)])];
    const pre = element("pre", { textContent: text });
    const body = element("div", { className: "body" },
      label && element("span", { className: "label", textContent: label }), pre);
    if (whole !== text) {
      const unfold = element("button", { className: "small", textContent: "Unfold", "aria-expanded": "false" });
      unfold.onclick = () => {
        const folded = pre.textContent === text;
        pre.textContent = folded ? whole : text;
        unfold.textContent = folded ? "Fold" : "Unfold";
        unfold.ariaExpanded = String(folded);
      };
      body.append(unfold);
    }
    const copy = message.kind === "note" ? null : element("button", { className: "small copy-message", textContent: "Copy",
      "aria-label": `Copy message ${message.place}`, onclick: () => this.#copy(message.text) });
    return element("div", { className: `message from-${message.sender}${control ? " control" : ""}` },
      element("span", { className: "arrow", role: "img", "aria-label": `from the ${message.sender}`, textContent: ARROWS[message.sender], title: `from the ${message.sender}` }),
      body, element("div", { className: "meta" }, meta.join("  "), copy));
  }
}
