// The list of exchanges. However many there are, only the rows in sight are in the document.

import { clock, duration, elapsed, element, method, reason, size, statusText, tone } from "./format.js";

const CELLS = ["time", "method", "route", "path", "status", "reason", "first", "duration", "sent", "received"];
const AHEAD = 6;
const small = matchMedia("(max-width: 719px)");

export class List {
  #box;
  #space;
  #rows = [];
  #shown = [];
  #selected = null;

  constructor(box, space, choose) {
    this.#box = box;
    this.#space = space;
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
    small.addEventListener("change", () => this.draw());
    space.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) choose(Number(row.dataset.number));
    });
  }

  get #height() {
    return small.matches ? 54 : 30;
  }

  get shown() {
    return this.#shown;
  }

  // Newest first. A scrolled list keeps its visible rows in place.
  show(exchanges, selected) {
    const before = this.#shown;
    this.#shown = exchanges;
    this.#selected = selected;
    this.#space.style.height = `${exchanges.length * this.#height}px`;
    this.#box.setAttribute("aria-rowcount", exchanges.length);
    const top = Math.floor(this.#box.scrollTop / this.#height);
    if (top > 0 && before[top]) {
      const now = exchanges.findIndex((one) => one.number === before[top].number);
      if (now >= 0 && now !== top) this.#box.scrollTop += (now - top) * this.#height;
    }
    this.draw();
  }

  reveal(place) {
    const at = place * this.#height;
    const { scrollTop, clientHeight } = this.#box;
    if (at < scrollTop) this.#box.scrollTop = at;
    else if (at + this.#height > scrollTop + clientHeight) this.#box.scrollTop = at + this.#height - clientHeight;
  }

  // How many rows a page is.
  get page() {
    return Math.max(1, Math.floor(this.#box.clientHeight / this.#height) - 1);
  }

  draw() {
    const height = this.#height;
    const first = Math.max(0, Math.floor(this.#box.scrollTop / height) - AHEAD);
    const count = Math.ceil(this.#box.clientHeight / height) + 2 * AHEAD;
    const last = Math.min(this.#shown.length, first + count);
    const needed = Math.max(0, last - first);
    while (this.#rows.length < needed) this.#rows.push(this.#make());
    while (this.#rows.length > needed) this.#rows.pop().node.remove();
    const now = Date.now();
    let active = "";
    for (let place = first; place < last; place += 1) {
      // Each place keeps its row while it is in sight, so scrolling changes only the edges.
      const row = this.#rows[place % needed];
      this.#fill(row, this.#shown[place], place, height, now);
      if (this.#shown[place].number === this.#selected) active = row.node.id;
    }
    if (active) this.#box.setAttribute("aria-activedescendant", active);
    else this.#box.removeAttribute("aria-activedescendant");
  }

  #make() {
    const cells = CELLS.map((name) => element("span", { className: name, role: "gridcell" }));
    for (const cell of cells.slice(6)) cell.classList.add("number");
    const node = element("div", { role: "row" }, ...cells);
    this.#space.append(node);
    return { node, cells, texts: new Array(CELLS.length).fill("") };
  }

  #fill(row, one, place, height, now) {
    const { node } = row;
    const texts = [
      clock(one.started, true),
      method(one),
      one.route,
      one.path,
      statusText(one),
      reason(one),
      duration(one.first_byte_ms),
      duration(elapsed(one, now)),
      one.sent || one.open ? size(one.sent) : "",
      one.received || one.open ? size(one.received) : "",
    ];
    texts.forEach((text, index) => {
      if (row.texts[index] !== text) row.cells[index].textContent = row.texts[index] = text;
    });
    const className = `row kind-${one.kind}${one.open ? " live" : ""}`;
    if (node.className !== className) node.className = className;
    const mark = `status tone-${tone(one)}`;
    if (row.cells[4].className !== mark) row.cells[4].className = mark;
    const chosen = String(one.number === this.#selected);
    if (node.getAttribute("aria-selected") !== chosen) node.setAttribute("aria-selected", chosen);
    const at = `translateY(${place * height}px)`;
    if (node.style.transform !== at) node.style.transform = at;
    if (node.dataset.number !== String(one.number)) {
      node.dataset.number = one.number;
      node.id = `exchange-${one.number}`;
    }
    node.setAttribute("aria-rowindex", place + 1);
  }
}
