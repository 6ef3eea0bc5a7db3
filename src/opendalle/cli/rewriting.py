"""`--rewrite http` and `--rewrite local`: the chat model that a command line names, and what is told of its texts.

The key of a chat address comes from the environment, since a command line can be read by others; it goes to that
address and nowhere else.
"""

import os
from typing import TYPE_CHECKING, Any

from opendalle.base.errors import BadRequest
from opendalle.base.records import Sample
from opendalle.cli.console import tell

if TYPE_CHECKING:
    from opendalle.dalle3.rewriting.upsampler import PromptUpsampler

KEY = "OPENDALLE_CHAT_KEY"


def upsampler_of(rewrite: str | None, chat_url: str | None, chat_model: str | None) -> "PromptUpsampler | None":
    """Return what rewrites before the pipeline draws; None: nobody, or the model's own rewriter.

    Args:
        rewrite: the field of the Request.
        chat_url: of `--chat-url`.
        chat_model: of `--chat-model`: a model's name, or its folder.

    Raises:
        BadRequest: when the flags do not fit together.
        BadConfig: when the address, or the key for it, is none.
        BadModel: when the folder holds no chat model.
    """
    wanted = {"http": (True, True), "local": (False, True)}.get(rewrite or "", (False, False))
    for flag, value, is_wanted in zip(("--chat-url", "--chat-model"), (chat_url, chat_model), wanted, strict=True):
        if is_wanted != (value is not None):
            mode = f"--rewrite {rewrite}" if rewrite else "no --rewrite"
            came = f"{mode} {'without' if is_wanted else 'with'} {flag}"
            raise BadRequest(came, "--rewrite http --chat-url URL --chat-model NAME, or local --chat-model FOLDER")
    if chat_model is None:
        return None
    from opendalle.dalle3.rewriting.upsampler import PromptUpsampler

    if chat_url is not None:
        from opendalle.dalle3.rewriting.http import ChatConfig, ChatRewriter

        return PromptUpsampler(ChatRewriter(ChatConfig(url=chat_url, model=chat_model), os.environ.get(KEY) or None))
    from pathlib import Path

    from opendalle.dalle3.rewriting.local import LocalRewriter  # torch enters here

    return PromptUpsampler(LocalRewriter(Path(chat_model)))


def tell_rewriting(sample: Sample, recipe: dict[str, Any]) -> None:
    """Show the person the text that is drawn, or say why it is their own; nothing where nothing was rewritten.

    Args:
        sample: a picture of the request.
        recipe: its recipe.
    """
    told = recipe.get("rewriting")
    if not isinstance(told, dict):
        return
    if kept := told.get("kept"):
        tell(f"note: your own words are drawn; {told.get('by')}: {kept}")
    else:
        tell(f"drawn as: {sample.revised_prompt}")
