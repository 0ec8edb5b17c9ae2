"""A server of chat completions that misbehaves on request; it does what the question says."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


class Server(ThreadingHTTPServer):
    """Remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.counts: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are meant."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        question = content[1]["text"] if len(content) > 1 else ""
        with server.lock:
            server.asked.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            server.counts[question] += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self.act(question, server.counts[question], content)
        finally:
            with server.lock:
                server.at_once -= 1

    def act(self, question: str, count: int, content: list[dict[str, Any]]) -> None:
        kind, _, what = question.partition(" ")
        if kind == "see":
            url = content[0]["image_url"]["url"]
            picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
            self.answer(f" {picture.format} {picture.mode} {np.asarray(picture)[0, 0].tolist()}\n")
        elif kind == "hang":
            self.server.over.wait(30)
        elif kind == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not self.server.over.wait(0.05):
                self.wfile.write(b" ")
        elif kind == "die":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"mess')
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.connection.close()
        elif kind == "raw":
            self.send(200, what)
        elif kind == "endless":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.is_set():
                self.wfile.write(b"x" * 65536)
        elif kind == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.over.wait(0.05):
                self.wfile.write(b"x")
        elif kind == "status":
            self.send(int(what), json.dumps({"error": {"message": f"sorry, {self.headers['Authorization']} is wrong"}}))
        elif kind == "redirect":
            self.send(307, "", {"Location": f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions"})
        elif kind == "busy":
            code, times, after = what.split()
            if count > int(times):
                return self.answer("at last")
            if after == "date":
                after = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
            self.send(int(code), "busy", {} if after == "-" else {"Retry-After": after})
        elif kind == "slow":
            time.sleep(0.3)
            self.answer("slow")
        else:
            self.answer(question)
        return None

    def answer(self, text: str) -> None:
        self.send(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}))

    def send(self, code: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())
