"""Drawing with DALL·E mini's network: prompts in order, read once, and what it then says of the next word.

`next_logits` and the cache go to `sample_tokens`; how boldly words are drawn, and with which chance, is asked there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from opendalle.base.axes import Tokens
from opendalle.base.errors import BadRequest
from opendalle.base.protocols import NextLogits
from opendalle.nn.kv_cache import KVCache
from opendalle.pretrained.networks.dalle_bart import DalleBart, DalleBartConfig, ReadPrompts
from opendalle.samplers import GuidedLogits


class PromptLogits:
    """What the network says of the words after prompts: a `NextLogits`, without guidance.

    Args:
        network: in evaluation mode.
        context: from its `read`; as many rows of words a prompt.
    """

    def __init__(self, network: DalleBart, context: ReadPrompts) -> None:
        self.network, self.context = network, context

    def __call__(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        """Return logits of the word that follows; without a cache everything is computed anew."""
        return self.network.word_logits(self.network.states(tokens, self.context, cache)[:, -1])


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What `sample_tokens` needs to draw pictures after prompts."""

    next_logits: NextLogits
    cache: KVCache
    tokens: Int[Tensor, "b 0"]  # no word yet, one row a picture


def drawing(
    network: DalleBart, prompts: Tokens, guidance: float | Float[Tensor, " b"] = 1.0, *, count: int = 1
) -> Drawing:
    """Make ready to draw: prompts are read once, and once the empty prompt, if there is guidance.

    Args:
        network: in evaluation mode.
        prompts: from `padded_prompts`.
        guidance: away from the empty prompt; 1 is off; one number, or one a picture.  dalle-mini drew with 10,
            min-dalle with 16.
        count: pictures a prompt; those of a prompt stand together.

    Source: guidance of logits ("super conditioning", Katherine Crowson, 2022): arXiv:2203.13131, section 3.4.
    """
    num, rows = len(prompts), len(prompts) * count
    is_guided = bool((torch.as_tensor(guidance) != 1).any())
    if is_guided:
        empty = padded_prompts([()] * num, network.config).to(prompts.device)
        prompts = torch.cat([prompts, F.pad(empty, (0, prompts.shape[1] - empty.shape[1]), value=network.config.pad)])
    said: NextLogits = PromptLogits(network, network.read(prompts))
    if is_guided:
        said = GuidedLogits(said, guidance)
    cache = network.new_cache(2 * rows if is_guided else rows)
    return Drawing(next_logits=said, cache=cache, tokens=prompts.new_zeros(rows, 0))


def padded_prompts(prompts: Sequence[Sequence[int]], config: DalleBartConfig) -> Tokens:
    """Put prompts between their first and last token, and fill the places behind.

    A prompt that is too long loses its tail, but never its last token: min-dalle cuts that off, too.

    Args:
        prompts: token numbers of each; none at all is the empty prompt.
        config: which tokens, and how many places there are.

    Raises:
        BadRequest: when a number is beyond the table, as one of the published "mini" tokenizer is.
    """
    kept = [tuple(one)[: config.num_text - 2] for one in prompts]
    for token in (token for one in kept for token in one):
        if not 0 <= token < config.text_vocabulary:
            raise BadRequest(f"the token {token}", f"0 to {config.text_vocabulary - 1}", "Take it as an unknown one?")
    longest = max((len(one) for one in kept), default=0) + 2
    rows = [[config.begin, *one, config.end] + [config.pad] * (longest - len(one) - 2) for one in kept]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), longest)
