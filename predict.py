"""Cog's door: typed inputs, one call to the engine, typed outputs.

The numbers stand here as literals because Cog reads this file as text; a test holds them to
`onelook/options.py`.
"""

import os
from typing import List, Optional

from cog import BaseModel, BasePredictor, Input, Path

from onelook.engine import Engine
from onelook.options import parse_options
from onelook.progress import progress_report
from onelook.scratch import Scratch


class Output(BaseModel):
    no_background_image: Optional[Path] = None
    video: Optional[Path] = None
    model_file: Optional[Path] = None
    preview_image: Optional[Path] = None
    contact_sheet: Optional[Path] = None
    gaussian_file: Optional[Path] = None
    views_image: Optional[Path] = None
    frames_file: Optional[Path] = None


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Load what can be loaded once, and compile the kernels."""
        self.scratch = Scratch()
        self.engine = Engine(vram=os.environ.get("ONELOOK_VRAM", "auto"))
        self.engine.warm_up()

    def predict(
        self,
        image: Path = Input(
            description="Picture of one object: PNG, JPEG, WebP, BMP, GIF or TIFF, at most 25 MB and 50 megapixels.",
        ),
        images: Optional[List[Path]] = Input(
            description="Further pictures of the same object, at most 8. TRELLIS only; others ignore them.",
            default=None,
        ),
        model: str = Input(
            description="System that makes the shape. auto takes the best one whose weights are on this machine and that fits its device; relief is an instant preview that needs no weights.",
            default="auto",
            choices=[
                "auto",
                "trellis2",
                "trellis",
                "instantmesh",
                "instantmesh-base",
                "instantnerf",
                "instantnerf-base",
                "triposr",
                "relief",
            ],
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
            description="Also return a turntable video of 4 seconds (MP4, or what video_format says).",
            default=True,
        ),
        generate_model: bool = Input(
            description="Return the textured 3D model (GLB, or what format says).",
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
        slat_steps: int = Input(
            description="Sampling steps of the latent. TRELLIS only; relief ignores it.",
            default=12,
            ge=1,
            le=50,
        ),
        slat_cfg: float = Input(
            description="Guidance scale of the latent. TRELLIS only; relief ignores it.",
            default=3.0,
            ge=0,
            le=15,
        ),
        multi_image_mode: str = Input(
            description="How several pictures of one object are combined: stochastic lets them take turns, multidiffusion averages what each asks for and takes longer. TRELLIS only; others ignore it.",
            default="stochastic",
            choices=["stochastic", "multidiffusion"],
        ),
        diffusion_steps: int = Input(
            description="Sampling steps of the six views. InstantMesh only; others ignore it.",
            default=75,
            ge=1,
            le=150,
        ),
        diffusion_cfg: float = Input(
            description="Guidance scale of the six views. InstantMesh only; others ignore it.",
            default=4.0,
            ge=0,
            le=15,
        ),
        foreground_ratio: float = Input(
            description="Share of the picture's side that the subject fills. TripoSR only; others ignore it.",
            default=0.85,
            ge=0.5,
            le=1.0,
        ),
        mc_resolution: int = Input(
            description="Resolution of the grid on which the surface is found. TripoSR only; others ignore it.",
            default=256,
            ge=32,
            le=512,
        ),
        chunk_size: int = Input(
            description="Points that are looked up at once; less takes less memory, 0 is chosen by itself. TripoSR only; others ignore it.",
            default=0,
            ge=0,
            le=1048576,
        ),
        remesh: bool = Input(
            description="Rebuild the surface as one closed skin before simplifying: watertight, and slower. TRELLIS.2 only; others ignore it.",
            default=False,
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
        bake_texture: bool = Input(
            description="Lay the model out in UVs and bake textures. Off: one colour per vertex, which is quick and keeps less detail; texture options are then ignored.",
            default=True,
        ),
        quality: str = Input(
            description="custom uses decimation_target and texture_size; balanced is 500k faces and 2048 pixels, high 1M and 4096, ultra 2M and 4096.",
            default="custom",
            choices=["custom", "balanced", "high", "ultra"],
        ),
        format: str = Input(
            description="File format of the model. obj is one ZIP that holds OBJ, MTL and PNG textures; ply has colours and UVs at the vertices; stl is the bare shape.",
            default="glb",
            choices=["glb", "obj", "ply", "stl"],
        ),
        texture_format: str = Input(
            description="Image format of the textures in a GLB. png is lossless; jpeg and webp are several times smaller; WebP in GLB is not read by Unreal. Other formats ignore it.",
            default="png",
            choices=["png", "jpeg", "webp"],
        ),
        geometry_compression: str = Input(
            description="Compression of the geometry in a GLB. draco takes it to a tenth, rounds positions to 1/16384 of the size and needs a reader with KHR_draco_mesh_compression. Other formats ignore it.",
            default="none",
            choices=["none", "draco"],
        ),
        normal_map: bool = Input(
            description="Also bake the surface as it was before simplification into a tangent-space normal map, for GLB and OBJ. Of use where decimation_target is far below the faces of the surface.",
            default=False,
        ),
        video_size: int = Input(
            description="Width and height of the video in pixels, an even number.",
            default=512,
            ge=256,
            le=1024,
        ),
        video_format: str = Input(
            description="File format of the video. mp4 (H.264) and webm (VP9) have 30 frames a second, the animations gif and webp 20.",
            default="mp4",
            choices=["mp4", "gif", "webp", "webm"],
        ),
        video_source: str = Input(
            description="What the video shows: mesh is the model as it is delivered; nerf the model's own field, in 30 views. TripoSR only has one; of others the mesh is shown.",
            default="mesh",
            choices=["mesh", "nerf"],
        ),
        return_preview: bool = Input(
            description="Also return one picture of the model on a transparent background (PNG, 512 pixels).",
            default=False,
        ),
        return_contact_sheet: bool = Input(
            description="Also return eight views around the model in one picture (PNG).",
            default=False,
        ),
        generate_gaussian: bool = Input(
            description="Also return the 3D Gaussians that colour the model (PLY). TRELLIS only; others make none.",
            default=False,
        ),
        generate_views: bool = Input(
            description="Also return the six views that the model is made from in one picture (PNG). InstantMesh only; others make none.",
            default=False,
        ),
        generate_frames: bool = Input(
            description="Also return 30 views of the model's own field as PNG pictures (ZIP). TripoSR only; others make none.",
            default=False,
        ),
    ) -> Output:
        """Turn the picture into a textured 3D model, a turntable video and other views of it."""
        values = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "image", "images")
        }
        self.scratch.empty()
        if isinstance(image, str):  # the server hands on what is neither a URL nor a data URL
            raise ValueError("image must be an http(s) URL or a data URL")
        if any(isinstance(picture, str) for picture in images or ()):
            raise ValueError("images must be http(s) URLs or data URLs")
        options = parse_options(values)
        with progress_report() as report:
            result = self.engine.generate(
                image, options, self.scratch.folder, "output", report, images or ()
            )
        if hasattr(self, "record_metric"):
            for name, figure in result.metrics.items():
                self.record_metric(name, figure)
        return Output(
            **{name: Path(path) for name, path in result.files.items() if path is not None}
        )
