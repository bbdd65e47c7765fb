"""What schemathesis cannot make up: real pictures, ids of real jobs; loaded by SCHEMATHESIS_HOOKS.

Files are a sound picture most of the time. In the JSON of a Cog request that is meant to be right,
every second picture is a sound one, with settings that do not take minutes. Every second job id is
one that FUZZ_JOBS names.
"""

from __future__ import annotations

import base64
import itertools
import os

import schemathesis
from helpers.pictures import mushroom_png
from hypothesis import strategies
from schemathesis.transport.serialization import Binary

PICTURE = mushroom_png(64)
CHEAP = {"decimation_target": 500, "texture_size": 256, "generate_video": False, "video_size": 256}
JOBS = [job for job in os.environ.get("FUZZ_JOBS", "").split(",") if job]
FILES = ("output.glb", "preview.png")
_turn = itertools.count()

_files = strategies.just(PICTURE) | strategies.just(PICTURE) | strategies.binary()
schemathesis.openapi.format("binary", _files.map(Binary))


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    number = next(_turn)
    if number % 2:
        return
    is_wrong = case.meta is not None and case.meta.generation.mode.is_negative
    if isinstance(case.body, dict) and isinstance(case.body.get("input"), dict) and not is_wrong:
        inline = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
        case.body["input"].update(CHEAP, image=inline)
    if JOBS and case.path_parameters and "job_id" in case.path_parameters:
        case.path_parameters["job_id"] = JOBS[number // 2 % len(JOBS)]
        if "filename" in case.path_parameters:
            case.path_parameters["filename"] = FILES[number // 4 % len(FILES)]
