"""A language model in a folder: the machinery, with a tiny model of random weights that no folder of ours ships."""

import json
from pathlib import Path

import pytest
import torch

from opendalle.base.errors import BadConfig, BadModel
from opendalle.dalle3.rewriting.instructions import conversation
from opendalle.dalle3.rewriting.local import LocalConfig, LocalRewriter

TEMPLATE = "{% for one in messages %}<|{{ one.role }}|>{{ one.content }}<|end|>{% endfor %}<|assistant|>"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of bytes, two layers deep."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    place = tmp_path_factory.mktemp("chat") / "tiny-chat"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelling = Tokenizer(models.BPE({one: number for number, one in enumerate(alphabet)}, []))
    spelling.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spelling.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="<|end|>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=6_000,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def opened(folder: Path, template: str | None = None, **config: object) -> LocalRewriter:
    rewriter = LocalRewriter(folder, LocalConfig(**{"max_tokens": 24, **config}))
    rewriter._tokenizer.chat_template = template
    return rewriter


def say(monkeypatch: pytest.MonkeyPatch, rewriter: LocalRewriter, text: str, *, ends: bool) -> list[str]:
    """Let the model answer this whatever it is asked; returns what it was asked."""
    asked: list[str] = []
    tokenizer = rewriter._tokenizer

    def generate(input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        asked.append(tokenizer.decode(input_ids[0]))
        answer = tokenizer(text)["input_ids"] + ([tokenizer.eos_token_id] if ends else [])
        return torch.cat([input_ids, torch.tensor([answer], dtype=torch.long)], dim=1)

    monkeypatch.setattr(rewriter._model, "generate", generate)
    return asked


def test_it_writes_the_same_of_the_same_seed_and_uses_up_nobodys_chance(folder: Path) -> None:
    rewriter = opened(folder, max_tokens=8)
    end = rewriter._tokenizer.eos_token_id
    before = torch.get_rng_state()
    asked = rewriter._tokenizer("an owl", return_tensors="pt")
    written = [rewriter._written(asked, seed, is_chat=True).tolist() for seed in (0, 0, 5, 5, 6)]
    assert written[0] == written[1]
    assert written[2] == written[3] != written[4]
    assert written[0] != written[2]
    assert torch.equal(torch.get_rng_state(), before)
    greedy = asked["input_ids"]
    for _ in range(8):  # the plain slow way
        following = rewriter._model(greedy).logits[:, -1].argmax(dim=-1, keepdim=True)
        greedy = torch.cat([greedy, following], dim=1)
        if int(following) == end:
            break
    assert written[0] == greedy[0].tolist()


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_text_that_comes_to_no_end_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, template: str | None
) -> None:
    rewriter = opened(folder, template, max_tokens=2)
    (letter,) = rewriter._tokenizer("a")["input_ids"]
    monkeypatch.setattr(rewriter._model, "lm_head", Always(len(rewriter._tokenizer), letter))
    assert rewriter.rewrite(["an owl"], seeds=[0]) == [""]


@pytest.mark.parametrize("ends", [True, False])
def test_a_chat_model_is_asked_by_its_template(folder: Path, monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    rewriter = opened(folder, TEMPLATE)
    asked = say(monkeypatch, rewriter, "an owl\nsits", ends=ends)
    assert rewriter.rewrite(["two owls"], seeds=[0]) == ["an owl\nsits" if ends else ""]
    assert asked[0].startswith("<|system|>")
    assert asked[0].endswith("<|user|>two owls<|end|><|assistant|>")


def test_a_template_without_a_system_role_gets_the_rules_in_the_first_wish(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewriter = opened(folder, NO_SYSTEM)
    asked = say(monkeypatch, rewriter, "an owl", ends=True)
    assert rewriter.rewrite(["two owls"], seeds=[0]) == ["an owl"]
    assert asked[0].startswith("<|user|>" + conversation("two owls")[0]["content"])
    assert "<|system|>" not in asked[0]


@pytest.mark.parametrize(
    ("text", "ends", "line"),
    [(" an owl\nWish: more", False, "an owl"), (" an owl", True, "an owl"), (" an ow", False, "")],
)
def test_a_plain_model_goes_on_with_the_examples_for_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, ends: bool, line: str
) -> None:
    rewriter = opened(folder)
    asked = say(monkeypatch, rewriter, text, ends=ends)
    assert rewriter.rewrite(["two owls"], seeds=[0]) == [line]
    assert asked[0].endswith("Wish: two owls\nCaption:")


def test_a_plain_model_stops_at_the_end_of_the_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewriter = opened(folder)
    (newline,) = rewriter._tokenizer("\n")["input_ids"]
    monkeypatch.setattr(rewriter._model, "lm_head", Always(len(rewriter._tokenizer), newline))
    asked = rewriter._tokenizer("an owl", return_tensors="pt")
    assert rewriter._written(asked, 0, is_chat=False)[asked["input_ids"].shape[1] :].tolist() == [newline]


class Always(torch.nn.Module):
    """A head that always says one token."""

    def __init__(self, vocabulary: int, token: int) -> None:
        super().__init__()
        self.logits = torch.zeros(vocabulary)
        self.logits[token] = 10

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*states.shape[:-1], -1)


def test_the_name_tells_no_place(folder: Path) -> None:
    assert opened(folder).name == "local:tiny-chat"


def test_a_question_that_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(BadModel, match="6000 tokens"):
        opened(folder, max_tokens=5_000).rewrite(["an owl"], seeds=[0])


def test_folders_without_a_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"config\.json"):
        LocalRewriter(tmp_path / "gpt2")  # a name that transformers would look for elsewhere
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadModel, match="no causal model"):
        LocalRewriter(tmp_path)


def test_neither_pickles_nor_code_of_the_folder_are_read(folder: Path, tmp_path: Path) -> None:
    for name in ("pickled", "coded"):
        (tmp_path / name).mkdir()
        for file in folder.iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "pickled" / "model.safetensors"
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(BadModel, match="no causal model"):
        LocalRewriter(tmp_path / "pickled")
    config = tmp_path / "coded" / "config.json"
    told = json.loads(config.read_text())
    told |= {"model_type": "stranger", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    config.write_text(json.dumps(told))
    (tmp_path / "coded" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(BadModel, match="no causal model"):
        LocalRewriter(tmp_path / "coded")
    assert not (tmp_path / "ran").exists()


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"max_tokens": 0}, {"warmth": 0.0}, {"warmth": 3.0}):
        with pytest.raises(BadConfig):
            LocalConfig(**wrong)
