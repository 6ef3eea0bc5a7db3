"""Streams that are closed, full or left early, and a Ctrl-C that comes at once: never a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from opendalle.cli.app import main; "
LIST = f"{sys.executable} -m opendalle models list"
WRONG = f"{sys.executable} -m opendalle generate ''"
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{LIST} >&-", 0, ""),
        (f"{LIST} <&- >&- 2>&-", 0, ""),
        (f"{WRONG} 2>&-", 2, ""),
        pytest.param(f"{LIST} >/dev/full", 1, "opendalle: the system refused: No space left on device\n", marks=full),
        pytest.param(f"{WRONG} 2>/dev/full", 2, "", marks=full),
    ],
)
def test_closed_and_full_streams(tmp_path, line, code, said):
    ran = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (code, said)


def test_a_closed_stream_is_never_taken_for_a_file_of_ours(tmp_path):
    program = MAIN + "import sys; from opendalle.cli.console import open_streams; open_streams(); "
    program += "file = open('x', 'w'); print('words', file=sys.stderr, flush=True); sys.exit(file.fileno() < 3)"
    ran = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, program], cwd=tmp_path, env=ENVIRONMENT)
    assert ran.returncode == 0
    assert (tmp_path / "x").read_text() == ""


def test_ctrl_c_while_still_importing_is_one_line(tmp_path):
    slow = tmp_path / "cyclopts.py"  # stands in for the real one, which takes a tenth of a second
    slow.write_text("import time; print('importing', flush=True); time.sleep(30)")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN + "main()", "doctor"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert errors.startswith("opendalle: stopped")


def test_a_card_is_shown_as_json_whatever_it_holds(opendalle, one_model):
    import json

    head = json.loads((one_model / "model.json").read_text())
    head["card"]["note"] = odd = "红 \ud800 \x1b[31m \x9b \u202e \U000e0001"
    (one_model / "model.json").write_text(json.dumps(head))
    code, out, err = opendalle("models", "show", "toy")
    assert (code, err) == (0, [])
    assert all(line.isprintable() for line in out)
    assert json.loads("\n".join(out))["note"] == odd
    assert "红" in "\n".join(out)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"kind": "a", "parts": 5, "card": {}}', '{"kind": 1}', "[]", "\x00"])
def test_a_damaged_card_is_one_line(opendalle, one_model, text):
    (one_model / "model.json").write_text(text)
    code, out, err = opendalle("models", "show", "toy")
    assert (code, out, len(err)) == (2, [], 1)


def test_advice_about_quotes_is_for_prompts_only(opendalle):
    assert "quotes" in opendalle("generate", "a", "b")[2][0]
    assert "quotes" not in opendalle("models", "list", "x")[2][0]
