"""The GPU benchmark runs from end to end, here with tiny networks on a CPU."""

import gpu
import pytest


@pytest.mark.parametrize("name", gpu.NAMES)
def test_a_backend_is_measured(name, capsys, monkeypatch):
    monkeypatch.setattr(gpu.os, "environ", gpu.os.environ.copy())
    monkeypatch.setattr(gpu.sys, "path", gpu.sys.path.copy())
    assert gpu.main(["--backend", name, "--device", "cpu", "--tiny", "--runs", "0"]) == 0
    rows = dict(
        (cells[1].strip(), float(cells[2].split()[0]))
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.split("|")) == 6 and cells[2].strip()[:1].isdigit()
    )
    surface, files = (rows[f"full residency: picture to {end}"] for end in ("Surface", "files"))
    assert 0 < surface < files
    assert rows["full residency: bake"] > 0
