"""Embeddings of time and place give what the original's give."""

import torch
from helpers.parity import Parity

from onelook.nn.embedders import TimestepEmbedder, place_waves, time_waves


@torch.inference_mode()
def test_timestep_embedder(load_case):
    case = Parity(load_case("trellis/timestep_embedder"))
    embedder = case.seed(TimestepEmbedder(case.config["hidden_size"]))
    case.check("freq", time_waves(case["t"], case.config["frequency_embedding_size"]))
    case.check("out", embedder(case["t"]))


def test_place_embedding(load_case):
    case = Parity(load_case("trellis/abs_pos_embed"))
    for channels in case.config["channels"]:
        wanted = case[f"emb_{channels}"]
        case.check(f"emb_{channels}", place_waves(case["coords"][: len(wanted)], channels))
