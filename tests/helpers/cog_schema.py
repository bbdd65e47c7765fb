"""The OpenAPI document of `predict.py`, made from its text as Cog's builder makes it.

Cog's server checks requests against `.cog/openapi_schema.json` in its working folder and accepts
everything unchecked where that file is missing. `cog build` writes it into the image; the copy in
this repository lets the server run from a checkout, and shows a change of the interface in review.
`make schema` writes it anew.

The format is that of Cog 0.23 (pkg/schema/openapi.go in replicate/cog): OpenAPI 3.0.2, one schema
per parameter with choices, `x-order` for the order of the parameters.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PREDICT_FILE = ROOT / "predict.py"
SCHEMA_FILE = ROOT / ".cog" / "openapi_schema.json"

JSON_TYPES = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Path": {"type": "string", "format": "uri"},
}
OPTIONAL_TYPES = {  # of inputs that may be left out
    "Optional[List[Path]]": {"type": "array", "items": JSON_TYPES["Path"], "nullable": True},
}
_KEYWORDS = {
    "description": "description",
    "default": "default",
    "ge": "minimum",
    "le": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "regex": "pattern",
}
_REF = "#/components/schemas/"


def openapi_document(source: str) -> dict[str, Any]:
    """`source` of a predict.py without problems (see `cog_lint`) -> its OpenAPI document."""
    tree = ast.parse(source)
    inputs, choices = _input_schemas(predict_method(tree))
    schemas = {
        "Input": inputs,
        "Output": _output_schema(output_class(tree)),
        **choices,
        **_fixed_schemas(),
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": _paths(),
        "components": {"schemas": schemas},
    }


def render(document: dict[str, Any]) -> str:
    """The document as it stands in the checked-in file."""
    return json.dumps(document, indent=2) + "\n"


def predictor_class(tree: ast.Module) -> ast.ClassDef:
    """The class that has a method `predict`."""
    return next(
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(
            isinstance(child, ast.FunctionDef) and child.name == "predict" for child in node.body
        )
    )


def predict_method(tree: ast.Module) -> ast.FunctionDef:
    """The method `predict` of the predictor."""
    body = predictor_class(tree).body
    return next(
        node for node in body if isinstance(node, ast.FunctionDef) and node.name == "predict"
    )


def parameters(method: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    """The parameters of a method after `self`, each with its default."""
    arguments = method.args.args[1:]
    defaults = method.args.defaults
    missing = [None] * (len(arguments) - len(defaults))
    return list(zip(arguments, [*missing, *defaults], strict=True))


def input_keywords(default: ast.expr) -> dict[str, Any]:
    """`Input(default=3, ge=1)` -> {"default": 3, "ge": 1}."""
    assert isinstance(default, ast.Call)
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in default.keywords}


def output_class(tree: ast.Module) -> ast.ClassDef:
    """The class that `predict` returns."""
    name = ast.unparse(predict_method(tree).returns)
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def output_fields(model: ast.ClassDef) -> dict[str, str]:
    """Field -> annotation, in order."""
    fields = (node for node in model.body if isinstance(node, ast.AnnAssign))
    return {ast.unparse(node.target): ast.unparse(node.annotation) for node in fields}


def _input_schemas(method: ast.FunctionDef) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema Input and one schema for each parameter with choices."""
    properties, choices, required = {}, {}, []
    for order, (argument, default) in enumerate(parameters(method)):
        name = argument.arg
        kind = (JSON_TYPES | OPTIONAL_TYPES)[ast.unparse(argument.annotation)]
        keywords = input_keywords(default)
        schema = {
            _KEYWORDS[key]: value
            for key, value in keywords.items()
            if key in _KEYWORDS and value is not None
        }
        if "choices" in keywords:
            schema["allOf"] = [{"$ref": _REF + name}]
            choices[name] = {
                "title": name,
                "description": "An enumeration.",
                "enum": keywords["choices"],
                "type": kind["type"],
            }
        else:
            schema |= {"title": _title(name), **kind}
        if "default" not in keywords:
            required.append(name)
        properties[name] = {**dict(sorted(schema.items())), "x-order": order}
    return (
        {"title": "Input", "type": "object", "required": required, "properties": properties},
        choices,
    )


def _output_schema(model: ast.ClassDef) -> dict[str, Any]:
    properties = {}
    for name, annotation in output_fields(model).items():
        kind = annotation.removeprefix("Optional[").removesuffix("]")
        nullable = {"nullable": True} if annotation.startswith("Optional[") else {}
        properties[name] = {**JSON_TYPES[kind], **nullable, "title": _title(name)}
    return {"title": "Output", "type": "object", "properties": properties}


def _title(name: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _fixed_schemas() -> dict[str, Any]:
    """What every predictor has: request, response, status and errors."""
    text, moment = {"type": "string"}, {"type": "string", "format": "date-time"}
    return {
        "PredictionRequest": _object(
            "PredictionRequest", {"id": text, "input": {"$ref": _REF + "Input"}}
        ),
        "PredictionResponse": _object(
            "PredictionResponse",
            {
                "input": {"$ref": _REF + "Input"},
                "output": {"$ref": _REF + "Output"},
                "id": text,
                "version": text,
                "created_at": moment,
                "started_at": moment,
                "completed_at": moment,
                "status": text,
                "error": text,
                "logs": text,
                "metrics": {"type": "object"},
            },
        ),
        "Status": {
            "title": "Status",
            "description": "An enumeration.",
            "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
            "type": "string",
        },
        "HTTPValidationError": _object(
            "HTTPValidationError",
            {"detail": {"type": "array", "items": {"$ref": _REF + "ValidationError"}}},
        ),
        "ValidationError": {
            "title": "ValidationError",
            "required": ["loc", "msg", "type"],
            "type": "object",
            "properties": {
                "loc": {
                    "title": "Location",
                    "type": "array",
                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                },
                "msg": {"title": "Message", "type": "string"},
                "type": {"title": "Error Type", "type": "string"},
            },
        },
    }


def _object(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    titled = {
        name: kind if "$ref" in kind else {"title": _title(name), **kind}
        for name, kind in properties.items()
    }
    return {"title": title, "type": "object", "properties": titled}


def _paths() -> dict[str, Any]:
    identifier = {
        "required": True,
        "schema": {"title": "Prediction Id", "type": "string"},
        "name": "prediction_id",
        "in": "path",
    }
    invalid = {"422": _answer("Validation Error", {"$ref": _REF + "HTTPValidationError"})}
    succeeded = {"200": _answer("Successful Response", {})}
    request = {"application/json": {"schema": {"$ref": _REF + "PredictionRequest"}}}
    predicted = _answer("Successful Response", {"$ref": _REF + "PredictionResponse"})
    return {
        "/": {
            "get": {"summary": "Root", "operationId": "root__get", "responses": succeeded},
        },
        "/health-check": {
            "get": {
                "summary": "Healthcheck",
                "operationId": "healthcheck_health_check_get",
                "responses": succeeded,
            }
        },
        "/predictions": {
            "post": {
                "summary": "Predict",
                "description": "Run a single prediction on the model",
                "operationId": "predict_predictions_post",
                "requestBody": {"content": request},
                "responses": {"200": predicted, **invalid},
            }
        },
        "/predictions/{prediction_id}/cancel": {
            "post": {
                "summary": "Cancel",
                "operationId": "cancel_predictions__prediction_id__cancel_post",
                "parameters": [identifier],
                "responses": {**succeeded, **invalid},
            }
        },
    }


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


if __name__ == "__main__":
    SCHEMA_FILE.parent.mkdir(exist_ok=True)
    SCHEMA_FILE.write_text(render(openapi_document(PREDICT_FILE.read_text())))
    print(f"wrote {SCHEMA_FILE.relative_to(ROOT)}")
