import { Chat } from "./chat.js";
import { Player } from "./player.js";
import { speak } from "./speech.js";

// Keyrelay's address. Another one: http://localhost:5173/?relay=http://127.0.0.1:9000
const relay = new URLSearchParams(location.search).get("relay") ?? "http://127.0.0.1:8080";
const hume = `${relay}/hume`;

const find = (id) => document.getElementById(id);
const player = new Player(find("level"));
find("relay").textContent = hume;

// --- the conversation ---------------------------------------------------------------------------

let chat = null;

function show(who, text) {
  const line = document.createElement("li");
  line.className = who;
  line.textContent = text;
  find("messages").append(line);
}

function connect() {
  return new Chat(hume, {
    state: (text) => (find("chat-state").textContent = text),
    message: show,
    audio: (wave) => player.play(wave),
    ended: () => (chat = null),
  });
}

find("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  player.resume(); // browsers permit sound only after a click
  chat ??= connect();
  chat.say(event.target.elements.text.value);
});
find("hang-up").addEventListener("click", () => chat?.hangUp());

// --- speech -------------------------------------------------------------------------------------

let running = null;

find("speech").addEventListener("submit", async (event) => {
  event.preventDefault();
  player.resume();
  running?.abort();
  const own = (running = new AbortController());
  const state = (text) => (find("speech-state").textContent = text);
  let bytes = 0;
  state("asked");
  try {
    for await (const samples of speak(hume, event.target.elements.text.value, own.signal)) {
      bytes += samples.byteLength;
      state(`${bytes} bytes`);
      player.playSamples(samples);
    }
    state(`${bytes} bytes, complete`);
  } catch (error) {
    if (running === own) state(own.signal.aborted ? `${bytes} bytes, stopped` : error.message);
  }
});
find("stop").addEventListener("click", () => {
  running?.abort();
  player.silence();
});
