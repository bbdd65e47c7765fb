"""Cog's door: typed inputs, one call to the engine, typed outputs.

The numbers stand here as literals because Cog reads this file as text; a test holds them to
`onelook/options.py`.
"""

from typing import Optional

from cog import BaseModel, BasePredictor, Input, Path

from onelook.engine import Engine
from onelook.options import parse_options
from onelook.progress import progress_report
from onelook.scratch import Scratch


class Output(BaseModel):
    no_background_image: Optional[Path] = None
    video: Optional[Path] = None
    model_file: Optional[Path] = None


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Load what can be loaded once, and compile the kernels."""
        self.scratch = Scratch()
        self.engine = Engine()
        self.engine.warm_up()

    def predict(
        self,
        image: Path = Input(
            description="Picture of one object: PNG, JPEG, WebP, BMP, GIF or TIFF, at most 25 MB and 50 megapixels.",
        ),
        model: str = Input(
            description="System that makes the shape. auto takes the best one whose weights are on this machine and that fits its device; relief is an instant preview that needs no weights.",
            default="auto",
            choices=["auto", "relief"],
        ),
        seed: int = Input(
            description="Seed of every random number: same seed, same device, same files. relief has no randomness and ignores it.",
            default=42,
            ge=0,
            le=2147483647,
        ),
        randomize_seed: bool = Input(
            description="Draw a new seed for this run; the seed used is returned in the metrics.",
            default=False,
        ),
        preprocess_image: bool = Input(
            description="Remove the background and crop to the subject. Off: the picture is taken as it is, with its own alpha if it has one.",
            default=True,
        ),
        return_no_background: bool = Input(
            description="Also return the picture with its background removed (PNG).",
            default=False,
        ),
        generate_video: bool = Input(
            description="Also return a turntable video (MP4, 4 s at 30 fps).",
            default=True,
        ),
        generate_model: bool = Input(
            description="Return the textured 3D model (GLB).",
            default=True,
        ),
        pipeline_type: str = Input(
            description="Resolution of the shape. TRELLIS.2 only; relief ignores it.",
            default="1024_cascade",
            choices=["512", "1024", "1024_cascade", "1536_cascade"],
        ),
        sparse_structure_steps: int = Input(
            description="Sampling steps of the sparse structure. TRELLIS and TRELLIS.2 only; relief ignores it.",
            default=12,
            ge=1,
            le=50,
        ),
        sparse_structure_cfg: float = Input(
            description="Guidance scale of the sparse structure. TRELLIS and TRELLIS.2 only; relief ignores it.",
            default=7.5,
            ge=0,
            le=15,
        ),
        shape_slat_steps: int = Input(
            description="Sampling steps of the shape latent. TRELLIS.2 only; relief ignores it.",
            default=12,
            ge=1,
            le=50,
        ),
        shape_slat_cfg: float = Input(
            description="Guidance scale of the shape latent. TRELLIS.2 only; relief ignores it.",
            default=7.5,
            ge=0,
            le=15,
        ),
        tex_slat_steps: int = Input(
            description="Sampling steps of the texture latent. TRELLIS.2 only; relief ignores it.",
            default=12,
            ge=1,
            le=50,
        ),
        tex_slat_cfg: float = Input(
            description="Guidance scale of the texture latent; the authors of TRELLIS.2 use 1.0. TRELLIS.2 only; relief ignores it.",
            default=7.5,
            ge=0,
            le=15,
        ),
        decimation_target: int = Input(
            description="Most faces the model may have; used when quality is custom.",
            default=1000000,
            ge=500,
            le=2000000,
        ),
        texture_size: int = Input(
            description="Width and height of the textures in pixels; used when quality is custom.",
            default=4096,
            ge=256,
            le=8192,
        ),
        quality: str = Input(
            description="custom uses decimation_target and texture_size; balanced is 500k faces and 2048 pixels, high 1M and 4096, ultra 2M and 4096.",
            default="custom",
            choices=["custom", "balanced", "high", "ultra"],
        ),
    ) -> Output:
        """Turn the picture into a textured 3D model, a turntable video and a cut-out."""
        values = {name: value for name, value in locals().items() if name not in ("self", "image")}
        self.scratch.empty()
        if isinstance(image, str):  # the server hands on what is neither a URL nor a data URL
            raise ValueError("image must be an http(s) URL or a data URL")
        options = parse_options(values)
        with progress_report() as report:
            result = self.engine.generate(image, options, self.scratch.folder, "output", report)
        if hasattr(self, "record_metric"):
            for name, figure in result.metrics.items():
                self.record_metric(name, figure)
        return Output(
            **{name: Path(path) for name, path in result.files.items() if path is not None}
        )
