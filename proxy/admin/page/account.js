// What keyrelay did with an exchange, and why one failed.

import { duration, element } from "./format.js";

// The phases of an exchange, in order.
const PHASES = {
  token: "token", resolve: "name lookup", connect: "connect", tls: "TLS", other: "keyrelay and upload",
  wait: "wait for the response", transfer: "transfer",
};
const CONNECTIONS = { new: "new, opened for this request", kept: "kept from an earlier request", spare: "spare, opened ahead" };
const BROKEN = {
  "client-left": "The client closed its connection before the response was complete.",
  http_response_incomplete: "The provider ended the response before it was complete.",
  "credential-refused": "The provider refused the credential after the session had begun.",
};

// Sentences: what went wrong, then what to do. Null for an exchange that has not failed.
export function explanation(one) {
  if (one.problem) return [one.problem.detail, one.problem.advice];
  if (one.outcome) return [BROKEN[one.outcome] ?? `The exchange was not completed: ${one.outcome}.`, one.note];
  if (one.status === 401 || one.status === 403) {
    return [`The provider responded ${one.status}: the credential was refused, or it lacks a permission.`,
      "keyrelay doctor tests the credential; the provider's console has its permissions."];
  }
  if (one.status === 429) return ["The provider limits the rate of requests.", "Retry-After below has the time to wait, if the provider sent one."];
  if (one.status >= 400) return [`The provider responded ${one.status}; keyrelay passed its response on.`];
  return null;
}

export function account(one, detail) {
  const known = [
    ["Sent to", detail.target],
    ["Connection", CONNECTIONS[detail.connection] ?? ""],
    ["Credential", detail.placements.length ? `placed in ${detail.placements.join(", ")}` : ""],
    ["From", detail.secrets.length ? secrets(detail.secrets) : ""],
    ["Token", detail.token],
    ["Removed", detail.removed.join(", ")],
  ].filter(([, value]) => value !== "");
  return [
    section("Time", bar(detail.timings_ms)),
    known.length ? section("What keyrelay did", element("dl", { className: "facts single" }, ...known.flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", {}, value)])), steps(detail.steps)) : null,
    fields("Request fields that were forwarded", detail.request_fields),
    fields("Response fields", detail.response_fields),
  ].filter(Boolean);
}

function section(title, ...content) {
  return element("section", { className: "part" }, element("h3", { textContent: title }), ...content.filter(Boolean));
}

function secrets(every) {
  return element("span", {}, ...every.flatMap(({ name, reference, fingerprint }, place) => [
    place ? ", " : "", `${name} (${reference}) `, element("span", { className: "mono quiet", title: "fingerprint", textContent: fingerprint }),
  ]));
}

function steps(texts) {
  return texts.length ? element("ul", { className: "steps" }, ...texts.map((text) => element("li", { textContent: text }))) : null;
}

// A bar with a part for each phase, and a legend with all of its numbers: the bar is decoration.
function bar(timings) {
  const phases = Object.entries(PHASES).filter(([name]) => timings[name] >= 0.05);
  const total = phases.reduce((all, [name]) => all + timings[name], 0);
  if (!total) return null;
  const parts = phases.map(([name, title]) => {
    const part = element("span", { className: `phase phase-${name}`, title: `${title} ${duration(timings[name])}` });
    part.style.flexGrow = timings[name] / total;
    return part;
  });
  return element("div", {},
    element("div", { className: "timing", "aria-hidden": "true" }, ...parts),
    element("ul", { className: "legend" }, ...phases.map(([name, title]) =>
      element("li", { className: `phase-${name}` }, `${title} `, element("b", { textContent: duration(timings[name]) })))));
}

function fields(title, pairs) {
  if (!pairs.length) return null;
  return section(title, element("dl", { className: "fields" }, ...pairs.map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), value === null ? "" : element("dd", { textContent: value })))));
}
