"""Hume through keyrelay, without a key: REST, then a conversation; `pip install websockets`."""

import json
import os
import urllib.request

from websockets.sync.client import connect

BASE = os.environ.get("HUME_BASE_URL", "http://127.0.0.1:8080/hume")

with urllib.request.urlopen(f"{BASE}/v0/evi/configs?page_size=1") as answer:
    print("configs:", len(json.load(answer)["configs_page"]))

with connect(f"{BASE.replace('http', 'ws', 1)}/v0/evi/chat", proxy=None) as socket:
    socket.send(json.dumps({"type": "user_input", "text": "Say hello in one word."}))
    for message in map(json.loads, socket):
        print(message["type"], message.get("message", {}).get("content", ""))
        if message["type"] in {"assistant_end", "error"}:
            break
