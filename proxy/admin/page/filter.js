// Parses the text of the filter into a predicate on one exchange.

import { reason } from "./format.js";

const COLUMNS = {
  route: (one, text) => one.route.toLowerCase().includes(text),
  method: (one, text) => (one.kind === "websocket" ? "ws" : one.method.toLowerCase()) === text,
  kind: (one, text) => one.kind.startsWith(text),
  reason: (one, text) => reason(one).toLowerCase().includes(text),
  strategy: (one, text) => one.strategy.toLowerCase().includes(text),
  status: (one, text) => {
    if (text === "open") return one.open;
    if (text === "failed") return one.status >= 400 || one.outcome !== "";
    return String(one.status).startsWith(text.replace(/x+$/, "")) && (text.length === 3 || !text.endsWith("x"));
  },
};

const anywhere = (one, text) =>
  [one.path, one.route, one.outcome, one.note, one.request_id].some((part) => part.toLowerCase().includes(text));

export function parse(written) {
  const questions = written.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const not = word.length > 1 && word.startsWith("-");
    const [, name, text] = /^(\w+):(.*)$/.exec(not ? word.slice(1) : word) ?? [];
    const column = COLUMNS[name];
    const holds = column ? (one) => text === "" || column(one, text) : (one) => anywhere(one, not ? word.slice(1) : word);
    return not ? (one) => !holds(one) : holds;
  });
  return questions.length ? (one) => questions.every((question) => question(one)) : null;
}
