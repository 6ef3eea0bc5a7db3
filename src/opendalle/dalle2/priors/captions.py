"""What every prior that is a transformer does with a caption's tokens."""

from jaxtyping import Bool, Float
from torch import Tensor

from opendalle.base.axes import States
from opendalle.base.errors import BadRequest


def check_states(text_states: States, wanted: int) -> None:
    """Refuse captions of another length than the network's places.

    Args:
        text_states: the captions' token states.
        wanted: how many of them a caption has.

    Raises:
        BadRequest: when there are more or fewer.
    """
    if (came := text_states.shape[1]) != wanted:
        raise BadRequest(f"{came} text states", f"{wanted} text states", "Pad or cut the caption's tokens.")


def without_unused(
    tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b m d"], Bool[Tensor, "b m"] | None]:
    """Leave out the places that are padding in every caption of the batch: they change nothing.

    Args:
        tokens: with their positions.
        mask: True where a token is real; None: all are.
    """
    if mask is None:
        return tokens, None
    used = mask.any(dim=0)
    return tokens[:, used], mask[:, used]
