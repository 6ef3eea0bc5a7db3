"""A chat model behind an address: what is asked, what is taken, and what is refused."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opendalle.base.errors import BadConfig
from opendalle.dalle3.rewriting.http import ChatConfig, ChatRewriter, NoAnswer
from opendalle.dalle3.rewriting.instructions import conversation
from opendalle.dalle3.rewriting.upsampler import PromptUpsampler

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves the folder out

from chat_server import CAPTION, Chat, serving

KEY = "sk-not-to-be-told"


@pytest.fixture
def chat() -> Iterator[Chat]:
    with serving() as one:
        yield one


def rewriter(chat: Chat, key: str | None = None, **config: object) -> ChatRewriter:
    paused: list[float] = []
    made = ChatRewriter(ChatConfig(url=chat.url, model="m", **{"timeout": 5.0, **config}), key, sleep=paused.append)
    made.paused = paused  # pyright: ignore[reportAttributeAccessIssue]
    return made


def test_a_good_server_is_asked_as_the_protocol_says(chat: Chat) -> None:
    assert rewriter(chat, KEY).rewrite(["two owls", "三只猫"], seeds=[0, 5]) == [
        CAPTION.format("two owls"),
        CAPTION.format("三只猫"),
    ]
    first, second = chat.questions
    assert chat.paths == ["/v1/chat/completions"] * 2
    assert first["messages"] == conversation("two owls")
    assert (first["model"], first["temperature"], first["max_tokens"], first["seed"]) == ("m", 0, 512, 0)
    assert (second["temperature"], second["seed"], second["messages"]) == (0.7, 5, conversation("三只猫"))
    assert chat.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent(chat: Chat) -> None:
    rewriter(chat).rewrite(["two owls"], seeds=[0])
    assert "Authorization" not in chat.headers[0]


def test_the_whole_address_may_be_given_as_well(chat: Chat) -> None:
    chat.url += "/chat/completions/"
    rewriter(chat).rewrite(["two owls"], seeds=[0])
    assert chat.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize("act", ["cut_off", "withheld"])
def test_a_text_that_has_no_end_is_none(chat: Chat, act: str) -> None:
    chat.play = [act]
    assert rewriter(chat).rewrite(["two owls"], seeds=[0]) == [""]


@pytest.mark.parametrize("act", ["refusing", "forgetful", "cut_off"])
def test_through_the_upsampler_only_good_texts_come(chat: Chat, act: str) -> None:
    chat.play = [act, act, "good"]
    (one,) = PromptUpsampler(rewriter(chat)).rewrite(["three owls"])
    assert (one.text, one.attempts, one.by) == (CAPTION.format("three owls"), 3, "http:m")
    assert [question["seed"] for question in chat.questions] == [0, 1, 2]
    chat.questions.clear()
    chat.play = [act]
    (one,) = PromptUpsampler(rewriter(chat)).rewrite(["three owls"])
    assert (one.text, len(chat.questions)) == ("three owls", 3)


@pytest.mark.parametrize("act", ["busy", "hang_up", "half", "nonsense"])
def test_a_busy_server_or_a_broken_line_is_asked_again(chat: Chat, act: str) -> None:
    chat.play = [act, act, "good"]
    asking = rewriter(chat)
    assert asking.rewrite(["two owls"], seeds=[0]) == [CAPTION.format("two owls")]
    assert asking.paused == [0.5, 1.0]  # pyright: ignore[reportAttributeAccessIssue]
    chat.questions.clear()
    chat.play = [act]
    with pytest.raises(NoAnswer, match=r"from http://127\.0\.0\.1:\d+/v1/chat/completions"):
        asking.rewrite(["two owls"], seeds=[0])
    assert len(chat.questions) == 3


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("closed", "status 401.*OPENDALLE_CHAT_KEY"),
        ("missing", "status 404.*/v1"),
        ("redirect", "status 307.*not followed"),
        ("page", "something else.*chat server"),
        ("nested", "something else"),
        ("no_choice", "something else"),
        ("huge", "more than 100000 bytes"),
    ],
)
def test_what_no_repeat_would_mend_is_told_at_once(chat: Chat, act: str, says: str) -> None:
    chat.play = [act]
    with pytest.raises(NoAnswer, match=says) as refused:
        rewriter(chat, KEY, max_bytes=100_000).rewrite(["two owls"], seeds=[0])
    assert len(chat.questions) == 1
    assert "elsewhere" not in chat.paths
    assert KEY not in str(refused.value) + repr(refused.value)


@pytest.mark.parametrize("act", ["slow", "dripping", "dripping_head"])
def test_the_time_is_bounded_however_it_is_spent(chat: Chat, act: str) -> None:
    chat.play = [act]
    began = time.monotonic()
    with pytest.raises(NoAnswer, match=r"in time|0\.5 s"):
        rewriter(chat, timeout=0.5, repeats=0).rewrite(["two owls"], seeds=[0])
    assert time.monotonic() - began < 1.4


def test_nobody_there(chat: Chat) -> None:
    chat.url = "http://127.0.0.1:9/v1"  # the port of a service that throws everything away, if it is there at all
    with pytest.raises(NoAnswer, match="Is the server running"):
        rewriter(chat, repeats=0).rewrite(["two owls"], seeds=[0])


def test_no_proxy_is_asked(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert rewriter(chat).rewrite(["two owls"], seeds=[0])[0]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "owl",
        "ftp://a/v1",
        "file:///etc/passwd",
        "http://",
        "http://a:0/v1",
        "http://a:b/v1",
        "http://[::1/v1",
        "http://a b/v1",
        "http://a/\n",
        "http://ä/v1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadConfig, match="8080"):
        ChatConfig(url=url, model="m")


@pytest.mark.parametrize("url", ["http://me:hush@a/v1", "http://hush@a/v1", "http://a/v1?key=hush", "http://a/v1#hush"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadConfig) as refused:
        ChatConfig(url=url, model="m")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": " "},
        {"timeout": 0.0},
        {"repeats": 11},
        {"pause": -1.0},
        {"max_bytes": 1},
        {"max_tokens": 0},
        {"warmth": 3.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(BadConfig):
        ChatConfig(**{"url": "http://a/v1", "model": "m", **wrong})


def test_a_key_goes_unencrypted_to_this_machine_only() -> None:
    for url in ("https://a/v1", "http://localhost:1/v1", "http://127.8.8.8/v1", "http://[::1]:1/v1"):
        ChatRewriter(ChatConfig(url=url, model="m"), KEY)
    for url in ("http://a/v1", "http://10.0.0.1/v1", "http://localhost.a/v1", "http://127.0.0.1.a/v1"):
        ChatRewriter(ChatConfig(url=url, model="m"))
        with pytest.raises(BadConfig, match="https"):
            ChatRewriter(ChatConfig(url=url, model="m"), KEY)
    for key in ("a\r\nHost: b", "ключ", " "):
        with pytest.raises(BadConfig, match="header") as refused:
            ChatRewriter(ChatConfig(url="https://a/v1", model="m"), key)
        assert key.strip() == "" or key not in str(refused.value)


def test_the_name_tells_no_place() -> None:
    names = {"gpt": "gpt", "org/m": "m", "/models/me/m.gguf": "m.gguf", "C:\\models\\m": "m"}
    for model, name in names.items():
        assert ChatRewriter(ChatConfig(url="https://a/v1", model=model)).name == f"http:{name}"
    rewriter = ChatRewriter(ChatConfig(url="https://a/v1", model="m"), KEY)
    assert KEY not in repr(rewriter) + json.dumps(repr(rewriter.config))
