import re
from pathlib import Path

import pytest
import torch

from opendalle.checkpoint.folder import verify_model

PAGE = Path(__file__).parents[2] / "docs" / "rooms" / "training.md"


def test_the_example_of_the_page_runs_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), scope)  # the page is ours
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["3,200/6,400 pictures", "6,400/6,400 pictures"]
    assert lines[-1].endswith("saved step-000000200")
    net = scope["objective"].net
    net.load_state_dict(verify_model(tmp_path / "models/denoise").part("denoiser").state())
    x_t = torch.tensor([[-1.0], [0.0], [1.0]])
    assert torch.allclose(net(x_t), x_t / 2, atol=0.15), "the best guess behind unit noise is half of what is seen"
