"""Every public name says what it is, every room has a page, and every example runs."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

FENCE = re.compile(r"^(?P<above>[^\n]*)\n```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = "<!-- not run"  # the line above a block that is only shown, with the reason
PAGES = ("README.md", "README.zh.md", "docs")


def test_every_public_name_has_a_docstring_that_tells_of_every_argument_and_error(house):
    house.tool(
        "ruff", "check", "--no-cache", "--preview", "--select", "D,DOC102,DOC501", "--ignore", "D105,D107,D208", "src"
    )


def test_every_public_signature_is_annotated(house):
    house.tool("ruff", "check", "--no-cache", "--select", "ANN", "--ignore", "ANN401", "src")
    assert (house.package / "py.typed").is_file()


def test_every_room_has_a_page_and_the_index_lists_it(house):
    index = (house.root / "docs/index.md").read_text(encoding="utf-8")
    missing = [room for room in house.rooms if not (house.root / f"docs/rooms/{room}.md").is_file()]
    unlisted = [room for room in house.rooms if f"(rooms/{room}.md)" not in index]
    assert (missing, unlisted) == ([], [])


def pages():
    found = [Path(__file__).parents[2] / page for page in PAGES]
    return [path for one in found for path in (sorted(one.rglob("*.md")) if one.is_dir() else [one]) if path.is_file()]


def blocks(text):
    for match in FENCE.finditer("\n" + text):
        if not match["above"].startswith(NOT_RUN):
            yield match["language"], match["body"]


def commands(body):
    """Yield the words of each `opendalle` line; other commands (make, pip, git) are somebody else's to test."""
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["opendalle"]:
            yield words[1:]


def links(text):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    assert [one for one in links(text) if not (page.parent / one).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_example_of_a_page_is_python(page):
    for language, body in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(body)


def told_pages():
    """Pages that a reader types from; a room's page may show a line out of its context."""
    return [page for page in pages() if page.parent.name != "rooms"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", told_pages(), ids=lambda page: page.name)
def test_every_example_of_a_page_runs(house, page, tmp_path, monkeypatch, capsys):
    """Blocks of one page share their names and their folder, top to bottom, as a reader would type them."""
    from opendalle.cli.app import run

    todo = [(language, body) for language, body in blocks(page.read_text(encoding="utf-8"))]
    todo = [(language, body) for language, body in todo if language in ("python", "bash", "console", "sh")]
    if not (house.package / "bundled/dalle2-emoji/model.json").is_file():
        todo = [(language, body) for language, body in todo if "load(" not in body and "opendalle" not in body]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for language, body in todo:
        if language == "python":
            exec(compile(body, f"{page.name} example", "exec"), names)
            continue
        for words in commands(body):
            code = run(words)
            assert code == 0, f"opendalle {shlex.join(words)}: {capsys.readouterr().err}"


def test_the_example_runner_finds_blocks_and_commands():
    text = "a\n```python\nx = 1\n```\n<!-- not run: long -->\n```bash\nmake x\n```\n\n```bash\nmake demo\n"
    text += 'opendalle generate "a b" \\\n  --count 2  # two\n```\n'
    found = list(blocks(text))
    assert [language for language, _ in found] == ["python", "bash"]
    assert list(commands(found[1][1])) == [["generate", "a b", "--count", "2"]]


def test_python_is_new_enough():
    assert sys.version_info >= (3, 11)
