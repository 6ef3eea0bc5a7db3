"""A chat server on the loopback that plays every kind of answer; it serves a bounded number of questions."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CAPTION = "{} sit still on a mossy branch in a pine forest, under a pale morning sky, painted in soft colours"


@dataclass
class Chat:
    """What a test sets, and what it finds afterwards."""

    play: list[str] = field(default_factory=lambda: ["good"])  # one act a question; the last one goes on
    url: str = ""
    questions: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def completion(text: object, ended: object = "stop") -> bytes:
    return json.dumps({"choices": [{"finish_reason": ended, "message": {"content": text}}]}).encode()


class Handler(BaseHTTPRequestHandler):
    chat: Chat
    elsewhere: str = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.chat
        act = chat.play[min(len(chat.questions), len(chat.play) - 1)]
        chat.questions.append(body)
        chat.headers.append(dict(self.headers))
        chat.paths.append(self.path)
        with suppress(OSError):  # the other side has had enough
            getattr(self, act)(CAPTION.format(body["messages"][-1]["content"]))

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self, text: str) -> None:
        self.reply(completion(text))

    def forgetful(self, text: str) -> None:
        self.reply(
            completion("some horses stand in a field, and far behind them the sea lies blue and very calm today")
        )

    def cut_off(self, text: str) -> None:
        self.reply(completion(text, "length"))

    def withheld(self, text: str) -> None:
        self.reply(completion(None, "content_filter"))

    def refusing(self, text: str) -> None:
        self.reply(
            completion("I'm sorry, but I can't help with that. Perhaps three owls would rather be left alone now")
        )

    def busy(self, text: str) -> None:
        self.reply(b"{}", 503)

    def closed(self, text: str) -> None:
        self.reply(b'{"error": "who are you"}', 401)

    def missing(self, text: str) -> None:
        self.reply(b"", 404)

    def redirect(self, text: str) -> None:
        self.reply(b"", 307, Location=self.elsewhere)

    def page(self, text: str) -> None:
        self.reply(b"<html>hello</html>")

    def nested(self, text: str) -> None:
        self.reply(b"[" * 90_000)

    def no_choice(self, text: str) -> None:
        self.reply(b'{"choices": []}')

    def huge(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(200):
            self.wfile.write(b" " * 10_000)

    def half(self, text: str) -> None:
        self.reply(completion(text)[:-5], Content_Length="500")

    def slow(self, text: str) -> None:
        time.sleep(1.5)

    def dripping(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(30):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def dripping_head(self, text: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(30):
            self.wfile.write(b"a")
            self.wfile.flush()
            time.sleep(0.1)

    def hang_up(self, text: str) -> None:
        self.close_connection = True

    def nonsense(self, text: str) -> None:
        self.wfile.write(b"220 mail.example ESMTP\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Chat]:
    """Serve on a free port; `chat.url` is where."""
    chat = Chat()
    handler = type("Handler", (Handler,), {"chat": chat})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    handler.elsewhere = f"{chat.url}/elsewhere"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
