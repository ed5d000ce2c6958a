// Requests to the admin listener: the token, single requests, and the event stream.

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
    super(problem.detail ?? `The response has status ${status}.`);
    this.status = status;
    this.advice = problem.advice ?? "";
  }
}

export async function request(path, options = {}) {
  const response = await fetch(path, {
    cache: "no-store",
    ...options,
    headers: { Authorization: `Bearer ${takeToken()}` },
  });
  // A rejected configuration has status 409, and its findings in the form of any other reload.
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem");
  if (!response.ok && (isProblem || response.status !== 409)) {
    throw new Refused(response.status, await response.json().catch(() => ({})));
  }
  return response;
}

// EventSource cannot send a field. Calls `receive(name, data)` for each event until the stream ends.
export async function listen(receive, signal) {
  const response = await request("/api/events", { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const end = event.indexOf("\n");
      receive(event.slice("event: ".length, end), JSON.parse(event.slice(end + "\ndata: ".length)));
    }
  }
}
