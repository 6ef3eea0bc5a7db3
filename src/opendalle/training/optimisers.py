"""One AdamW a parameter group, with weight decay only where it means something.

Decay pulls a matrix towards zero and so limits how much a layer can amplify.  A bias, a norm's gain or a vector that
stands for a word amplifies nothing: pulling at it only forgets.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from opendalle.base.errors import require
from opendalle.training.config import AdamWConfig


def make_optimiser(module: nn.Module, config: AdamWConfig) -> AdamW:
    """Return the optimiser of one group.

    Args:
        module: its parameters that require a gradient are trained.
        config: learning rate and the rest.

    Raises:
        BadConfig: when nothing in the module requires a gradient.
    """
    trained = {name: one for name, one in module.named_parameters() if one.requires_grad}
    require(bool(trained), "a parameter group without trainable parameters", "a module that requires gradients")
    decayed = names_to_decay(module)
    groups = [
        {"params": [one for name, one in trained.items() if name in decayed], "weight_decay": config.weight_decay},
        {"params": [one for name, one in trained.items() if name not in decayed], "weight_decay": 0.0},
    ]
    fused = all(one.device.type in ("cpu", "cuda") for one in trained.values())  # one pass over memory, not ten
    return AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=fused,
    )


def names_to_decay(module: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that decay: weights of two axes or more that are no embedding.

    A bare parameter counts as a weight if its own name says so (`qkv_weight`); positions, queries and learned
    tokens do not.

    Args:
        module: a network.
    """
    tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
    return frozenset(
        name
        for name, one in module.named_parameters()
        if one.ndim >= 2 and "weight" in name.rpartition(".")[2] and id(one) not in tables
    )


def optimiser_tensors(optimiser: AdamW, module: nn.Module) -> dict[str, Tensor]:
    """Return an optimiser's memory as named tensors: `exp_avg/blocks.0.weight`, ...

    Args:
        optimiser: made by `make_optimiser` for `module`.
        module: gives the names.
    """
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for name, parameter in module.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def load_optimiser(optimiser: AdamW, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back the memory that `optimiser_tensors` wrote down.

    Args:
        optimiser: made by `make_optimiser` for `module`.
        module: gives the names.
        tensors: as written.

    Raises:
        BadConfig: when a tensor belongs to no parameter of the module, or has another shape.
    """
    by_name = dict(module.named_parameters())
    memory: dict[str, dict[str, Tensor]] = {}
    for key_and_name, value in tensors.items():
        key, _, name = key_and_name.partition("/")
        fits = name in by_name and value.shape in (by_name[name].shape, torch.Size([]))
        require(fits, f"optimiser memory {key_and_name!r} of shape {tuple(value.shape)}", "that of this network")
        if value.shape == by_name[name].shape:  # laid out as its weight is: fused steps walk both memories in parallel
            value = torch.empty_like(by_name[name].detach(), dtype=value.dtype).copy_(value)
        memory.setdefault(name, {})[key] = value
    # torch numbers parameters in the order of its groups; going through its own door keeps device and dtype rules.
    number_from_id = {
        id(parameter): number
        for number, parameter in enumerate(one for group in optimiser.param_groups for one in group["params"])
    }
    state = {number_from_id[id(by_name[name])]: values for name, values in memory.items()}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
