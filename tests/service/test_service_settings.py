"""The operator's settings: from the environment, from the command line, and as errors."""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import os
import signal
import subprocess
import sys

import pytest
from helpers.rest_server import ROOT, RestServer, free_port

from onelook.errors import OptionError
from onelook.service.command import add_arguments
from onelook.service.settings import Settings, read_settings, settings_table, variable_of

SERVE = """
import argparse, sys
from onelook.service.command import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


def test_it_listens_to_this_machine_only_unless_told_otherwise():
    settings = read_settings({})
    assert settings == Settings()
    assert (settings.host, settings.queue, settings.url_inputs) == ("127.0.0.1", 8, False)
    assert settings.all_api_keys() == () and settings.cors_origins == ()


def test_every_setting_can_be_given_both_ways_and_the_flag_wins():
    values = {bool: "true", int: "7", float: "7.5", str: "cpu", tuple: "a, b"}
    for setting in dataclasses.fields(Settings):
        text = values[type(setting.default)]
        if setting.name == "weights":
            continue
        environment = {variable_of(setting): text}
        expected = {"true": True, "7": 7, "7.5": 7.5, "a, b": ("a", "b")}.get(text, text)
        assert getattr(read_settings(environment), setting.name) == expected
        if setting.metadata["flag"]:
            parser = argparse.ArgumentParser()
            add_arguments(parser)
            word = [f"--{setting.name}"] + ([] if text == "true" else [text])
            flags = vars(parser.parse_args(word))
            wrong = {variable_of(setting): "1"}
            assert getattr(read_settings(wrong, flags), setting.name) == expected


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("ONELOOK_SERVE_QUEUE", "many", "ONELOOK_SERVE_QUEUE must be a whole number of at least 0"),
        ("ONELOOK_SERVE_TTL", "0", "ONELOOK_SERVE_TTL must be a number of at least 1"),
        ("ONELOOK_SERVE_TTL", "nan", "ONELOOK_SERVE_TTL must be a number"),
        ("ONELOOK_SERVE_QUOTA_GB", "inf", "ONELOOK_SERVE_QUOTA_GB must be a number"),
        ("ONELOOK_SERVE_URL_INPUTS", "perhaps", "must be true or false, got 'perhaps'"),
        ("ONELOOK_SERVE_WEIGHTS", "somebody/model", "name the model, too"),
    ],
)
def test_a_wrong_setting_is_named(variable, value, sentence):
    with pytest.raises(OptionError, match=sentence):
        read_settings({variable: value})


def test_a_file_of_keys_that_is_none_is_an_error(tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    for name in ("missing", "empty"):
        with pytest.raises(OptionError, match="api_keys_file"):
            read_settings({}, {"api_keys_file": tmp_path / name}).all_api_keys()


def test_the_command_serves_and_a_device_that_is_not_there_is_told(tmp_path):
    command = [sys.executable, "-c", SERVE, "--device", "cuda:77", "--port"]
    server = RestServer(tmp_path, command=command)
    try:
        server.wait_until("unhealthy")
        health = server.health()
        assert not health["model_loaded"]
        assert health["message"].startswith("device cuda:77 is not on this machine")
        assert server.request("GET", "/ready").code == 503
        answer = server.create(b"x")
        assert (answer.code, answer.headers["retry-after"]) == (503, "5")
        assert answer.body["detail"].startswith("The model cannot be loaded")
    finally:
        assert server.stop() == 0
    assert list(server.storage.iterdir()) == []


def test_the_command_ends_at_ctrl_c(tmp_path):
    port = free_port()
    environment = {**os.environ, "ONELOOK_SERVE_STORAGE": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "--port", str(port)], cwd=ROOT, env=environment,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while "Uvicorn running" not in process.stderr.readline():
        pass
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/health")
    assert b'"loading"' in connection.getresponse().read()
    process.send_signal(signal.SIGINT)
    assert process.wait(15) in (0, 130, -signal.SIGINT)
    assert "Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_every_setting_as_it_is():
    page = (ROOT / "docs" / "service.md").read_text()
    assert settings_table() in page, "renew it with: python -m onelook.service.settings"


def test_storage_that_cannot_be_written_ends_the_start_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    server = RestServer(tmp_path, {"storage": tmp_path / "file" / "below"})
    assert server.process.wait(30) not in (0, None)
    (line,) = (line for line in server.log_lines if line["event"] == "cannot start")
    assert line["reason"] == "the folder for the jobs' files cannot be written"
    assert str(tmp_path) not in server.log
