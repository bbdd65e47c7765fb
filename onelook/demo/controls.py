"""One control per option, made from `onelook/options.py`: a new option appears by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import gradio as gr

from onelook.options import Options, option_fields, parse_options

MAIN = ("model", "quality", "seed", "randomize_seed")
SAMPLING = "Sampling"
OUTPUT = "Model, textures and other outputs"
_SAMPLING = ("pipeline_type", "decimation_target")  # first one for the networks, first one after
_WIDEST_SLIDER = 1000  # steps; a longer range is typed in


def add_controls() -> dict[str, Any]:
    """Add every option's control to the page in progress -> by the option's name, in its order."""
    fields = {option.name: option for option in option_fields()}
    made = {name: _control(fields.pop(name)) for name in MAIN}
    names = list(fields)
    sampling = names[names.index(_SAMPLING[0]) : names.index(_SAMPLING[1])]
    rest = [name for name in names if name not in sampling]
    for title, group in ((OUTPUT, rest), (SAMPLING, sampling)):
        with gr.Accordion(f"Advanced: {title}", open=False):
            made |= {name: _control(fields[name]) for name in group}
    return {option.name: made[option.name] for option in option_fields()}


def read_controls(values: Sequence[Any]) -> Options:
    """The controls' values, in the options' order -> checked options.

    Raises OptionError with a sentence.
    """
    names = [option.name for option in option_fields()]
    return parse_options(dict(zip(names, values, strict=True)))


def _control(option: dataclasses.Field) -> Any:
    limits = option.metadata
    about = {
        "value": option.default,
        "label": option.name.replace("_", " "),
        "info": limits["help"],
        "elem_id": f"option-{option.name}",
    }
    if isinstance(option.default, bool):
        return gr.Checkbox(**about)
    if isinstance(option.default, str):
        return gr.Dropdown(list(limits["choices"]), **about)
    return _number(option, about)


def _number(option: dataclasses.Field, about: dict[str, Any]) -> Any:
    limits, whole = option.metadata, isinstance(option.default, int)
    low, high = limits["minimum"], limits["maximum"]
    step = 2 if limits["even"] else 1 if whole else 0.05
    if (high - low) / step <= _WIDEST_SLIDER:
        return gr.Slider(low, high, step=step, **about)
    return gr.Number(minimum=low, maximum=high, step=step, precision=0 if whole else None, **about)
