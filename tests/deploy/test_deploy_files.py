"""Compose file, manifests, configuration and tables say what is true elsewhere in the project."""

from __future__ import annotations

import ast
import re

import pytest

yaml = pytest.importorskip("yaml")

from helpers.cog_schema import ROOT  # noqa: E402
from helpers.deploy_tables import (  # noqa: E402
    DOCUMENT,
    SPACE_REQUIREMENTS,
    fill_in,
    licence_table,
    space_requirements,
)

from onelook.options import parse_options  # noqa: E402
from onelook.weights.manifest import manifest  # noqa: E402

REFRESH = "run: python tests/helpers/deploy_tables.py"


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_tables_are_those_of_the_manifest_and_of_the_backends():
    text = DOCUMENT.read_text("utf-8")
    assert text == fill_in(text), REFRESH


def test_no_checkpoint_is_missing_and_none_is_called_free_that_is_not():
    rows = [[cell.strip() for cell in line.split("|")] for line in licence_table().splitlines()[2:]]
    shown = {row[1].strip("`"): (row[2], row[3], row[4]) for row in rows}
    assert set(shown) == set(manifest().checkpoints)
    for name, (repository, licence, terms) in shown.items():
        entry = manifest().checkpoints[name]
        assert (repository, licence) == (entry.repository, entry.licence)
        assert (terms == "allowed") == (entry.commercial_use == "yes"), name
        assert ("not allowed" in terms) == (entry.commercial_use == "no"), name


def test_a_space_installs_what_the_project_needs():
    assert SPACE_REQUIREMENTS.read_text("utf-8") == space_requirements(), REFRESH


def test_the_header_of_the_space_names_the_door():
    _, header, _ = (ROOT / "docs" / "space" / "README.md").read_text("utf-8").split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["sdk"] == "gradio" and fields["app_file"] == "demo.py"
    assert (ROOT / fields["app_file"]).is_file()
    assert fields["sdk_version"].startswith("6.")
    assert len(fields["short_description"]) <= 60  # the Hub refuses more


def test_compose_reserves_a_gpu_and_publishes_to_this_machine_only():
    service = read("compose.yaml")["services"]["onelook"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    assert service["shm_size"] == "2gb" and service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["ports"][0].endswith(":5000")
    cache = next(one for one in read("cog.yaml")["environment"] if "WARP_CACHE_PATH" in one)
    assert f"kernels:{cache.split('=')[1]}" in service["volumes"]


def test_kubernetes_asks_for_one_gpu_and_stays_inside_the_cluster():
    text = (ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8")
    deployment, service, claim = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_cog_safe_push_asks_for_inputs_that_exist():
    config = read("cog-safe-push.yaml")
    assert set(config) == {"model", "test_model", "test_hardware", "predict"}
    cases = config["predict"]["test_cases"]
    asked = [case["inputs"] for case in cases] + [config["predict"]["fuzz"]["fixed_inputs"]]
    for inputs in asked:
        assert inputs["image"].startswith("https://")
        parse_options({name: value for name, value in inputs.items() if name != "image"})
    predict = next(
        node
        for node in ast.walk(ast.parse((ROOT / "predict.py").read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "predict"
    )
    known = {argument.arg for argument in predict.args.args}
    assert set(config["predict"]["fuzz"]["disabled_inputs"]) <= known


@pytest.mark.parametrize("name", ["deploy.md", "embedding.md"])
def test_what_a_document_links_to_is_there(name):
    text = (ROOT / "docs" / name).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"`((?:docs|deploy|examples|clients|onelook)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
