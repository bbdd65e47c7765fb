"""Full-size networks with random weights, made in a second or two.

Matrices repeat one pool of normal numbers, scaled so that what a layer gives is as large as what it
gets; biases are a tenth of such numbers, and the weights of norms 1.
"""

from __future__ import annotations

import torch
from made_checkpoints import read_key_list
from torch import Tensor, nn

from trellis_backend.networks import NETWORKS

_POOL_NUMBERS = 1 << 24


def made_network(stem: str, **changes: object) -> nn.Module:
    """The network of an official file of TRELLIS, in float32; changes: to its config."""
    described = read_key_list("trellis", stem)
    with torch.device("meta"):
        network = NETWORKS[described.class_name](described.config | changes)
    return fill(network)


def fill(network: nn.Module) -> nn.Module:
    """Give every tensor of a network on the meta device memory and numbers."""
    draw = torch.Generator().manual_seed(0)
    pool = torch.randn(_POOL_NUMBERS, generator=draw)
    state = {key: _numbers(key, tensor, pool) for key, tensor in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def _numbers(key: str, like: Tensor, pool: Tensor) -> Tensor:
    if not like.is_meta:  # a table, which the network makes itself
        return like
    if key.endswith("bias"):
        return 0.1 * pool[: len(like)]
    if like.ndim == 1 or key.endswith("gamma"):
        return torch.ones(like.shape)
    filled = torch.empty(like.shape)
    fan_in = like.shape[1:].numel()
    for part in filled.view(-1).split(len(pool)):
        torch.mul(pool[: len(part)], fan_in**-0.5, out=part)
    return filled
