"""The made-up checkpoints are, but for their numbers, what the official files are."""

import pytest
from made_checkpoints import GOLDEN, header, read_key_list

PUBLISHED = [
    pytest.param(wanted, id=f"{system}/{path.stem}")
    for system in ("trellis", "trellis2")
    for path in sorted((GOLDEN / system / "manifest").glob("*_*.json"))
    if (wanted := read_key_list(system, path.stem)).published_bytes
]


def test_every_published_length_is_there():
    assert len(PUBLISHED) == 8 + 8


@pytest.mark.parametrize("wanted", PUBLISHED)
def test_files_are_as_long_as_the_published_ones(wanted):
    head, size = header(wanted.tensors, wanted.types)
    assert len(head) + size == wanted.published_bytes


def test_a_file_begins_as_safetensors_writes_it(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    wanted = read_key_list("trellis", "slat_dec_mesh_swin8_B_64l8m256c_fp16")
    shapes = {key: [1 + size % 7 for size in shape] for key, shape in wanted.tensors.items()}
    kinds = {"F16": torch.float16, "F32": torch.float32}
    tensors = {key: torch.zeros(shapes[key], dtype=kinds[wanted.types[key]]) for key in shapes}
    save_file(tensors, tmp_path / "small.safetensors")
    head, size = header(shapes, wanted.types)
    content = (tmp_path / "small.safetensors").read_bytes()
    assert content[: len(head)] == head
    assert len(content) == len(head) + size
