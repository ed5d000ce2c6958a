// The messages of one exchange: those captured so far, then each as it arrives.

import { clock, element, size } from "./format.js";

// What the listener keeps of a conversation as well.
const KEPT = 500;
const ARROWS = { client: "↑", provider: "↓", keyrelay: "·" };
// Distance from the end, in pixels, within which the newest message stays in view.
const NEAR = 40;

export class Messages {
  #count = element("span", { className: "message-count quiet", textContent: "none yet" });
  #newest = element("button", { className: "newest", textContent: "↓ Newest", hidden: true });
  #list = element("div", { className: "messages", role: "log", "aria-label": "Messages" });
  #note = element("p", { className: "aside" });
  #scroll;
  #last = 0;
  #held = null; // arrive before those captured so far have
  #following = true;
  node;

  constructor() {
    this.#scroll = element("div", { className: "messages-scroll", tabIndex: 0, role: "region", "aria-label": "Messages, oldest first" },
      this.#note, this.#list);
    this.node = element("div", { className: "messages-pane" },
      element("div", { className: "messages-head" }, element("h3", { textContent: "Messages" }), this.#count, this.#newest),
      this.#scroll);
    this.#newest.onclick = () => this.#follow(true);
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
    this.#list.append(line(message));
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild.remove();
    const shown = this.#list.childElementCount;
    this.#count.textContent = `${message.place}${message.place > shown ? `, the last ${shown} of them here` : ""}`;
  }

  #follow(following) {
    this.#following = following;
    this.#newest.hidden = following;
    if (following) this.#scroll.scrollTop = this.#scroll.scrollHeight;
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
