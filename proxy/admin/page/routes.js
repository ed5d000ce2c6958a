// The routes: which are ready and what the others lack, credentials and how old they are, pools.

import { clock, element, span } from "./format.js";

export class Routes {
  #box;
  #reload;
  #status = null;
  #received = 0;
  #ticking = [];

  constructor(box, reload) {
    this.#box = box;
    this.#reload = element("button", { id: "reload", textContent: "Reload configuration", onclick: reload });
  }

  show(status) {
    this.#status = status;
    this.#received = performance.now();
    this.#ticking = [];
    const started = element("span");
    this.#tick(started, (more) => `up ${span(status.at - status.started + more)}`);
    const many = status.pids.length;
    const head = element("div", { className: "routes-head" },
      element("p", { className: "quiet" }, `${many === 1 ? `process ${status.pids[0]}` : `${many} processes`}, `, started,
        `, at ${status.listeners.map((one) => one.url).join(", ")}`),
      this.#reload);
    const cards = Object.entries(status.routes).map(([name, route]) => this.#card(name, route, status.tally[name]));
    this.#box.replaceChildren(head, ...this.#last(status.reloads), element("div", { className: "cards" }, ...cards));
    this.tick();
  }

  busy(busy) {
    this.#reload.disabled = busy;
  }

  // Ages are advanced here: a status is sent only when something else changes.
  tick() {
    const more = (performance.now() - this.#received) / 1000;
    for (const [node, text] of this.#ticking) node.textContent = text(more);
  }

  #tick(node, text) {
    this.#ticking.push([node, text]);
  }

  #last({ last, count, failed }) {
    if (!last) return [];
    const bad = last.findings.length > 0;
    const title = bad
      ? `The configuration of ${clock(last.at)} was not taken; the one before serves.`
      : `Reloaded at ${clock(last.at)}${last.changed.length ? "" : ": nothing is different"}.`;
    const lines = [...(bad ? last.findings : last.changed), ...last.warnings];
    return [element("section", { id: "reloaded", className: bad ? "findings" : "changes", title: `${count} reloads, ${failed} not taken` },
      element("h3", { textContent: title }),
      element("ul", {}, ...lines.map((text) => element("li", { textContent: text }))))];
  }

  #card(name, route, tally) {
    const ready = !route.unready;
    const card = element("article", { className: "card" },
      element("header", {}, element("h3", { textContent: name }),
        element("span", { className: ready ? "state" : "state off", textContent: ready ? "ready" : "not ready" })),
      element("p", { className: "where", textContent: `${route.prefix} → ${route.origin}` }));
    if (!ready) card.append(element("p", { className: "remedy", textContent: route.unready }));
    const requests = Object.values(tally?.requests ?? {}).flatMap((codes) => Object.values(codes)).reduce((a, b) => a + b, 0);
    const { pool } = route;
    card.append(figures({
      requests,
      "in flight": route.in_flight,
      WebSockets: route.websockets,
      connections: pool.open,
      idle: pool.idle,
      spare: pool.spares,
    }));
    const taken = pool.reused + pool.spared + pool.dialled;
    if (taken) {
      const ahead = Math.round((100 * (pool.reused + pool.spared)) / taken);
      card.append(element("p", { className: "quiet", textContent: `${ahead} % of requests waited for no connection (${pool.reused} reused, ${pool.spared} spare, ${pool.dialled} dialled)` }));
    }
    const lines = [...route.strategies.map((one) => this.#strategy(one)), ...route.secrets.map(secret)];
    if (lines.length) card.append(element("ul", { className: "line" }, ...lines));
    return card;
  }

  #strategy({ name, scope, credential }) {
    const line = element("li", {}, element("b", { textContent: name || "credential" }), ` for ${scope}`);
    if (!credential) return line;
    const state = element("span", { className: "token" });
    line.append(": ", state);
    this.#tick(state, (more) => {
      if (credential.age_seconds === null) return "no token yet";
      const left = credential.renews_in_seconds;
      const next = left === null ? "" : left - more > 0 ? `, renewed in ${span(left - more)}` : ", renewed when it is next needed";
      return `token ${span(credential.age_seconds + more)} old${next}`;
    });
    line.append(`; ${credential.fetches} fetched`);
    if (credential.last_failure) {
      line.append(element("div", { className: "tone-bad", textContent: `${credential.failures} failed, last: ${credential.last_failure}` }));
    }
    return line;
  }
}

function secret({ name, reference, fingerprint, served, refused, last_refused: last }) {
  const line = element("li", {}, element("b", { textContent: name }), ` ${reference} `,
    element("span", { className: "mono quiet", textContent: fingerprint }), `, served ${served}`);
  if (refused) line.append(element("span", { className: "tone-bad", textContent: `, refused ${refused}, last ${clock(last)}` }));
  return line;
}

function figures(named) {
  return element("dl", { className: "figures" }, ...Object.entries(named).map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: String(value) }))));
}
