// Speech from Hume's TTS, piece by piece as it is made.

const VOICE = { name: "Male English Actor", provider: "HUME_AI" };

// Yields 16-bit samples, one channel, 48 kHz (Hume's "pcm"). Throws an Error with the reason.
export async function* speak(hume, text, signal) {
  const answer = await fetch(`${hume}/v0/tts/stream/file`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ utterances: [{ text, voice: VOICE }], format: { type: "pcm" } }),
    signal,
  });
  if (!answer.ok) throw new Error(await reason(answer));
  let left = new Uint8Array(0); // half of a sample, if a piece ends within one
  for (const reader = answer.body.getReader(); ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const bytes = new Uint8Array(left.length + value.length);
    bytes.set(left);
    bytes.set(value, left.length);
    const even = bytes.length - (bytes.length % 2);
    left = bytes.slice(even);
    if (even) yield new Int16Array(bytes.buffer, 0, even / 2);
  }
}

// Keyrelay's own responses are application/problem+json with the remedy in advice.
async function reason(answer) {
  if (!answer.headers.get("Content-Type")?.startsWith("application/problem+json"))
    return `${answer.status} from Hume`;
  const problem = await answer.json();
  return [problem.title, problem.detail, problem.advice].filter(Boolean).join(" – ");
}
