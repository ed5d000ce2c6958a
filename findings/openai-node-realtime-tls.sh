#!/bin/sh
# openai 7.59.0 (npm): a Realtime WebSocket uses TLS although the base URL is http://.
#
# Seen: the first byte that arrives at a plain TCP server is 0x16, a TLS handshake record; requests
# of the same client over HTTP arrive in plain text.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts openai@7.59.0 ws@8.23.0
cat > finding.mjs <<'PROGRAM'
import net from "node:net";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const first = [];
const server = net.createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", (data) => {
    first.push(data[0] === 0x16 ? "a TLS handshake" : data.toString().split(" HTTP")[0]);
    socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const baseURL = `http://127.0.0.1:${server.address().port}/v1`;
const client = new OpenAI({ apiKey: "unused", baseURL, maxRetries: 0 });
await client.models.list().catch(() => {});
const realtime = new OpenAIRealtimeWS({ model: "gpt-realtime" }, client);
await new Promise((resolve) => realtime.on("error", resolve));
server.close();
console.log(`request: ${first[0]}; socket: ${first[1]}`);
process.exit(first[0] === "GET /v1/models" && first[1] === "a TLS handshake" ? 0 : 1);
PROGRAM
node finding.mjs
