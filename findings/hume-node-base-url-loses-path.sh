#!/bin/sh
# hume 0.16.0 (npm): with `baseUrl` a chat's WebSocket asks for another path than with `environment`.
#
# Seen: `environment: "http://…/hume"` opens /hume/v0/evi/chat, `baseUrl: "http://…/hume"` opens
# /hume/chat. Requests over HTTP go to the same path with both.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts hume@0.16.0
cat > finding.mjs <<'PROGRAM'
import http from "node:http";
import { HumeClient } from "hume";

let arrived;
const server = http.createServer((request, response) => {
  arrived?.(request.url.split("?")[0]);
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ page_number: 0, page_size: 1, total_pages: 1, configs_page: [] }));
});
server.on("upgrade", (request, socket) => {
  arrived?.(request.url.split("?")[0]);
  socket.on("error", () => {});
  socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const there = `http://127.0.0.1:${server.address().port}/hume`;
const paths = async (setting) => {
  const client = new HumeClient({ apiKey: "unused", ...setting });
  const request = new Promise((resolve) => (arrived = resolve));
  client.empathicVoice.configs.listConfigs().then(undefined, () => {});
  const seen = [await request];
  const socket = new Promise((resolve) => (arrived = resolve));
  client.empathicVoice.chat.connect({ reconnectAttempts: 0 });
  return [...seen, await socket];
};
const environment = await paths({ environment: there });
const baseUrl = await paths({ baseUrl: there });
console.log(`environment: ${environment.join(", ")}; baseUrl: ${baseUrl.join(", ")}`);
const wanted = "/hume/v0/evi/configs,/hume/v0/evi/chat;/hume/v0/evi/configs,/hume/chat";
process.exit(`${environment};${baseUrl}` === wanted ? 0 : 1);
PROGRAM
node finding.mjs
