"""What a step of the full-size flow models needs on a GPU, worked out on the meta device.

Shapes and types are those of a GPU; what an attention kernel or a library needs within is not seen.
"""

import json

import pytest
import torch
from helpers.golden import GOLDEN
from helpers.live_bytes import LiveBytes

from onelook.nn.condition import Condition
from onelook.nn.layout import Dense
from trellis2_backend.networks import NETWORKS, exact_keys
from trellis2_backend.pipeline import MOST_TOKENS
from trellis2_backend.request import WORKING_BYTES

FULL = "slat_flow_imgshape2tex_dit_1_3B_1024_bf16"
COARSE = "slat_flow_img2shape_dit_1_3B_512_bf16"


def full_size(stem):
    content = json.loads((GOLDEN / f"trellis2/manifest/{stem}.json").read_text())
    with torch.device("meta"):
        network = NETWORKS[content["class"]](content["config"])
    exact = exact_keys(network)
    for key, parameter in network.named_parameters():
        if key not in exact:
            parameter.data = parameter.data.bfloat16()
    return network


@torch.inference_mode()
@pytest.mark.parametrize(
    "stem, size, tokens, picture_tokens, most_gb",
    [(FULL, "1024", MOST_TOKENS, 4101, 5.5), (COARSE, "512", 10_000, 1029, 3.6)],
)
def test_a_guided_step_fits(stem, size, tokens, picture_tokens, most_gb):
    """With the keys and values that all blocks keep, and the network's weights."""
    network = full_size(stem)
    config = network.config
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    with torch.device("meta"):
        x = torch.empty(1, tokens, config.in_channels)
        phases = torch.empty(tokens, config.head_width // 2, dtype=torch.complex64)
        picture, nothing = (torch.empty(1, n, config.cond_channels) for n in (picture_tokens, 1))
        time = torch.empty(1)
    conditions = [Condition(picture), Condition(nothing)]
    with LiveBytes() as live:
        out = network.token_velocities(x, time, conditions, Dense(), phases)
    assert [rows.shape for rows in out] == 2 * [(1, tokens, config.out_channels)]
    assert live.peak + weights < most_gb * 1e9
    assert 0.9 * WORKING_BYTES[size] < live.peak < WORKING_BYTES[size]
