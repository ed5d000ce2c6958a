// Talking to the admin listener: the token, plain requests, and the stream of events.

const KEPT = "keyrelay-token";

// The address bar and the history must not keep it; this tab may, so that it can be reloaded.
export function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (found) {
    sessionStorage.setItem(KEPT, found[1]);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEPT) ?? "";
}

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The answer is ${status}.`);
    this.status = status;
    this.advice = problem.advice ?? "";
  }
}

export async function ask(path, options = {}) {
  const answer = await fetch(path, {
    cache: "no-store",
    ...options,
    headers: { Authorization: `Bearer ${takeToken()}` },
  });
  // A reload that was not taken answers 409 and says why in the same form as one that was.
  const isProblem = answer.headers.get("Content-Type")?.startsWith("application/problem");
  if (!answer.ok && (isProblem || answer.status !== 409)) {
    throw new Refused(answer.status, await answer.json().catch(() => ({})));
  }
  return answer;
}

// EventSource cannot send a header. Calls `hear(name, said)` for each event until the stream ends.
export async function listen(hear, signal) {
  const answer = await ask("/api/events", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const end = event.indexOf("\n");
      hear(event.slice("event: ".length, end), JSON.parse(event.slice(end + "\ndata: ".length)));
    }
  }
}
