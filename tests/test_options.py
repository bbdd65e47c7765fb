"""Options: what every door accepts and refuses, and in which words."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from onelook.errors import OptionError
from onelook.options import MAX_SEED, QUALITY_PRESETS, Options, option_fields, parse_options

INT, FLOAT, BOOL = "shape_slat_steps", "shape_slat_cfg", "generate_video"  # 1..50, 0..15, -


def test_nothing_given_means_the_defaults():
    assert parse_options({}) == Options()
    assert Options().seed == 42
    assert (Options().face_budget, Options().texture_pixels) == (1_000_000, 4096)


@pytest.mark.parametrize("option", option_fields(), ids=lambda option: option.name)
def test_defaults_and_limits_of_every_option_are_accepted_as_json_and_as_text(option):
    limits = option.metadata
    values = [option.default, *limits["choices"]]
    values += [limit for limit in (limits["minimum"], limits["maximum"]) if limit is not None]
    for value in values:
        for form in (value, str(value), json.loads(json.dumps(value))):
            parsed = getattr(parse_options({option.name: form}), option.name)
            assert parsed == value
            assert type(parsed) is type(option.default)
    assert limits["help"].endswith(".") and limits["help"].count("\n") == 0


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        (INT, 5.0, 5),
        (INT, "5", 5),
        (INT, "5.0", 5),
        (INT, " 5 ", 5),
        (INT, "1e1", 10),
        (INT, np.int64(5), 5),
        (INT, np.float32(5), 5),
        (INT, Fraction(10, 2), 5),
        (FLOAT, 7, 7.0),
        (FLOAT, "7.25", 7.25),
        (FLOAT, "15", 15.0),
        (FLOAT, 0, 0.0),
        (FLOAT, -0.0, 0.0),
        ("seed", MAX_SEED, MAX_SEED),
        ("seed", str(MAX_SEED), MAX_SEED),
        (BOOL, "false", False),
        (BOOL, "Off", False),
        (BOOL, "NO", False),
        (BOOL, 0, False),
        (BOOL, " yes ", True),
        (BOOL, "on", True),
        (BOOL, 1, True),
        ("pipeline_type", 512, "512"),
        ("pipeline_type", "1024", "1024"),
    ],
)
def test_coerced(name, given, expected):
    parsed = getattr(parse_options({name: given}), name)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (INT, 5.5),
        (INT, "5.5"),
        (INT, 0),
        (INT, 51),
        (INT, -3),
        (INT, True),
        (INT, float("nan")),
        (INT, float("inf")),
        (INT, "nan"),
        (INT, "-inf"),
        (INT, "1e400"),
        (INT, 10**400),
        (INT, "five"),
        (INT, ""),
        (INT, None),
        (INT, [5]),
        (INT, {"value": 5}),
        (INT, 1j),
        (FLOAT, -0.01),
        (FLOAT, 15.001),
        (FLOAT, False),
        (FLOAT, "nan"),
        (FLOAT, float("inf")),
        (FLOAT, None),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("decimation_target", 499),
        ("decimation_target", 2_000_001),
        ("texture_size", 255),
        ("texture_size", 8193),
        ("video_size", 511),
        ("video_size", 1026),
        (BOOL, "maybe"),
        (BOOL, ""),
        (BOOL, 2),
        (BOOL, None),
        (BOOL, []),
        ("quality", "best"),
        ("quality", "Custom"),
        ("quality", ""),
        ("model", None),
        ("pipeline_type", ["512"]),
    ],
)
def test_refused_naming_the_option_the_value_and_the_range(name, given):
    with pytest.raises(OptionError) as refusal:
        parse_options({name: given})
    sentence = str(refusal.value)
    assert sentence.startswith(f"{name} must be ")
    assert len(sentence) < 600 and "\n" not in sentence
    option = next(option for option in option_fields() if option.name == name)
    if option.metadata["minimum"] is not None:
        assert f"from {option.metadata['minimum']} to {option.metadata['maximum']}" in sentence
    for choice in option.metadata["choices"]:
        assert choice in sentence


@pytest.mark.parametrize(
    ("misspelt", "suggestion"),
    [
        ("texture_sise", "texture_size"),
        ("decimation-target", "decimation_target"),
        ("Seed", "seed"),
        ("tex_slat_step", "tex_slat_steps"),
    ],
)
def test_misspelt_option_gets_a_suggestion(misspelt, suggestion):
    with pytest.raises(OptionError, match=f"no option '{misspelt}'; did you mean '{suggestion}'"):
        parse_options({misspelt: 1})


def test_odd_video_size_is_refused_with_the_rule():
    assert parse_options({"video_size": "600"}).video_size == 600
    with pytest.raises(OptionError, match="must be an even number from 256 to 1024, got 601"):
        parse_options({"video_size": 601})


@pytest.mark.parametrize("name", [INT, BOOL, "quality"])
def test_long_value_is_not_repeated_in_full(name):
    with pytest.raises(OptionError) as refusal:
        parse_options({name: "9" * 100_000})
    assert len(str(refusal.value)) < 200
    with pytest.raises(OptionError) as refusal:
        parse_options({"9" * 100_000: 1})
    assert len(str(refusal.value)) < 1500  # it lists every option


def test_unknown_option_is_answered_with_the_known_ones():
    with pytest.raises(OptionError) as refusal:
        parse_options({"zzz": 1})
    assert all(option.name in str(refusal.value) for option in option_fields())


@pytest.mark.parametrize(
    ("quality", "faces", "pixels"),
    [("balanced", 500_000, 2048), ("high", 1_000_000, 4096), ("ultra", 2_000_000, 4096)],
)
def test_quality_presets_override_the_two_numbers(quality, faces, pixels):
    options = parse_options({"quality": quality, "decimation_target": 700, "texture_size": 512})
    assert (options.face_budget, options.texture_pixels) == (faces, pixels)
    assert (options.decimation_target, options.texture_size) == (700, 512)


def test_custom_quality_uses_the_two_numbers():
    options = parse_options({"decimation_target": 700, "texture_size": 512})
    assert (options.face_budget, options.texture_pixels) == (700, 512)


def test_quality_choices_are_custom_and_the_presets():
    option = next(option for option in option_fields() if option.name == "quality")
    assert set(option.metadata["choices"]) == {"custom", *QUALITY_PRESETS}


def test_drawn_seed_is_in_range_and_leaves_the_rest_alone():
    fixed = Options(seed=7)
    assert fixed.with_drawn_seed() is fixed
    drawn = [Options(seed=7, randomize_seed=True, texture_size=512).with_drawn_seed() for _ in "ab"]
    assert all(0 <= options.seed <= MAX_SEED for options in drawn)
    assert drawn[0].seed != drawn[1].seed  # wrong once in two thousand million runs
    assert {options.texture_size for options in drawn} == {512}
