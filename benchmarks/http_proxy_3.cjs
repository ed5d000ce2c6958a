// The same job for http-proxy-3, the library behind Vite's proxy: node http_proxy_3.cjs PORT NAME=URL…
const http = require("node:http");
const https = require("node:https");
const { createProxyServer } = require("http-proxy-3");

const [port, ...named] = process.argv.slice(2);
const proxies = new Map(
  named.map((one) => {
    const at = one.indexOf("=");
    const target = one.slice(at + 1);
    const agents = target.startsWith("https") ? https : http;
    const proxy = createProxyServer({
      target,
      changeOrigin: true,
      headers: { "X-Api-Key": "dummy-key" },
      agent: new agents.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 512 }),
    });
    // A client that leaves is no reason to end.
    proxy.on("error", () => {});
    return [one.slice(0, at), proxy];
  }),
);

function take(request) {
  const [, name, rest] = /^\/([^/]+)(\/.*)$/.exec(request.url);
  request.url = rest;
  return proxies.get(name);
}

const server = http.createServer((request, response) => take(request).web(request, response));
server.on("upgrade", (request, socket, head) => take(request).ws(request, socket, head));
server.keepAliveTimeout = 3600_000;
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
