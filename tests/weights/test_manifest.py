import re

import pytest

from onelook.errors import WeightsError
from onelook.weights.manifest import FileSpec, checkpoint, expand_names, manifest


def test_every_model_names_checkpoints_that_exist_and_its_own_first():
    known = manifest()
    for model, needed in known.models.items():
        assert needed and set(needed) <= set(known.checkpoints), model
        assert len(set(needed)) == len(needed)


@pytest.mark.parametrize("one", manifest().checkpoints.values(), ids=lambda one: one.name)
def test_an_entry_is_complete_and_says_unknown_where_it_does_not_know(one):
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", one.repository)
    assert one.layout in ("pipeline", "pair", "transformers", "diffusers", "file")
    assert one.commercial_use in ("yes", "no", "ask", "unknown")
    assert one.gated in ("yes", "no", "unknown")
    assert one.licence and one.purpose and one.files
    assert len({spec.path for spec in one.files}) == len(one.files)
    for spec in one.files:
        assert spec.bytes is None or spec.bytes > 0
        assert spec.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", spec.sha256)
    if one.layout == "pipeline":
        assert "pipeline.json" in {spec.path for spec in one.files}
    if one.replacement:
        assert checkpoint(one.replacement).gated == "no"


def test_the_sizes_are_the_published_ones():
    # six models of TRELLIS-image-large, five flow models and two decoders of TRELLIS.2
    assert checkpoint("trellis-image-large").known_bytes == 3_006_922_800
    weights = sum(spec.bytes for spec in checkpoint("trellis2-4b").files if spec.bytes)
    assert weights == 4186 + 2584426920 + 2 * 2584574424 + 2 * 2584672728 + 948490494 + 948458812


def test_what_may_not_be_sold_is_marked():
    for name in ("zero123plus-v1.2", "instantmesh-unet", "rmbg-2.0", "stable-zero123"):
        assert checkpoint(name).commercial_use == "no"


def test_a_model_stands_for_all_it_needs_once():
    assert expand_names(["trellis2", "dinov3-vitl16"]) == [
        "trellis2-4b",
        "trellis-structure-decoder",
        "dinov3-vitl16",
    ]


def test_an_unknown_name_brings_the_closest():
    with pytest.raises(WeightsError, match="did you mean triposr"):
        checkpoint("tripo-sr")


def test_a_file_is_chosen_by_name_pattern_or_alternative():
    offered = ["a/model.bin", "tok/x.json", "tok/y.txt"]
    assert FileSpec("tok/*").choose(offered) == ["tok/x.json", "tok/y.txt"]
    assert FileSpec("a/model.safetensors", alternative="a/model.bin").choose(offered) == [
        "a/model.bin"
    ]
    assert FileSpec("a/model.safetensors").choose(offered) == []
