"""A rewriter in a folder: any causal language model that the transformers library knows (extra `llm`).

Nothing is fetched, no code of the folder is run, and weights are read from safetensors alone.  A model with a chat
template is asked as a chat model; any other one is shown the examples as text and goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opendalle.base.errors import BadModel, MissingExtra, require
from opendalle.dalle3.rewriting.instructions import Turn, as_text, conversation, without_system


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """How a local chat model writes."""

    max_tokens: int = 256  # of the text; one that is cut off there is not used
    warmth: float = 0.7  # temperature of every seed but 0, which asks for the likeliest text

    def __post_init__(self) -> None:
        require(self.max_tokens >= 1, f"max_tokens {self.max_tokens}", "at least 1")
        require(0 < self.warmth <= 2, f"warmth {self.warmth}", "above 0, at most 2")


class LocalRewriter:
    """Asks a language model on this machine.

    Args:
        folder: as transformers writes it: config.json, *.safetensors, and a tokenizer.
        config: how it writes.
        device: where it computes.

    Raises:
        BadModel: when there is no such folder, or no causal model can be read from it.
        MissingExtra: when transformers is not installed.
    """

    def __init__(self, folder: Path, config: LocalConfig | None = None, device: str | torch.device = "cpu") -> None:
        if not (folder / "config.json").is_file():  # a name that is no folder would be sought elsewhere
            raise BadModel(f"{folder}, without a config.json", "the folder of a causal language model")
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise MissingExtra("transformers", "llm") from None
        self.config, self.name = config or LocalConfig(), f"local:{folder.resolve().name}"
        closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **closed)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **closed)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError) as error:
            why = " ".join(str(error).split())[:200]
            raise BadModel(
                f"{folder}, which holds no causal model that can be read ({why})",
                "config.json, *.safetensors and a tokenizer, of a model that runs without code of its own",
            ) from None
        self._model = model.to(device).eval().requires_grad_(False)

    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """Write one caption a prompt; "" where the model came to no end.

        Args:
            prompts: as people typed them.
            seeds: one a prompt; 0 asks for the likeliest text.

        Raises:
            BadModel: when the model has no room for the question.
        """
        return [self._text(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    @torch.no_grad()
    def _text(self, prompt: str, seed: int) -> str:
        turns = conversation(prompt)
        is_chat = self._tokenizer.chat_template is not None
        text = self._templated(turns) if is_chat else as_text(turns)
        # A template writes its own special tokens; a plain text gets those that the tokenizer begins with.
        asked = self._tokenizer(text, return_tensors="pt", add_special_tokens=not is_chat).to(self._model.device)
        length = asked["input_ids"].shape[1]
        room = getattr(self._model.config, "max_position_embeddings", None)
        if room is not None and length + self.config.max_tokens > room:
            came = f"a model of {room} tokens for a question of {length} and {self.config.max_tokens} to answer"
            raise BadModel(came, f"one of at least {length + self.config.max_tokens}", "Take a model that reads more.")
        written = self._written(asked, seed, is_chat)[length:]
        ends = _ends(self._model, self._tokenizer)
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        if is_chat:
            return text if len(written) and int(written[-1]) in ends else ""
        line, *more = text.lstrip().split("\n", 1)
        return line if more or (len(written) and int(written[-1]) in ends) else ""

    def _written(self, asked: Any, seed: int, is_chat: bool) -> torch.Tensor:
        """Let the model go on; its chance is its own, and nobody else's is used up."""
        chance: dict[str, Any] = {"do_sample": True, "temperature": self.config.warmth, "top_p": 0.95, "top_k": 0}
        stop: dict[str, Any] = {} if is_chat else {"stop_strings": ["\n"], "tokenizer": self._tokenizer}
        pad = self._tokenizer.pad_token_id
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return self._model.generate(
                **asked,
                max_new_tokens=self.config.max_tokens,
                pad_token_id=pad if pad is not None else next(iter(_ends(self._model, self._tokenizer)), 0),
                **(chance if seed else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}),
                **stop,
            )[0]

    def _templated(self, turns: list[Turn]) -> str:
        from jinja2.exceptions import TemplateError

        wishes: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        try:
            return self._tokenizer.apply_chat_template(turns, **wishes)
        except TemplateError:  # templates say so when they know no system role
            return self._tokenizer.apply_chat_template(without_system(turns), **wishes)


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a text; a model may have several."""
    told = getattr(model.generation_config, "eos_token_id", None)
    several = told if isinstance(told, list | tuple) else [told]
    return frozenset(one for one in (*several, tokenizer.eos_token_id) if one is not None)
