"""What a backend declares about a network, and the images it travels in.

A network that is too large for the device is streamed: the blocks named here come in turn, all its
other tensors stay for the stage. Which parts are blocks is declared and not guessed, because only
a part that is always called as a module (`block(x)`), never reached into, can be streamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from onelook.residency.image import Cast, Image
from onelook.residency.plan import Size

# For a device without half precision: every stored half becomes a float32.
TO_FLOAT32: Cast = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Network:
    """A network in eval mode on the CPU, its tensors mapped or in memory.

    cast: stored dtype -> dtype it computes in; others stay. blocks: names of submodules that may be
    streamed, in the order they run; of a ModuleList or Sequential each item is one. exact: keys of
    parameters that compute in float32 whatever they are stored in.
    """

    module: nn.Module
    cast: Cast = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    exact: frozenset[str] = frozenset()


class Packed:
    """A network as images: the first holds what cannot be streamed, then one per block."""

    def __init__(self, name: str, network: Network):
        """Raises ValueError when a tensor is on no device, or blocks are unknown or overlap."""
        self.name = name
        self.blocks = _find_blocks(name, network)
        owners = _owners(name, self.blocks)
        exact = {
            id(tensor) for key, tensor in network.module.named_parameters() if key in network.exact
        }
        tensors: list[dict[int, tuple[Tensor, list]]] = [{} for _ in range(1 + len(self.blocks))]
        for places, tensor in _tensors(name, network.module):
            blocks = {owners.get(id(members), 0) for members, _ in places}
            home = blocks.pop() if len(blocks) == 1 else 0  # shared between blocks: stays
            tensors[home][id(tensor)] = (tensor, places)
        self.images = [Image(group.values(), network.cast, exact) for group in tensors]
        self.size = Size(self.images[0].size, tuple(image.size for image in self.images[1:]))
        self.members = {id(module) for module in network.module.modules()}

    def come_home(self) -> None:
        """Give every module its host tensors back."""
        for image in self.images:
            image.come_home()


def pack(networks: Mapping[str, Network]) -> dict[str, Packed]:
    """Every network packed. Raises ValueError when two of them share a module."""
    packed = {name: Packed(name, network) for name, network in networks.items()}
    seen: dict[int, str] = {}
    for name, network in packed.items():
        for member in network.members:
            if (other := seen.setdefault(member, name)) != name:
                raise ValueError(
                    f"networks {other} and {name} share a module; declare the shared part as a"
                    " network of its own"
                )
    return packed


def _find_blocks(name: str, network: Network) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for path in network.blocks:
        try:
            part = network.module.get_submodule(path)
        except AttributeError:
            raise ValueError(f"network {name} has no submodule {path!r} to stream") from None
        items = part.children() if isinstance(part, nn.Sequential) else _items(part)
        blocks += [item for item in items if any(True for _ in _slots(item))]
    return blocks


def _items(part: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(part, nn.ModuleList):
        yield part
        return
    for item in part:
        yield from _items(item)


def _owners(name: str, blocks: list[nn.Module]) -> dict[int, int]:
    """id of a module's dict of tensors -> number of its block, from 1."""
    owners: dict[int, int] = {}
    for number, block in enumerate(blocks, 1):
        for module in block.modules():
            for members in (module._parameters, module._buffers):
                if owners.setdefault(id(members), number) != number:
                    raise ValueError(f"network {name}: two blocks to stream share a module")
    return owners


def _slots(module: nn.Module) -> Iterator[tuple[dict, str, Tensor]]:
    for part in module.modules():
        for members in (part._parameters, part._buffers):
            for key, tensor in members.items():
                if tensor is not None:
                    yield members, key, tensor


def _tensors(name: str, module: nn.Module) -> Iterator[tuple[list[tuple[dict, str]], Tensor]]:
    """Every tensor once, with all places that refer to it."""
    found: dict[int, tuple[list[tuple[dict, str]], Tensor]] = {}
    for members, key, tensor in _slots(module):
        if tensor.device.type != "cpu":
            raise ValueError(
                f"network {name}: tensor {key!r} is on {tensor.device}; open the weights on the cpu"
            )
        found.setdefault(id(tensor), ([], tensor))[0].append((members, key))
    yield from found.values()
