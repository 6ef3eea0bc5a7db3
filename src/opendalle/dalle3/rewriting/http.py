"""A rewriter behind an address: any server that speaks the chat completions protocol, on this machine or another.

It follows no redirect, asks no proxy, and reads no more than it was told to and no longer; what an answer holds beside
the text is not looked at.  The key is handed in by the door, sent to the one address, and kept nowhere else.

Source: the chat completions protocol as OpenAI publishes it (`POST .../chat/completions`).
"""

import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from opendalle.base.errors import BadConfig, OpenDalleError, require
from opendalle.dalle3.rewriting.instructions import conversation

ENDPOINT = "/chat/completions"
BUSY = frozenset((408, 429, 500, 502, 503, 504))  # worth asking again
PIECE = 65_536  # bytes read at once


class NoAnswer(OpenDalleError):
    """The chat address gave no answer that can be used."""


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """Where a chat model is, and how long and how much it may answer."""

    url: str  # as http://127.0.0.1:8080/v1; `/chat/completions` is added where it is missing
    model: str  # the name that the server gives it
    timeout: float = 60.0  # seconds for one question, from the first byte sent to the last one read
    repeats: int = 2  # questions asked again when the server is busy or the line breaks
    pause: float = 0.5  # seconds before the first repeat; each further pause is twice as long
    max_bytes: int = 1_000_000  # of an answer
    max_tokens: int = 512  # of the text; one that is cut off there is not used
    warmth: float = 0.7  # temperature of every seed but 0, which asks for the likeliest text

    def __post_init__(self) -> None:
        _address(self.url)
        require(bool(self.model.strip()), f"model {self.model!r}", "the name of a chat model, as its server tells it")
        require(0 < self.timeout <= 3_600, f"timeout {self.timeout}", "up to 3600 seconds")
        require(0 <= self.repeats <= 10, f"repeats {self.repeats}", "0 to 10")
        require(0 <= self.pause <= 60, f"pause {self.pause}", "0 to 60 seconds")
        require(self.max_bytes >= 1_000, f"max_bytes {self.max_bytes}", "at least 1000")
        require(self.max_tokens >= 1, f"max_tokens {self.max_tokens}", "at least 1")
        require(0 <= self.warmth <= 2, f"warmth {self.warmth}", "0 to 2")


class ChatRewriter:
    """Asks a chat model over HTTP; one question a prompt.

    Args:
        config: where, and how much.
        key: sent as a bearer token; None: none is sent.
        sleep: waits between repeats.

    Raises:
        BadConfig: when a key would be sent unencrypted to another machine, or cannot be sent at all.
    """

    def __init__(
        self, config: ChatConfig, key: str | None = None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.config, self._address, self._sleep = config, _address(config.url), sleep
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise BadConfig("a key with characters that no header can carry", "the key alone, without spaces round it")
        if key is not None and self._address.scheme == "http" and not _is_here(self._address.hostname or ""):
            raise BadConfig("a key for an address that begins with http://", "https://", "Or unset the key.")
        self._key = key

    @property
    def name(self) -> str:
        """The model's name, without a folder if it is one."""
        return f"http:{PurePosixPath(self.config.model.replace(chr(92), '/')).name}"

    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """Write one caption a prompt; "" where it was cut off or withheld.

        Args:
            prompts: as people typed them.
            seeds: one a prompt; 0 asks for the likeliest text.

        Raises:
            NoAnswer: when the server cannot be reached, refuses, or speaks another protocol.
        """
        return [self._text(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _text(self, prompt: str, seed: int) -> str:
        asked = {
            "model": self.config.model,
            "messages": conversation(prompt),
            "temperature": self.config.warmth if seed else 0,
            "max_tokens": self.config.max_tokens,
            "seed": seed,
            "stream": False,
        }
        return self._read(self._patiently(json.dumps(asked).encode()))

    def _patiently(self, body: bytes) -> bytes:
        """Ask, and ask again when that may help."""
        pause = self.config.pause
        for repeat in range(self.config.repeats + 1):
            is_last = repeat == self.config.repeats
            try:
                status, answer = self._ask(body)
            except (OSError, http.client.HTTPException) as error:  # OSError: also time-outs and certificates
                if is_last or isinstance(error, ssl.SSLCertVerificationError):
                    raise NoAnswer(self._told(_plain(error)), "a chat server that answers", _IS_IT_UP) from None
            else:
                if status == 200:
                    return answer
                if is_last or status not in BUSY:
                    raise NoAnswer(self._told(f"status {status}"), "status 200", _ADVICE.get(status, "")) from None
            self._sleep(pause)
            pause *= 2
        raise AssertionError("the last repeat returns or raises")

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        """Send one question; return the status and, if it is 200, the answer."""
        config, at = self.config, self._address
        end = time.monotonic() + config.timeout
        connection = _connection(at, config.timeout)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "opendalle"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key is not None else {}
        watch = threading.Timer(0, lambda: None)
        try:
            connection.connect()
            # A server that sends a byte now and then never lets the socket time out: so the line is cut at the end.
            watch = threading.Timer(max(0.0, end - time.monotonic()), _cut, (connection.sock,))
            watch.daemon = True
            watch.start()
            connection.request("POST", at.path, body, headers)
            with closing(connection.getresponse()) as answer:
                return answer.status, self._body(answer, end) if answer.status == 200 else b""
        except (OSError, http.client.HTTPException):
            if time.monotonic() >= end:
                raise TimeoutError(f"no whole answer in {config.timeout:g} s") from None
            raise
        finally:
            watch.cancel()
            connection.close()

    def _body(self, answer: http.client.HTTPResponse, end: float) -> bytes:
        """Read an answer to its end, if that comes before it is too long or too late."""
        data = bytearray()
        while piece := answer.read1(PIECE):
            data += piece
            if len(data) > self.config.max_bytes:
                came = self._told(f"more than {self.config.max_bytes} bytes")
                raise NoAnswer(came, "a caption of at most 80 words", "Is it a chat server?")
        if time.monotonic() >= end:
            raise TimeoutError
        if answer.length:  # of what was announced, still to come
            raise http.client.IncompleteRead(bytes(data), answer.length)
        return bytes(data)

    def _read(self, answer: bytes) -> str:
        """Take the text out of an answer; "" unless the model ended it by itself."""
        try:
            choice = json.loads(answer)["choices"][0]
            ended, text = choice.get("finish_reason"), choice["message"]["content"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise NoAnswer(self._told("something else"), "a chat completion", "Is it a chat server?") from None
        is_whole = ended in ("stop", "eos", None)  # length: cut off; content_filter: withheld
        return text if is_whole and isinstance(text, str) else ""

    def _told(self, what: str) -> str:
        at = self._address
        return f"{what} from {at.scheme}://{at.netloc}{at.path}"


_IS_IT_UP = "Is the server running, and the address right?"
_ADVICE = {
    400: "Does the server know the model?",
    401: "Is OPENDALLE_CHAT_KEY set, and right?",
    403: "May the key use this model?",
    404: "Does the address end in /v1, and is there such a model?",
    422: "Does the server know the model?",
    429: "Wait, or ask the server's owner for more.",
} | dict.fromkeys((301, 302, 303, 307, 308), "It leads elsewhere, and redirects are not followed: give the place.")


def _address(url: str) -> SplitResult:
    """Read an address, and refuse what has no place in one.

    Raises:
        BadConfig: when it is none; the address is not told again if it may hold a password.
    """
    wanted = "an address as http://127.0.0.1:8080/v1"
    try:
        at = urlsplit(url)
        port = at.port
    except ValueError:
        raise BadConfig(f"the address {url!r:.200}", wanted) from None
    require(
        "@" not in at.netloc and not at.query and not at.fragment, "an address with a name, a password or ?", wanted
    )
    is_plain = url.isascii() and url.isprintable() and " " not in url
    require(is_plain and at.scheme in ("http", "https") and bool(at.hostname) and port != 0, f"{url!r:.200}", wanted)
    path = at.path.rstrip("/")
    return at._replace(path=path if path.endswith(ENDPOINT) else path + ENDPOINT)


def _is_here(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _connection(at: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = at.hostname or ""
    if at.scheme == "http":
        return http.client.HTTPConnection(host, at.port, timeout=timeout)
    return http.client.HTTPSConnection(host, at.port, timeout=timeout, context=ssl.create_default_context())


def _cut(line: Any) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _plain(error: BaseException) -> str:
    """Say in a few words what went wrong on the line."""
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "a certificate that cannot be trusted"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return "half an answer, or none that is HTTP"
