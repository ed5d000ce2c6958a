// Hume through keyrelay, without a key: REST, then a conversation. Needs only Node; the
// WebSocket is available from Node 22 on, before that with `node --experimental-websocket`.
const base = process.env.HUME_BASE_URL ?? "http://127.0.0.1:8080/hume";

const answer = await fetch(`${base}/v0/evi/configs?page_size=1`);
if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
console.log("configs:", (await answer.json()).configs_page.length);

if (typeof WebSocket === "undefined") throw new Error("Run this with --experimental-websocket.");
const socket = new WebSocket(`${base.replace("http", "ws")}/v0/evi/chat`);
socket.onopen = () =>
  socket.send(JSON.stringify({ type: "user_input", text: "Say hello in one word." }));
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  console.log(message.type, message.message?.content ?? "");
  if (message.type === "assistant_end" || message.type === "error") socket.close();
};
socket.onerror = () => (process.exitCode = 1);
