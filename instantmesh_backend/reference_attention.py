"""Reference attention: the picture's own tokens as further keys and values (Zero123++, section 2).

A denoising step has two passes of one UNet. The first takes the noisy picture and leaves the keys
and values of every self-attention layer in a bank; the second takes the noisy views, and each of
its self-attention layers reads its own tokens and what the same layer left in the bank.

The original keeps the layers' inputs and projects them in both passes; projections act on each
token alone, so keeping keys and values gives the same for less. Those of the text are the same in
every pass of a request and are made once.

B rows of a batch, L tokens, G guidance lanes, C channels, H heads, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from onelook.nn.attention import attention

KeysValues = tuple[Tensor, Tensor]  # (B, L, H D) each
_ORDER = ("down_blocks", "mid_block", "up_blocks")  # in which a UNet runs its parts
_PLAIN = {
    "group_norm": None,
    "spatial_norm": None,
    "norm_q": None,
    "norm_k": None,
    "norm_cross": None,
    "residual_connection": False,
    "rescale_output_factor": 1.0,
}


class Pass(Protocol):
    """What a pass does with the keys and values of a layer."""

    def of_text(self, layer: nn.Module, text: Tensor) -> KeysValues: ...
    def of_tokens(self, layer: nn.Module, tokens: Tensor) -> KeysValues: ...
    def ends_with(self, layer: nn.Module) -> bool: ...


@dataclass
class ReferenceBank:
    """Keys and values of one request: of its text (G rows), and of its picture under the noise of
    some steps (G rows for each). Layers are the UNet's attention layers."""

    text: dict[nn.Module, KeysValues] = field(default_factory=dict)
    reference: dict[nn.Module, KeysValues] = field(default_factory=dict)

    def text_of(self, layer: nn.Module, text: Tensor) -> KeysValues:
        if layer not in self.text:
            self.text[layer] = _project(layer, text)
        return self.text[layer]


@dataclass(frozen=True)
class WritePass:
    """Fill the bank. steps: how many steps' pictures are in the batch, G rows each. last: the layer
    after which nothing is needed of the pass; its output is not computed."""

    bank: ReferenceBank
    steps: int = 1
    last: nn.Module | None = None

    def of_text(self, layer: nn.Module, text: Tensor) -> KeysValues:
        k, v = self.bank.text_of(layer, text)
        return k.repeat(self.steps, 1, 1), v.repeat(self.steps, 1, 1)

    def of_tokens(self, layer: nn.Module, tokens: Tensor) -> KeysValues:
        self.bank.reference[layer] = _project(layer, tokens)
        return self.bank.reference[layer]

    def ends_with(self, layer: nn.Module) -> bool:
        return layer is self.last


@dataclass(frozen=True)
class ReadPass:
    """Read the bank. step: which of the steps written together, counted from 0."""

    bank: ReferenceBank
    step: int = 0

    def of_text(self, layer: nn.Module, text: Tensor) -> KeysValues:
        return self.bank.text_of(layer, text)

    def of_tokens(self, layer: nn.Module, tokens: Tensor) -> KeysValues:
        rows = slice(self.step * len(tokens), (self.step + 1) * len(tokens))
        k, v = _project(layer, tokens)
        stored_k, stored_v = self.bank.reference[layer]
        return torch.cat([k, stored_k[rows]], dim=1), torch.cat([v, stored_v[rows]], dim=1)

    def ends_with(self, layer: nn.Module) -> bool:
        return False


class SharedAttention:
    """A diffusers attention processor that takes keys and values from a `Pass`.

    It holds nothing: the pass comes with every call of the UNet, as
    `cross_attention_kwargs={"reference": ...}`.
    """

    def __call__(
        self,
        layer: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        reference: Pass | None = None,
    ) -> Tensor:
        """hidden_states (B, L, C); encoder_hidden_states: the text's tokens, None in
        self-attention -> (B, L, C). Names are diffusers'. Without a pass it is plain attention."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if reference is None:
            k, v = _project(layer, source)
        elif encoder_hidden_states is None:
            k, v = reference.of_tokens(layer, source)
            if reference.ends_with(layer):
                return hidden_states
        else:
            k, v = reference.of_text(layer, source)
        q, k, v = (x.unflatten(-1, (layer.heads, -1)) for x in (layer.to_q(hidden_states), k, v))
        return layer.to_out[0](attention(q, k, v).flatten(-2))  # to_out[1] is dropout


def install(unet: nn.Module) -> None:
    """Give every attention layer of a diffusers UNet2DConditionModel the shared processor.

    Raises ValueError when a layer does more than plain attention.
    """
    for name, layer in unet.named_modules():
        if name.endswith((".attn1", ".attn2")):
            for option, value in _PLAIN.items():
                if getattr(layer, option) != value:
                    raise ValueError(f"{name} has {option}, which Zero123++ has not")
    unet.set_attn_processor(SharedAttention())


def last_self_attention(unet: nn.Module) -> nn.Module:
    """The self-attention layer that runs last."""
    layers = [(name, layer) for name, layer in unet.named_modules() if name.endswith(".attn1")]
    return sorted(layers, key=lambda item: _ORDER.index(item[0].split(".")[0]))[-1][1]


def _project(layer: nn.Module, tokens: Tensor) -> KeysValues:
    return layer.to_k(tokens), layer.to_v(tokens)
