#!/bin/sh
# stripe 23.1.0 (npm): a response with status 404 is returned as the result of the call, if its JSON
# has no member `error`.
#
# Seen: `balance.retrieve()` resolves with the problem document (RFC 9457) of a proxy that refused
# the request; the status is not looked at. With a member `error` the same response is an exception.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts stripe@23.1.0
cat > finding.mjs <<'PROGRAM'
import http from "node:http";
import Stripe from "stripe";

const bodies = [
  { type: "about:blank", title: "Not Found", status: 404 },
  { type: "about:blank", title: "Not Found", status: 404, error: { message: "Not Found" } },
];
const server = http.createServer((request, response) => {
  response.writeHead(404, { "Content-Type": "application/problem+json" });
  response.end(JSON.stringify(bodies.shift()));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const client = new Stripe("sk_test_unused", {
  host: "127.0.0.1",
  port: server.address().port,
  protocol: "http",
  maxNetworkRetries: 0,
});
const outcome = () =>
  client.balance.retrieve().then(
    (result) => `resolved with title ${result.title}`,
    (error) => `rejected: ${error.message}`,
  );
const without = await outcome();
const withMember = await outcome();
server.close();
console.log(`without error: ${without}; with error: ${withMember}`);
const seen = without === "resolved with title Not Found" && withMember === "rejected: Not Found";
process.exit(seen ? 0 : 1);
PROGRAM
node finding.mjs
