// The content of one message as people read it: JSON indented, audio folded, bytes in hex and ASCII.

import { size } from "./format.js";

// Longer runs of Base64 are audio or images, and unreadable.
const BASE64 = /[A-Za-z0-9+/_-]{160,}={0,2}/g;
// JSON that is shorter stays on its line.
const SHORT = 72;
const PER_LINE = 8;

// label  the message's type, "" without one
// text   what to show; `whole` has everything, and differs if something is folded
export function content(message) {
  if (message.kind === "binary") return { label: "binary", ...same(hex(message.text) + more(message)) };
  if (message.kind === "event") return event(message);
  if (message.kind !== "text") return { label: "", ...same(`${message.kind === "note" ? "" : `${message.kind} `}${message.text}${more(message)}`) };
  const { label, text } = json(message.text);
  return { label, ...folded(text + more(message)) };
}

const more = ({ cut }) => (cut ? " …" : "");
const same = (text) => ({ text, whole: text });

function folded(whole) {
  const text = whole.replace(BASE64, (run) => `${run.slice(0, 16)}… (Base64, ${size(Math.floor((run.length * 3) / 4))})`);
  return { text, whole };
}

function json(text) {
  if (!/^\s*[[{]/.test(text)) return { label: "", text };
  try {
    const value = JSON.parse(text);
    const label = typeof value.type === "string" ? value.type : "";
    return { label, text: text.length <= SHORT ? text : JSON.stringify(value, null, 2) };
  } catch {
    // Cut off, or no JSON: the type stands near the beginning by custom.
    return { label: /^\s*\{[^{}]{0,200}?"type"\s*:\s*"([^"\\]{1,60})"/.exec(text)?.[1] ?? "", text };
  }
}

// A server-sent event (HTML standard, section 9.2.6). The lines of its data are one value.
function event(message) {
  const lines = message.text.split(/\r\n|\r|\n/);
  const of = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).replace(/^ /, ""));
  const data = json(of("data").join("\n"));
  const label = of("event").at(-1) || data.label;
  const other = lines.filter((line) => !line.startsWith("data:"));
  const text = data.text.includes("\n") ? [...other, `data: ${data.text}`].join("\n") : message.text;
  return { label, ...folded(text + more(message)) };
}

// `text` is bytes in hex, separated by spaces. A few bytes stay on one line.
function hex(text) {
  const bytes = text ? text.split(" ") : [];
  const lines = [];
  for (let at = 0; at < bytes.length; at += PER_LINE) {
    const part = bytes.slice(at, at + PER_LINE);
    const ascii = part.map((byte) => { const code = parseInt(byte, 16); return code > 31 && code < 127 ? String.fromCharCode(code) : "·"; });
    lines.push(`${part.join(" ").padEnd(bytes.length > PER_LINE ? PER_LINE * 3 - 1 : 0)}  ${ascii.join("")}`);
  }
  return lines.join("\n");
}
