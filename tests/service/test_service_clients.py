"""Each client of `clients/`, run against the real service as its reader would run it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from types import ModuleType

import pytest
from helpers.cog_server import CogServer
from helpers.pictures import mushroom_png
from helpers.rest_server import CUT_OUT_ONLY, LARGE, ROOT, SMALL

CLIENTS = ROOT / "clients"
WORDS = [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


@pytest.fixture(scope="module")
def python_client() -> ModuleType:
    file = CLIENTS / "python" / "onelook_client.py"
    spec = importlib.util.spec_from_file_location("onelook_client", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["onelook_client"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "a picture.png"
    file.write_bytes(mushroom_png())
    return file


def run(*command: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_python_makes_an_asset_and_fetches_it(python_client, service, picture, tmp_path):
    client = python_client.OnelookClient(service.url)
    assert client.health()["status"] == "healthy"
    asset = client.image_to_3d(picture, **SMALL, return_preview=True)
    model = client.download_file(asset["model_url"], tmp_path / "mushroom.glb")
    assert model.read_bytes()[:4] == b"glTF"
    files = client.download_all(asset, tmp_path / "all")
    assert sorted(file.name for file in files) == ["output.glb", "preview.png"]
    client.delete(asset["job_id"])
    with pytest.raises(python_client.OnelookError) as error:
        client.download_file(asset["model_url"], tmp_path / "gone.glb")
    assert error.value.code == 404 and not list(tmp_path.glob("gone*"))


def test_python_follows_a_job(python_client, service, picture):
    client, seen = python_client.OnelookClient(service.url), []
    asset = client.image_to_3d(
        picture, on_progress=lambda percent, stage: seen.append((percent, stage)), **SMALL
    )
    assert asset["status"] == "succeeded" and asset["model_url"].endswith("output.glb")
    assert seen[-1] == (100, "succeeded") and len(seen) > 3
    job = client.start(picture, idempotency_key="python", **LARGE)
    assert client.start(picture, idempotency_key="python", **LARGE)["job_id"] == job["job_id"]
    client.cancel(job["job_id"])
    with pytest.raises(python_client.OnelookError, match="canceled"):
        client.wait(job["job_id"], poll_seconds=0.05)


def test_python_says_what_the_service_says(python_client, service, strict_service):
    client = python_client.OnelookClient(service.url)
    with pytest.raises(python_client.OnelookError, match="did you mean 'texture_size'") as error:
        client.image_to_3d(mushroom_png(), texture_sise=5)
    assert error.value.code == 422 and error.value.id
    with pytest.raises(python_client.OnelookError, match="API key is needed"):
        python_client.OnelookClient(strict_service.url).job("x")
    client = python_client.OnelookClient(strict_service.url, api_key="third-key")
    assert client.image_to_3d(mushroom_png(), **CUT_OUT_ONLY)["no_background_image_url"]


def test_shell_makes_an_asset(service, strict_service, picture, tmp_path):
    script, folder = CLIENTS / "shell" / "onelook.sh", tmp_path / "out"
    words = [*WORDS, "return_preview=true"]
    done = run("sh", script, picture, folder, *words, ONELOOK_URL=service.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{folder}/output.glb", f"{folder}/preview.png"]
    assert (folder / "output.glb").read_bytes()[:4] == b"glTF"
    done = run("sh", script, script, folder, ONELOOK_URL=service.url)
    assert done.returncode == 1
    assert done.stderr.startswith("422 The file is not a picture of a known format")
    words = ["generate_model=false", "generate_video=false", "return_no_background=true"]
    done = run("sh", script, picture, folder, *words, ONELOOK_URL=strict_service.url)
    assert done.returncode == 1 and done.stderr.startswith("401 An API key is needed")
    done = run(
        "sh", script, picture, folder, *words,
        ONELOOK_URL=strict_service.url, ONELOOK_API_KEY="second-key",
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split() == [f"{folder}/no_background.png"]


@needs_node
def test_javascript_makes_an_asset(service, picture, tmp_path):
    script, folder = CLIENTS / "javascript" / "example.mjs", tmp_path / "out"
    done = run("node", script, service.url, picture, folder, *WORDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{folder}/output.glb"]
    assert (folder / "output.glb").read_bytes()[:4] == b"glTF"
    assert done.stderr.splitlines()[-1] == "100 % succeeded"
    done = run("node", script, service.url, picture, folder, "texture_size=5")
    assert done.returncode == 1 and done.stderr.startswith("422 texture_size must be")


@needs_node
def test_replicates_client_talks_to_our_cog_server(picture, tmp_path):
    """Replicate's own library against the container's server, as its users run models."""
    modules = ROOT / "node_modules"
    if not (modules / "replicate").is_dir():
        pytest.skip("needs npm install")
    folder = tmp_path / "out"
    script = CLIENTS / "javascript" / "replicate_example.mjs"
    with CogServer(tmp_path / "cog") as server:
        done = run(
            "node", script, "onelook/onelook:local", picture, folder, *WORDS,
            REPLICATE_BASE_URL=f"http://127.0.0.1:{server.port}",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{folder}/model_file.glb"]
    assert (folder / "model_file.glb").read_bytes()[:4] == b"glTF"
