#!/bin/sh
# HomeAssistant-API 6.1.0 (PyPI): its WebSocket ends with a Close frame of code 0.
#
# Seen: leaving the `with` block of WebsocketClient sends the payload 00 00. RFC 6455 section 7.4.2
# does not use codes below 1000, and servers that check the code report a protocol error at the end of
# every session of this client.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check HomeAssistant-API==6.1.0
cat > finding.py <<'PROGRAM'
import base64
import hashlib
import json
import socket
import sys
import threading

from homeassistant_api import WebsocketClient

seen = []


def frame(opcode, data):
    return bytes([0x80 | opcode, len(data)]) + data


def read(stream):
    first, second = stream.read(2)
    size = second & 0x7F
    size = int.from_bytes(stream.read(2), "big") if size == 126 else size
    mask = stream.read(4)
    return first & 0x0F, bytes(one ^ mask[at % 4] for at, one in enumerate(stream.read(size)))


def serve(listener):
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as stream:
        fields = {}
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        key = fields[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        connection.sendall(frame(1, b'{"type":"auth_required","ha_version":"2026.11.0"}'))
        while True:
            opcode, data = read(stream)
            if opcode == 8:
                seen.append(data)
                return
            message = json.loads(data)
            if message["type"] == "auth":
                connection.sendall(frame(1, b'{"type":"auth_ok","ha_version":"2026.11.0"}'))
            else:
                reply = {"id": message["id"], "type": "result", "success": True, "result": None}
                connection.sendall(frame(1, json.dumps(reply).encode()))


with socket.create_server(("127.0.0.1", 0)) as listener:
    server = threading.Thread(target=serve, args=(listener,))
    server.start()
    with WebsocketClient(f"ws://127.0.0.1:{listener.getsockname()[1]}/api/websocket", "unused"):
        pass
    server.join(30)
print(f"payload of the Close frame: {[one.hex(' ') for one in seen]}")
sys.exit(0 if seen == [b"\x00\x00"] else 1)
PROGRAM
venv/bin/python finding.py
