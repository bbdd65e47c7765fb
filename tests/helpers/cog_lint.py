"""What may stand in `predict.py`: a stand-in for `cog build`, which reads that file as text.

Cog's builder parses the file and never imports it. What it does not understand it drops without a
word: a default that is no literal makes the input required, a bound that is a name disappears, a
description in two pieces is garbled. `problems` refuses each of these, and what the server or
another version of Cog refuses later.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from helpers.cog_schema import JSON_TYPES, OPTIONAL_TYPES, parameters

FROM_COG = ("BaseModel", "BasePredictor", "Input", "Path")
TAKEN_NAMES = (
    "Input",
    "Output",
    "Status",
    "PredictionRequest",
    "PredictionResponse",
    "HTTPValidationError",
    "ValidationError",
)
_KEYWORDS = ("description", "default", "ge", "le", "choices")
_PYTHON_TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool}


def problems(source: str) -> list[str]:
    """One sentence per construct that Cog would refuse or misread; empty when all is well."""
    tree = ast.parse(source)
    return [*_import_problems(tree), *_predictor_problems(tree, source)]


def _import_problems(tree: ast.Module) -> Iterator[str]:
    origin = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(name.name == "cog" for name in node.names):
            yield "import the names from cog, not cog itself"
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                if name.asname and node.module == "cog":
                    yield f"{name.name} of cog must keep its name"
                origin[name.asname or name.name] = node.module
    for name in FROM_COG:
        if origin.get(name) != "cog":
            yield f"{name} must be imported from cog"


def _predictor_problems(tree: ast.Module, source: str) -> Iterator[str]:
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    predictors = [node for node in classes.values() if _bases(node) == ["BasePredictor"]]
    if len(predictors) != 1:
        yield "one class whose only base is BasePredictor is expected"
        return
    methods = {node.name: node for node in predictors[0].body if isinstance(node, ast.FunctionDef)}
    if "run" in methods:
        yield "run beside predict makes the server fail its setup"
    if "predict" not in methods:
        yield "a method predict, not asynchronous, is expected"
        return
    yield from _signature_problems(methods["predict"])
    yield from _output_problems(methods["predict"].returns, classes)
    for argument, default in parameters(methods["predict"]):
        for problem in _parameter_problems(argument, default, source):
            yield f"{argument.arg}: {problem}"


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def _signature_problems(method: ast.FunctionDef) -> Iterator[str]:
    arguments = method.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        yield "predict takes plain parameters only: no *, / or **"
    if not arguments.args or arguments.args[0].arg != "self":
        yield "the first parameter of predict must be self"


def _output_problems(returns: ast.expr | None, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    model = classes.get(returns.id) if isinstance(returns, ast.Name) else None
    if model is None:
        yield "predict must return a class of this file"
        return
    if _bases(model) != ["BaseModel"]:
        yield f"the only base of {model.name} must be BaseModel"
    for field in model.body:
        if not isinstance(field, ast.AnnAssign):
            continue
        name, annotation = ast.unparse(field.target), ast.unparse(field.annotation)
        kind = annotation.removeprefix("Optional[").removesuffix("]")
        if kind not in JSON_TYPES:
            yield f"{model.name}.{name}: {annotation} is no type that Cog knows"
        if kind != annotation and (field.value is None or ast.unparse(field.value) != "None"):
            yield f"{model.name}.{name}: an Optional field must default to None"


def _parameter_problems(argument: ast.arg, default: ast.expr | None, source: str) -> Iterator[str]:
    if argument.arg in TAKEN_NAMES:
        yield "Cog's schema has something else of this name"
    kind = ast.unparse(argument.annotation) if argument.annotation else "no annotation"
    if kind not in JSON_TYPES | OPTIONAL_TYPES:
        yield f"the type must be one of {', '.join(JSON_TYPES | OPTIONAL_TYPES)}, got {kind}"
        return
    if not (isinstance(default, ast.Call) and ast.unparse(default.func) == "Input"):
        yield "the default must be a call of Input"
        return
    if default.args or any(keyword.arg is None for keyword in default.keywords):
        yield "Input takes keywords only, each written out"
        return
    literal, checked = True, default.keywords
    if kind in OPTIONAL_TYPES:
        checked = [word for word in default.keywords if ast.unparse(word) != "default=None"]
        if len(checked) == len(default.keywords):
            yield "an Optional input must have default=None"
    for keyword in checked:
        for problem in _keyword_problems(keyword, source):
            literal = False
            yield f"{keyword.arg}: {problem}"
    if literal:
        keywords = {word.arg: ast.literal_eval(word.value) for word in checked}
        yield from _value_problems(kind, keywords)


def _keyword_problems(keyword: ast.keyword, source: str) -> Iterator[str]:
    """A value must be a literal as the builder reads it: plain, on one line, no brackets."""
    if keyword.arg not in _KEYWORDS:
        yield f"not known to every version of Cog; use {', '.join(_KEYWORDS)}"
        return
    value = keyword.value
    if keyword.arg == "choices":
        if not isinstance(value, ast.List):
            yield "must be a list written out here"
            return
        items = value.elts
    else:
        items = [value]
        written = ast.get_source_segment(source, keyword)
        if written != f"{keyword.arg}={ast.get_source_segment(source, value)}":
            yield "must stand without brackets, right after the equals sign"
    for item in items:
        yield from _literal_problems(item, source)


def _literal_problems(node: ast.expr, source: str) -> Iterator[str]:
    written = ast.get_source_segment(source, node)
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    constant = node.operand if negative else node
    if not isinstance(constant, ast.Constant) or constant.value is None:
        yield f"{written} is not a literal"
    elif isinstance(constant.value, str) and written not in (
        f'"{constant.value}"',
        f"'{constant.value}'",
    ):
        yield "text must be one plain string on one line, without escapes"


def _value_problems(kind: str, keywords: dict) -> Iterator[str]:
    """What the SDK refuses although the builder takes it: contradictions between the keywords."""
    if not isinstance(keywords.get("description"), str) or not keywords["description"].strip():
        yield "a description is expected"
    bounds = [keywords[bound] for bound in ("ge", "le") if bound in keywords]
    choices, has_default = keywords.get("choices"), "default" in keywords
    if not all(_is_of(bound, "float") for bound in bounds):
        yield "bounds must be numbers"
        return
    if bounds and kind not in ("int", "float"):
        yield f"{kind} takes no bounds"
        return
    if len(bounds) == 2 and bounds[0] > bounds[1]:
        yield "ge is above le"
    if choices is not None:
        if kind not in ("int", "str") or bounds:
            yield "choices are for str and int, without bounds"
        if len(choices) < 2 or len(set(choices)) < len(choices):
            yield "two or more different choices are expected"
        if not all(_is_of(choice, kind) for choice in choices):
            yield f"every choice must be of type {kind}"
    if not has_default:
        return
    default = keywords["default"]
    if not _is_of(default, kind):
        yield f"the default must be of type {kind}"
    elif choices is not None and default not in choices:
        yield "the default is none of the choices"
    elif not keywords.get("ge", default) <= default <= keywords.get("le", default):
        yield "the default is out of bounds"


def _is_of(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return kind in _PYTHON_TYPES and isinstance(value, _PYTHON_TYPES[kind])
