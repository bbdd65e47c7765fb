"""Pulling through the hub's real client, from a server of our own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from onelook.errors import WeightsError
from onelook.weights.locate import (
    available_models,
    checkpoint_folder,
    hub_snapshot,
    missing_weights,
)
from onelook.weights.lock import read_lock
from onelook.weights.pull import pull
from onelook.weights.verify import verify

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.usefixtures("no_token")

DINO, DINO_NAME = "facebook/dinov2-with-registers-large", "dinov2-with-registers-large"
GATED, GATED_NAME = "facebook/dinov3-vitl16-pretrain-lvd1689m", "dinov3-vitl16"
WEIGHTS = bytes(range(256)) * 20_000  # 5.1 MB: several chunks
CONFIG = b'{"hidden_size": 8}'


@pytest.fixture
def dino(hub):
    hub.add(DINO, {"config.json": CONFIG, "model.safetensors": WEIGHTS, "README.md": b"hello"})
    return hub


def quiet_pull(*names, **options):
    return pull(names, quiet=True, **options)


def partials(folder):
    return sorted(path.name for path in folder.rglob("*.partial"))


def test_pull_brings_the_listed_files_and_locks_commit_size_and_sum(dino, home):
    assert missing_weights([DINO_NAME]) == [DINO_NAME]
    [pulled] = quiet_pull(DINO_NAME)
    assert pulled.fetched_bytes == len(WEIGHTS) + len(CONFIG)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS
    assert not (home / DINO / "README.md").exists()  # only what is needed
    assert missing_weights([DINO_NAME]) == []
    assert checkpoint_folder(DINO_NAME) == home / DINO == pulled.folder
    entry = read_lock(home)[DINO]
    assert entry.revision == dino.commit
    assert {path: (one.bytes, one.sha256) for path, one in entry.files.items()} == {
        "config.json": (len(CONFIG), hashlib.sha256(CONFIG).hexdigest()),
        "model.safetensors": (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()),
    }
    assert partials(home) == []
    assert [one.problem for one in verify()] == [None, None]


def test_a_second_pull_asks_the_network_nothing(dino):
    quiet_pull(DINO_NAME)
    dino.requests.clear()
    [pulled] = quiet_pull(DINO_NAME)
    assert pulled.fetched_bytes == 0 and dino.requests == []


def test_the_same_lock_brings_the_same_bytes_after_the_repository_moved_on(dino, home, tmp_path):
    quiet_pull(DINO_NAME)
    lock_text = (home / "lock.json").read_bytes()
    shutil.rmtree(home)
    home.mkdir()
    (home / "lock.json").write_bytes(lock_text)
    dino.requests.clear()
    quiet_pull(DINO_NAME)
    assert all(f"/resolve/{dino.commit}/" in url for _, url, _ in dino.requests)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS
    assert (home / "lock.json").read_bytes() == lock_text


def test_update_follows_the_repository_and_locks_its_new_commit(dino, home):
    quiet_pull(DINO_NAME)
    dino.commit = "b" * 40
    dino.add(DINO, {"model.safetensors": WEIGHTS[::-1]})
    quiet_pull(DINO_NAME)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS
    quiet_pull(DINO_NAME, update=True)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS[::-1]
    assert read_lock(home)[DINO].revision == "b" * 40
    assert not any(one.problem for one in verify())


def test_a_connection_cut_in_the_middle_goes_on_where_it_stopped(dino, home):
    dino.cut("model.safetensors", 3_000_000)
    quiet_pull(DINO_NAME)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS
    first, second = dino.fetched("model.safetensors")
    assert first is None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 1_000_000


def test_a_pull_that_was_broken_off_is_taken_up_by_the_next(dino, home):
    dino.cut("model.safetensors", 2_500_000, 0, 0, 0)  # then more failures than there are tries
    with pytest.raises(WeightsError, match="goes on where it stopped"):
        quiet_pull(DINO_NAME)
    assert missing_weights([DINO_NAME]) == [DINO_NAME]
    assert not (home / DINO / "model.safetensors").exists()
    assert len(partials(home)) == 1
    assert read_lock(home) == {}
    dino.requests.clear()
    quiet_pull(DINO_NAME)
    [resumed] = dino.fetched("model.safetensors")
    assert int(resumed.removeprefix("bytes=").rstrip("-")) > 1_000_000
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS
    assert partials(home) == []


def test_a_server_without_ranges_sends_the_file_again_from_the_start(dino, home):
    dino.ignores_ranges = True
    dino.cut("model.safetensors", 3_000_000)
    quiet_pull(DINO_NAME)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS


def test_a_partial_file_that_went_bad_is_thrown_away_and_fetched_anew(dino, home):
    dino.cut("model.safetensors", 2_500_000, 0, 0, 0)
    with pytest.raises(WeightsError):
        quiet_pull(DINO_NAME)
    [partial] = home.rglob("*.partial")
    partial.write_bytes(bytes(partial.stat().st_size))
    quiet_pull(DINO_NAME)
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])  # SHA-256, git's SHA-1
def test_a_wrong_sum_is_refused_and_nothing_is_kept(dino, home, path):
    dino.damaged.add(path)
    with pytest.raises(WeightsError, match=f"{path} of {DINO} arrived damaged"):
        quiet_pull(DINO_NAME)
    assert not (home / DINO / path).exists()
    assert not list(home.rglob(f"{path}*.partial"))
    assert missing_weights([DINO_NAME]) == [DINO_NAME]
    dino.damaged.clear()
    quiet_pull(DINO_NAME)
    assert missing_weights([DINO_NAME]) == []


def test_a_gated_model_names_its_page_and_opens_with_a_token(hub, home, monkeypatch):
    hub.add(GATED, {"config.json": CONFIG, "model.safetensors": WEIGHTS})
    hub.gated.add(GATED)
    with pytest.raises(WeightsError, match=f"accept its licence at {hub.url}/{GATED} "):
        quiet_pull(GATED_NAME)
    assert missing_weights([GATED_NAME]) == [GATED_NAME]
    monkeypatch.setenv("HF_TOKEN", hub.token)
    quiet_pull(GATED_NAME)
    assert missing_weights([GATED_NAME]) == []


def test_a_gated_model_with_a_free_replacement_names_it(hub):
    hub.add("briaai/RMBG-2.0", {"config.json": CONFIG, "model.safetensors": WEIGHTS})
    hub.gated.add("briaai/RMBG-2.0")
    with pytest.raises(WeightsError, match=r"free instead of it \(MIT\): birefnet-general-lite"):
        quiet_pull("rmbg-2.0")


def test_a_repository_that_is_not_there_names_the_page_to_look_at(hub):
    with pytest.raises(WeightsError, match=f"may not read it; see {hub.url}/{DINO} "):
        quiet_pull(DINO_NAME)


def test_a_repository_without_the_file_is_another_kind(hub):
    hub.add(DINO, {"config.json": CONFIG})
    with pytest.raises(WeightsError, match=r"has no model.safetensors, which dinov2.* needs"):
        quiet_pull(DINO_NAME)


def test_a_commit_that_vanished_says_how_to_go_on(dino, home):
    quiet_pull(DINO_NAME)
    (home / DINO / "config.json").unlink()
    dino.commit = "b" * 40
    with pytest.raises(WeightsError, match="pull with --update"):
        quiet_pull(DINO_NAME)


def test_no_network_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="no connection while fetching .*check the network"):
        quiet_pull(DINO_NAME)


def test_a_disk_too_small_is_noticed_before_anything_is_fetched(dino, home, monkeypatch):
    monkeypatch.setattr("onelook.weights.files.free_bytes", lambda folder: 1_000_000)
    with pytest.raises(WeightsError, match=r"0.01 GB are still to be fetched .* has 0.00 GB free"):
        quiet_pull(DINO_NAME)
    assert dino.fetched("model.safetensors") == []


def test_a_weights_folder_that_cannot_be_written(dino, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "file" / "weights"))
    with pytest.raises(WeightsError, match="choose another with ONELOOK_WEIGHTS") as raised:
        quiet_pull(DINO_NAME)
    assert str(tmp_path) not in str(raised.value)


def test_a_file_damaged_on_disk_is_found_by_verify_and_mended_by_pull(dino, home):
    quiet_pull(DINO_NAME)
    file = home / DINO / "model.safetensors"
    file.write_bytes(WEIGHTS[:-1] + b"?")
    assert missing_weights([DINO_NAME]) == []  # the size is right, and only verify reads it
    problems = {one.path: one.problem for one in verify([DINO_NAME])}
    assert problems == {"config.json": None, "model.safetensors": "damaged: another SHA-256"}
    quiet_pull(DINO_NAME)
    assert file.read_bytes() == WEIGHTS


def test_a_truncated_file_counts_as_missing(dino, home):
    quiet_pull(DINO_NAME)
    os.truncate(home / DINO / "model.safetensors", 1000)
    assert missing_weights([DINO_NAME]) == [DINO_NAME]
    with pytest.raises(WeightsError, match="incomplete .*1000 bytes instead of 5120000"):
        checkpoint_folder(DINO_NAME)


def test_a_model_in_the_cache_of_the_hub_is_used_in_place(dino, home):
    snapshot = fill_cache(DINO, dino)
    [pulled] = quiet_pull(DINO_NAME)
    assert pulled.folder == snapshot == checkpoint_folder(DINO_NAME)
    assert pulled.fetched_bytes == 0 and dino.fetched("model.safetensors") == []
    assert not (home / DINO).exists()
    assert not any(one.problem for one in verify())


def test_a_damaged_file_in_the_cache_is_not_used(dino, home):
    snapshot = fill_cache(DINO, dino)
    (snapshot / "model.safetensors").write_bytes(WEIGHTS[::-1])
    [pulled] = quiet_pull(DINO_NAME)
    assert pulled.folder == home / DINO
    assert (home / DINO / "model.safetensors").read_bytes() == WEIGHTS


def fill_cache(repository, hub):
    """Put a repository into the hub's cache, as the client's own download does."""
    from huggingface_hub import hf_hub_download

    cache = os.path.join(os.environ["HF_HOME"], "hub")
    for path in hub.repositories[repository]:
        hf_hub_download(repository, path, cache_dir=cache, endpoint=hub.url)
    hub.requests.clear()
    folder = hub_snapshot(repository, "main")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    return folder


def test_another_repository_in_the_same_layout_by_its_own_pipeline_file(hub, home):
    models = {"flow": "ckpts/tiny", "decoder": "microsoft/TRELLIS-image-large/ckpts/decoder"}
    pipeline = {"name": "AnyPipeline", "args": {"models": models}}
    files = {"ckpts/tiny.json": b"{}", "ckpts/tiny.safetensors": WEIGHTS, "ckpts/x.json": b"{}"}
    hub.add("someone/tiny", {"pipeline.json": json.dumps(pipeline).encode(), **files})
    [pulled, _] = quiet_pull_both(hub, "trellis", place="someone/tiny@v1")
    assert pulled.folder == home / "someone/tiny"
    assert not (home / "someone/tiny/ckpts/x.json").exists()
    assert checkpoint_folder("trellis-image-large", "someone/tiny") == pulled.folder
    assert missing_weights(["trellis-image-large"]) == ["trellis-image-large"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONELOOK_TRELLIS_WEIGHTS", "someone/tiny")
        assert missing_weights(["trellis-image-large"]) == []
        assert available_models() == {"trellis"}


def quiet_pull_both(hub, *names, **options):
    hub.add(DINO, {"config.json": CONFIG, "model.safetensors": WEIGHTS})
    return quiet_pull(*names, **options)


def test_a_model_whose_first_checkpoint_the_environment_names_pulls_the_others(
    dino, home, tmp_path, monkeypatch
):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "pipeline.json").write_text('{"name": "P", "args": {"models": {}}}')
    monkeypatch.setenv("ONELOOK_TRELLIS_WEIGHTS", str(folder))
    own, dino_pulled = quiet_pull("trellis")
    assert own.folder == folder and own.fetched_bytes == 0
    assert dino_pulled.folder == home / DINO
    with pytest.raises(WeightsError, match="--weights names no owner/repository: there is nothing"):
        quiet_pull("trellis", place=str(folder))


def test_two_checkpoints_of_one_repository_share_its_files_and_its_commit(hub, home):
    stems = ("ss_dec_conv3d_16l8_fp16", "slat_dec_gs_swin8_B_64l8gs32_fp16")
    stems += ("slat_dec_rf_swin8_B_64l8r16_fp16", "slat_dec_mesh_swin8_B_64l8m256c_fp16")
    repository, files = "microsoft/TRELLIS-image-large", {}
    for stem in stems:
        files |= {f"ckpts/{stem}.json": b"{}", f"ckpts/{stem}.safetensors": stem.encode()}
    hub.add(repository, files)
    small, whole = quiet_pull("trellis-structure-decoder", "trellis-decoders")
    assert small.folder == whole.folder and small.revision == whole.revision == hub.commit
    assert all(len(hub.fetched(path)) == 1 for path in files)
    assert read_lock(home)[repository].files.keys() == files.keys()
    assert "ss_dec_conv3d_16l8_fp16.safetensors has changed: 23 bytes" in small.notes[0]
    assert missing_weights(["trellis-decoders"]) == []  # by the lock's sizes


def test_patterns_and_alternatives_of_a_diffusers_folder(hub, home):
    folders = {"vae": "diffusion_pytorch_model", "vision_encoder": "model", "text_encoder": "model"}
    files = {f"{folder}/config.json": b"{}" for folder in (*folders, "unet")}
    files |= {f"{folder}/{stem}.safetensors": WEIGHTS for folder, stem in folders.items()}
    del files["text_encoder/model.safetensors"]
    files |= {"text_encoder/pytorch_model.bin": b"p", "vae/diffusion_pytorch_model.bin": b"p"}
    files |= {"unet/diffusion_pytorch_model.safetensors": b"not wanted"}
    files |= {"tokenizer/vocab.json": b"{}", "tokenizer/merges.txt": b"a b"}
    files |= {"model_index.json": b"{}", "scheduler/scheduler_config.json": b"{}"}
    files |= {
        f"feature_extractor_{kind}/preprocessor_config.json": b"{}" for kind in ("vae", "clip")
    }
    hub.add("sudo-ai/zero123plus-v1.2", files)
    [pulled] = quiet_pull("zero123plus-v1.2")
    here = {path.relative_to(pulled.folder).as_posix() for path in pulled.folder.rglob("*.*")}
    assert here == files.keys() - {
        "vae/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert missing_weights(["zero123plus-v1.2"]) == []


def test_a_release_file_is_checked_by_its_md5_and_gets_no_token(hub, home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)  # the server fails where it is sent
    hub.add("danielgatis/rembg", {"u2net.onnx": b"not the published model"})
    with pytest.raises(WeightsError, match="MD5 is .*, expected 60024c5c889badc19c04ad937298a77b"):
        quiet_pull("u2net")
    name = "BiRefNet-general-bb_swin_v1_tiny-epoch_232.onnx"
    hub.add("danielgatis/rembg", {name: WEIGHTS})
    hub.cut(name, 3_000_000)
    [pulled] = quiet_pull("birefnet-general-lite")
    assert (pulled.folder / name).read_bytes() == WEIGHTS
    assert missing_weights(["birefnet-general-lite"]) == []
    assert not any(one.problem for one in verify())


def test_a_repository_that_lists_files_outside_itself_is_refused(hub):
    hub.add(DINO, {"../../x.json": b"{}", "config.json": CONFIG, "model.safetensors": WEIGHTS})
    with pytest.raises(WeightsError, match="lists a file outside itself"):
        quiet_pull(DINO_NAME)


def test_two_pulls_at_once_fetch_each_file_once(dino, home):
    threads = [threading.Thread(target=quiet_pull, args=(DINO_NAME,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dino.fetched("model.safetensors")) == 1
    assert missing_weights([DINO_NAME]) == []


@pytest.mark.parametrize(
    "repositories",
    [
        {"a/b": {}},
        {"a/b": {"revision": "a", "files": {"../../x": {"bytes": 1, "sha256": "0"}}}},
        {"../b": {"revision": "a", "files": {}}},
    ],
)
def test_a_damaged_lock_says_what_to_do(home, repositories):
    home.mkdir()
    content = {"version": 1, "repositories": repositories}
    (home / "lock.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="lock.json .* is damaged"):
        missing_weights([DINO_NAME])


def test_the_command_line_pulls_verifies_and_tells_the_place(dino, home):
    """In processes of their own: the client reads `HF_ENDPOINT` when it is imported."""

    def onelook(*words):
        command = [sys.executable, "-m", "onelook.cli", "weights", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    code, out, err = onelook("pull", DINO_NAME)
    assert code == 0 and "licence Apache-2.0; commercial use: yes" in out, err
    assert "complete, fetched 5.1 MB" in out and "100%" in err
    code, out, _ = onelook("verify")
    assert code == 0 and out.count("ok: ") == 2
    assert onelook("path", DINO_NAME)[:2] == (0, f"{home / DINO}\n")
    os.truncate(home / DINO / "config.json", 3)
    code, out, _ = onelook("verify")
    assert code == 1 and "3 bytes instead of 18" in out
    code, _, err = onelook("pull", "dinov4")
    assert code == 1 and "there is no checkpoint called 'dinov4'" in err


def test_listing_is_light_and_shows_what_is_here(dino):
    quiet_pull(DINO_NAME)
    script = (
        "import sys; from onelook.cli import main; code = main(['weights', 'list']);"
        "heavy = {'torch', 'huggingface_hub', 'numpy', 'safetensors'} & set(sys.modules);"
        "sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [row] = [line for line in done.stdout.splitlines() if line.startswith(DINO_NAME)]
    assert row.split()[1:4] == ["yes", "0.01", "GB"]
