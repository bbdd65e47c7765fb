"""The OpenAPI page at /docs, from files of this machine: Swagger UI as fastapi-offline ships it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse

_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_SCRIPT = """
SwaggerUIBundle({
  url: document.body.dataset.schema,
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>onelook: REST service</title>
<link rel="stylesheet" href="{root}/docs/swagger-ui.css">
<link rel="icon" href="{root}/docs/favicon.png">
</head>
<body data-schema="{root}/openapi.json">
<div id="page"></div>
<script src="{root}/docs/swagger-ui-bundle.js"></script>
<script src="{root}/docs/start.js"></script>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page(request: Request) -> HTMLResponse:
    policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"
    root = request.scope.get("root_path", "")
    return HTMLResponse(_PAGE.format(root=root), headers={"Content-Security-Policy": policy})


@router.get("/docs/start.js")
async def start() -> HTMLResponse:
    return HTMLResponse(_SCRIPT, media_type="text/javascript")


def _add(name: str, kind: str) -> None:
    async def file() -> FileResponse:
        return FileResponse(_folder() / name, media_type=kind)

    router.add_api_route(f"/docs/{name}", file, response_class=FileResponse)


def _folder() -> Path:
    """Of the package's files; the package itself is not imported."""
    (place,) = importlib.util.find_spec("fastapi_offline").submodule_search_locations
    return Path(place) / "static"


for _name, _kind in _FILES.items():
    _add(_name, _kind)
