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
    const { requests, failed } = counted(tally);
    const state = !ready ? ["state off", "not ready"] : requests && failed === requests ? ["state failing", "every call failed"] : ["state", "ready"];
    const card = element("article", { className: "card" },
      element("header", {}, element("h3", { textContent: name }),
        element("span", { className: state[0], textContent: state[1] })),
      element("p", { className: "where", textContent: `${route.prefix} → ${route.origin}` }));
    if (!ready) card.append(element("p", { className: "remedy", textContent: route.unready }));
    const { pool } = route;
    card.append(figures({
      requests,
      failed,
      "in flight": route.in_flight,
      WebSockets: route.websockets,
      connections: `${pool.open}${pool.idle + pool.spares ? `, ${pool.idle + pool.spares} unused` : ""}`,
    }));
    if (failed) card.append(element("p", { className: "tone-bad", textContent: reasons(tally) }));
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

// Requests that have ended, and those of them that failed. Those that a client gave up are neither.
function counted(tally) {
  const codes = Object.values(tally?.requests ?? {}).flatMap((one) => Object.entries(one));
  const sum = (holds) => codes.reduce((all, [code, count]) => (holds(code) ? all + count : all), 0);
  const broken = Object.entries(tally?.broken ?? {}).reduce((all, [why, count]) => (why === "client-left" ? all : all + count), 0);
  return { requests: sum((code) => code !== "none"), failed: sum((code) => /^[45]/.test(code)) + broken };
}

// Why, the most frequent first: reasons of keyrelay's own, then what the provider responded.
function reasons(tally) {
  const own = Object.entries({ ...tally.refusals, ...tally.broken }).filter(([why]) => why !== "client-left");
  const refused = Object.values(tally.refusals).reduce((all, count) => all + count, 0);
  const codes = Object.values(tally.requests).flatMap((one) => Object.entries(one)).filter(([code]) => /^[45]/.test(code));
  const provider = codes.reduce((all, [, count]) => all + count, 0) - refused;
  const lines = own.sort((a, b) => b[1] - a[1]).map(([why, count]) => `${count} ${why}`);
  if (provider > 0) lines.push(`${provider} by the provider ${refused ? "" : ` (${[...new Set(codes.map(([code]) => code))].join(", ")})`}`);
  return lines.join(", ");
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
