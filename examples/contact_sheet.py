"""Draw the README's contact sheet: per example the picture, the cut-out and eight views.

python examples/contact_sheet.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from onelook.asset.load import load_glb
from onelook.engine import Engine
from onelook.options import Options
from onelook.render.turntable import contact_sheet

ROOT = Path(__file__).parent.parent
SHEET = ROOT / "docs" / "images" / "contact_sheet.webp"
CELL = 160  # pixels
PAPER = 244  # grey behind the pictures


def main() -> int:
    engine = Engine()
    options = Options(
        model="relief", texture_size=2048, generate_video=False, return_no_background=True
    )
    rows = []
    for picture in sorted(p for p in (ROOT / "examples").iterdir() if p.suffix in (".png", ".jpg")):
        with tempfile.TemporaryDirectory() as folder:
            files = engine.generate(picture, options, Path(folder)).files
            views = contact_sheet(load_glb(files["model_file"]), CELL)[..., :3]
            cut_out = _fit(Image.open(files["no_background_image"]))
        two_lines = np.concatenate([views[:CELL], views[CELL:]], axis=1)  # eight views in a row
        rows.append(np.concatenate([_fit(Image.open(picture)), cut_out, two_lines], axis=1))
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(SHEET, "WEBP", quality=85, method=6)
    print(f"{SHEET.relative_to(ROOT)}: {SHEET.stat().st_size / 1000:.0f} kB")
    return 0


def _fit(picture: Image.Image) -> np.ndarray:
    """The whole picture in a cell, on paper: (CELL, CELL, 3) uint8."""
    picture = picture.convert("RGBA")
    picture.thumbnail((CELL - 8, CELL - 8), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", (CELL, CELL), (PAPER, PAPER, PAPER, 255))
    corner = ((CELL - picture.width) // 2, (CELL - picture.height) // 2)
    paper.alpha_composite(picture, corner)
    return np.asarray(paper.convert("RGB"))


if __name__ == "__main__":
    sys.exit(main())
