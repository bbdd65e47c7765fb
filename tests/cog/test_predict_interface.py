"""`predict.py` as Cog's builder reads it: nothing it would drop, and the numbers of options.py."""

from __future__ import annotations

import ast
import json

import pytest
from helpers.cog_lint import problems
from helpers.cog_schema import (
    PREDICT_FILE,
    ROOT,
    SCHEMA_FILE,
    input_keywords,
    openapi_document,
    output_class,
    output_fields,
    parameters,
    predict_method,
    render,
)

from onelook.backends import BACKENDS
from onelook.engine import MOST_VIEWS
from onelook.options import option_fields

SOURCE = PREDICT_FILE.read_text()


def test_predict_file_has_nothing_the_builder_would_drop():
    assert problems(SOURCE) == []


def test_predict_file_stands_at_the_root_of_the_repository():
    assert PREDICT_FILE.parent == ROOT
    assert (ROOT / "cog.yaml").is_file()


def test_inputs_are_the_options_after_the_picture():
    (image, image_input), (images, images_input), *others = parameters(
        predict_method(ast.parse(SOURCE))
    )
    assert (image.arg, ast.unparse(image.annotation)) == ("image", "Path")
    assert set(input_keywords(image_input)) == {"description"}  # without default: required
    assert (images.arg, ast.unparse(images.annotation)) == ("images", "Optional[List[Path]]")
    assert input_keywords(images_input)["default"] is None
    assert f"at most {MOST_VIEWS}" in input_keywords(images_input)["description"]
    assert [argument.arg for argument, _ in others] == [option.name for option in option_fields()]
    for (argument, default), option in zip(others, option_fields(), strict=True):
        limits = option.metadata
        expected = {"description": limits["help"], "default": option.default}
        if limits["minimum"] is not None:
            expected |= {"ge": limits["minimum"], "le": limits["maximum"]}
        if limits["choices"]:
            expected["choices"] = list(limits["choices"])
        assert input_keywords(default) == expected
        assert ast.unparse(argument.annotation) == type(option.default).__name__
        assert type(input_keywords(default)["default"]) is type(option.default)


def test_every_output_may_be_null():
    assert output_fields(output_class(ast.parse(SOURCE))) == {
        "no_background_image": "Optional[Path]",
        "video": "Optional[Path]",
        "model_file": "Optional[Path]",
        "preview_image": "Optional[Path]",
        "contact_sheet": "Optional[Path]",
        "gaussian_file": "Optional[Path]",
        "views_image": "Optional[Path]",
        "frames_file": "Optional[Path]",
    }


def test_checked_in_schema_is_the_one_of_predict_file():
    fresh = render(openapi_document(SOURCE))
    assert SCHEMA_FILE.read_text() == fresh, "write it anew: make schema"


def test_schema_says_what_a_client_may_send():
    schemas = json.loads(SCHEMA_FILE.read_text())["components"]["schemas"]
    inputs = schemas["Input"]["properties"]
    assert schemas["Input"]["required"] == ["image"]
    assert inputs["image"] | {"description": ""} == {
        "title": "Image",
        "type": "string",
        "format": "uri",
        "description": "",
        "x-order": 0,
    }
    assert inputs["seed"] | {"description": ""} == {
        "title": "Seed",
        "type": "integer",
        "default": 42,
        "minimum": 0,
        "maximum": 2147483647,
        "description": "",
        "x-order": 3,
    }
    assert inputs["images"] | {"description": ""} == {
        "title": "Images",
        "type": "array",
        "items": {"type": "string", "format": "uri"},
        "nullable": True,
        "description": "",
        "x-order": 1,
    }
    assert inputs["model"]["allOf"] == [{"$ref": "#/components/schemas/model"}]
    assert "type" not in inputs["model"]
    assert schemas["model"]["enum"] == ["auto", *BACKENDS]
    assert schemas["Output"]["properties"]["video"] == {
        "title": "Video",
        "type": "string",
        "format": "uri",
        "nullable": True,
    }


GOOD = """
from typing import List, Optional
from cog import BaseModel, BasePredictor, Input, Path

LIMIT = 5

class Output(BaseModel):
    picture: Optional[Path] = None

class Predictor(BasePredictor):
    def setup(self) -> None:
        pass

    def predict(
        self,
        image: Path = Input(description="a picture"),
        size: int = Input(description="a size", default=3, ge=-1, le=5),
        kind: str = Input(description="a kind", default="a", choices=["a", "b"]),
        scale: float = Input(description="a scale", default=-0.5),
        fast: bool = Input(description="a switch", default=False),
        more: Optional[List[Path]] = Input(description="further pictures", default=None),
    ) -> Output:
        return Output()
"""
SIZE = 'size: int = Input(description="a size", default=3, ge=-1, le=5)'
KIND = 'kind: str = Input(description="a kind", default="a", choices=["a", "b"])'
BAD = {  # what is replaced, by what, and a word of the complaint
    "name_as_default": ("default=3", "default=LIMIT", "LIMIT is not a literal"),
    "attribute_as_default": ("default=3", "default=Limits.SIZE", "not a literal"),
    "sum_as_default": ("default=3", "default=1 + 2", "not a literal"),
    "power_as_bound": ("le=5", "le=2**31 - 1", "not a literal"),
    "name_as_bound": ("le=5", "le=LIMIT", "not a literal"),
    "none_as_default": ("default=3", "default=None", "not a literal"),
    "positional_default": ('Input(description="a size", default=3', "Input(3", "keywords only"),
    "unpacked_keywords": ('description="a size"', "**{}", "keywords only"),
    "two_strings": ('"a size"', '"a " "size"', "one plain string"),
    "joined_strings": ('"a size"', '"a " + "size"', "not a literal"),
    "bracketed_strings": ('"a size"', '("a " "size")', "without brackets"),
    "bracketed_string": ('"a size"', '("a size")', "without brackets"),
    "bracketed_number": ("default=3", "default=(3)", "without brackets"),
    "formatted_string": ('"a size"', 'f"a size"', "not a literal"),
    "raw_string": ('"a size"', 'r"a size"', "one plain string"),
    "escaped_quote": ('"a size"', "'a \\'size'", "one plain string"),
    "escaped_newline": ('"a size"', '"a \\n size"', "one plain string"),
    "long_string": ('"a size"', '"""a\nsize"""', "one plain string"),
    "no_description": ('description="a size", ', "", "description is expected"),
    "default_below": ("default=3", "default=-2", "out of bounds"),
    "default_above": ("default=3", "default=6", "out of bounds"),
    "bounds_crossed": ("ge=-1, le=5", "ge=5, le=-1", "ge is above le"),
    "default_of_other_type": ("default=3", "default=3.0", "of type int"),
    "bool_for_int": ("default=3", "default=True", "of type int"),
    "number_for_bool": ("default=False", "default=0", "of type bool"),
    "default_not_a_choice": ('default="a"', 'default="c"', "none of the choices"),
    "one_choice": ('["a", "b"]', '["a"]', "two or more"),
    "repeated_choice": ('["a", "b"]', '["a", "a"]', "two or more"),
    "choices_as_tuple": ('["a", "b"]', '("a", "b")', "list written out"),
    "choices_by_name": ('["a", "b"]', "KINDS", "list written out"),
    "choices_computed": ('["a", "b"]', 'sorted(["a", "b"])', "list written out"),
    "choices_of_names": ('["a", "b"]', '["a", B]', "not a literal"),
    "choices_of_mixed_type": ('["a", "b"]', '["a", 2]', "of type str"),
    "choices_on_float": ("default=-0.5", "default=0.5, choices=[0.5, 1.0]", "for str and int"),
    "choices_and_bounds": ("ge=-1, le=5", "ge=-1, choices=[3, 4]", "without bounds"),
    "bounds_of_text": ("le=5", 'le="5"', "must be numbers"),
    "bounds_on_text": ('default="a"', 'default="a", ge=1', "takes no bounds"),
    "newer_keyword": ('description="a picture"', 'description="p", accept="image/*"', "accept"),
    "no_annotation": ("size: int", "size", "no annotation"),
    "optional_input": ("size: int", "size: Optional[int]", "the type must be"),
    "optional_without_none": (
        'Input(description="further pictures", default=None)',
        'Input(description="further pictures")',
        "default=None",
    ),
    "union_with_text": ("image: Path", "image: Path | str", "the type must be"),
    "plain_default": (SIZE, "size: int = 3", "call of Input"),
    "cog_itself": ("from typing import List, Optional", "import cog", "not cog itself"),
    "renamed_import": ("import BaseModel,", "import BaseModel as BaseModel,", "keep its name"),
    "path_of_pathlib": (
        "from cog import BaseModel, BasePredictor, Input, Path",
        "from cog import BaseModel, BasePredictor, Input\nfrom pathlib import Path",
        "Path must be imported from cog",
    ),
    "taken_name": ("kind: str", "Status: str", "something else of this name"),
    "star_arguments": (KIND, "*others: str", "plain parameters only"),
    "keyword_arguments": ("        fast: bool", "        *, fast: bool", "plain parameters only"),
    "no_return_annotation": (" -> Output", "", "class of this file"),
    "optional_return": ("-> Output", "-> Optional[Output]", "class of this file"),
    "imported_return": ("-> Output", "-> Answer", "class of this file"),
    "derived_output": ("Output(BaseModel)", "Output(Base, BaseModel)", "only base"),
    "field_of_unknown_type": ("Optional[Path] = None", "dict[str, Path]", "no type that Cog"),
    "optional_field_without_default": (
        "Optional[Path] = None",
        "Optional[Path]",
        "default to None",
    ),
    "run_beside_predict": ("def setup", "def run(self):\n        pass\n\n    def setup", "run"),
    "asynchronous": ("def predict", "async def predict", "not asynchronous"),
    "no_base": ("Predictor(BasePredictor)", "Predictor", "BasePredictor"),
}


def test_lint_accepts_a_good_file():
    assert problems(GOOD) == []


@pytest.mark.parametrize("case", BAD)
def test_lint_refuses(case):
    old, new, complaint = BAD[case]
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert any(complaint in problem for problem in found), found
