import numpy as np
import pytest
import torch
from helpers.splats import draw, opencv_camera, project
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from onelook.asset.build import build_asset
from onelook.errors import OutputError, SurfaceError
from onelook.isosurface.flexicubes import flexicubes
from onelook.kernels import launch
from onelook.render.camera import orbit_camera
from onelook.render.scene import RenderScene
from onelook.render.shade import render
from onelook.report import Report
from onelook.surface import Surface
from trellis_backend import gaussian_appearance
from trellis_backend.gaussian_appearance import GaussianAppearance
from trellis_backend.gaussians import (
    PLY_COLUMNS,
    SH_CONSTANT,
    GaussianConfig,
    Gaussians,
    activate,
    gaussians_of_voxels,
    ply_table,
    write_gaussians,
)

VOXELS = 40  # per axis, of the test asset
PICTURE, FOV, DISTANCE = 96, 36.0, 2.0


def torch_case(case) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in case.arrays.items()}


def reference_gaussians(case) -> Gaussians:
    raw = torch_case(case)
    names = ("_xyz", "_features_dc", "_scaling", "_rotation", "_opacity")
    xyz, features, scaling, rotation, opacity = (raw[name] for name in names)
    return activate(xyz, features[:, 0], scaling, rotation, opacity, GaussianConfig())


def gaussians_from(positions, scales, rotations, opacities, colors) -> Gaussians:
    features = (np.asarray(colors) - 0.5) / SH_CONSTANT
    arrays = (positions, scales, rotations, opacities, features)
    return Gaussians(*(torch.tensor(np.asarray(array), dtype=torch.float32) for array in arrays))


def random_gaussians(count: int, seed: int = 0) -> Gaussians:
    """In the unit box, of very different sizes."""
    rng = np.random.default_rng(seed)
    return gaussians_from(
        rng.uniform(-0.5, 0.5, (count, 3)),
        0.01 * 2.0 ** rng.uniform(-2, 4, (count, 3)),
        rng.standard_normal((count, 4)),
        rng.uniform(0, 1, count),
        rng.uniform(0, 1, (count, 3)),
    )


def distance_to_ring(points: np.ndarray) -> np.ndarray:
    """Signed distance to a bumpy ring, (N, 3) -> (N,)."""
    around = np.hypot(points[:, 0], points[:, 2]) - 0.33
    return np.hypot(around, points[:, 1]) - 0.14 + 0.008 * np.sin(24 * points).prod(1)


def outward(points: np.ndarray) -> np.ndarray:
    steps = 1e-4 * np.eye(3)
    slopes = [distance_to_ring(points + s) - distance_to_ring(points - s) for s in steps]
    return np.stack(slopes, 1) / np.linalg.norm(slopes, axis=0)[:, None]


def painted(points: np.ndarray) -> np.ndarray:
    """Clay with blue-green glaze: soft stripes and blotches."""
    x, y, z = points.T
    blotch = 0.5 + 0.5 * np.sin(11 * x + 4 * y) * np.sin(13 * z - 3 * x)
    stripe = 0.5 + 0.5 * np.tanh(4 * np.sin(16 * (x + 1.3 * y - 0.7 * z)))
    clay, glaze = np.array([0.72, 0.46, 0.30]), np.array([0.22, 0.50, 0.55])
    color = clay + (glaze - clay) * blotch[:, None]
    return color * (0.75 + 0.25 * stripe[:, None])


@pytest.fixture(scope="module")
def ring_gaussians() -> Gaussians:
    """A ring as a decoder would leave it: flat Gaussians strewn about the surface's voxels, a fifth
    of them hidden beneath in other colours, some floating above it, nearly transparent.
    """
    rng = np.random.default_rng(0)
    axis = (np.arange(VOXELS) + 0.5) / VOXELS - 0.5
    voxels = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    voxels = voxels[np.abs(distance_to_ring(voxels)) < 0.9 / VOXELS]
    points = np.repeat(voxels, 4, axis=0)
    points = points + rng.uniform(-0.75, 0.75, points.shape) / VOXELS
    count = len(points)
    kind = rng.choice(3, count, p=[0.74, 0.2, 0.06])  # on the surface, beneath it, above it
    height = np.choose(
        kind,
        [
            0.08 * rng.standard_normal(count) - 0.1,
            -rng.uniform(0.7, 1.5, count),
            rng.uniform(0.2, 0.5, count),
        ],
    )
    normals = outward(points)
    points = points + (height / VOXELS - distance_to_ring(points))[:, None] * normals
    colors = painted(points) + 0.02 * rng.standard_normal(points.shape)
    colors[kind > 0] = rng.uniform(0, 1, (int((kind > 0).sum()), 3))
    tilted = normals + 0.3 * rng.standard_normal(points.shape)
    tilted /= np.linalg.norm(tilted, axis=1, keepdims=True)
    side = np.cross(tilted, rng.standard_normal(points.shape))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    frames = Rotation.from_matrix(np.stack([side, np.cross(tilted, side), tilted], 2))
    return gaussians_from(
        points,
        0.36 / VOXELS * np.exp(0.35 * rng.standard_normal(points.shape)) * [1, 1, 0.35],
        np.roll(frames.as_quat(), 1, axis=1),
        np.choose(kind, [rng.beta(4, 1.5, count), rng.uniform(0.3, 1, count), 0.03]),
        colors,
    )


@pytest.fixture(scope="module")
def ring_mesh() -> tuple[np.ndarray, np.ndarray]:
    axis = torch.arange(49)
    points = torch.cartesian_prod(axis, axis, axis) / 48 - 0.5
    mesh = flexicubes(torch.from_numpy(distance_to_ring(points.double().numpy())).float(), points)
    return mesh.vertices.numpy(), mesh.faces.int().numpy()


def test_reference_parameters_and_table(load_case):
    case = load_case("trellis/gaussian_ply")
    gaussians, expected = reference_gaussians(case), torch_case(case)
    got = (
        gaussians.positions,
        gaussians.scales,
        torch.nn.functional.normalize(gaussians.rotations),
        gaussians.opacities[:, None],
        torch.from_numpy(ply_table(gaussians)),
        torch.from_numpy(ply_table(gaussians, is_turned=False)),
    )
    names = ("get_xyz", "get_scaling", "get_rotation", "get_opacity", "table", "table_raw")
    wanted = tuple(expected[name] for name in names)
    torch.testing.assert_close(got, wanted, **case.info["tolerance"])


@pytest.mark.parametrize("item", [0, 1])
def test_reference_gaussians_of_the_tiny_decoder(load_case, item):
    case = load_case("trellis/slat_gaussian_decoder_tiny")
    arrays, config = torch_case(case), case.info["config"]
    mine = arrays["coords"][:, 0] == item
    gaussians = gaussians_of_voxels(
        arrays["head"][mine],
        arrays["coords"][mine, 1:],
        arrays["offset_perturbation"],
        GaussianConfig(
            resolution=config["resolution"],
            num_gaussians=config["representation_config"]["num_gaussians"],
        ),
    )
    got = (
        gaussians.positions,
        gaussians.scales,
        torch.nn.functional.normalize(gaussians.rotations),
        gaussians.opacities[:, None],
        gaussians.features[:, None],
    )
    names = ("get_xyz", "get_scaling", "get_rotation", "get_opacity", "_features_dc")
    wanted = tuple(arrays[f"item{item}{name}"] for name in names)
    torch.testing.assert_close(got, wanted, **case.info["tolerance"])


def test_written_file_holds_the_reference_table(load_case, tmp_path):
    case = load_case("trellis/gaussian_ply")
    path = tmp_path / "gaussians.ply"
    write_gaussians(reference_gaussians(case), path)
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 120"]
    assert lines[3:] == [f"property float {name}" for name in case.info["config"]["columns"]]
    assert tuple(case.info["config"]["columns"]) == PLY_COLUMNS
    table = np.frombuffer(body, "<f4").reshape(120, 17)
    np.testing.assert_allclose(table, case.arrays["table"], **case.info["tolerance"])
    with pytest.raises(OutputError, match="cannot be written"):
        write_gaussians(reference_gaussians(case), tmp_path / "missing" / "gaussians.ply")
    assert [entry.name for entry in tmp_path.iterdir()] == ["gaussians.ply"]


def test_moving_gaussians_moves_their_shape():
    gaussians = random_gaussians(50)
    turn = torch.tensor(Rotation.from_rotvec([0.3, -2.0, 1.1]).as_matrix(), dtype=torch.float32)
    moved = gaussians.moved(turn, 2.5, torch.tensor([1.0, 2.0, 3.0]))

    def covariance(g: Gaussians) -> torch.Tensor:
        spread = g.rotation_matrices * g.scales[:, None]
        return spread @ spread.mT

    expected = 2.5**2 * turn @ covariance(gaussians) @ turn.T
    torch.testing.assert_close(covariance(moved), expected, rtol=1e-4, atol=1e-6)
    expected = 2.5 * gaussians.positions @ turn.T + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(moved.positions, expected)
    assert (moved.rotations.gather(1, moved.rotations.abs().argmax(1, True)) > 0).all()
    torch.testing.assert_close(moved.rotations.norm(dim=1), torch.ones(50))


def test_rasteriser_of_these_tests_is_the_reference_one(load_case):
    case = load_case("trellis/splat_formula")
    arrays = {name: array.double() for name, array in torch_case(case).items()}
    shape = [arrays[name] for name in ("xyz", "scaling", "rotation", "opacity")]
    size = case.info["config"]["image"]
    splats = project(*shape, arrays["extrinsics"], float(arrays["fx_normalised"][0]), size)
    image, alpha = draw(splats, (0.5 + SH_CONSTANT * arrays["features_dc"]).clamp(min=0), size)
    conic_opacity = torch.cat([splats.conic, splats.opacity[:, None]], 1)
    got = (image, alpha, splats.center, splats.radius, splats.depth, conic_opacity)
    names = ("centre_px", "radius", "depth", "conic_opacity")
    wanted = [arrays[name][splats.order] for name in names]
    torch.testing.assert_close(
        got, (arrays["image"], arrays["alpha"], *wanted), **case.info["tolerance"]
    )


def test_baked_mesh_looks_like_the_drawn_gaussians(ring_gaussians, ring_mesh):
    """20 views round the object: the Gaussians drawn exactly, and the textured mesh."""
    appearance = GaussianAppearance(ring_gaussians, reach=1 / VOXELS)
    scene = RenderScene(
        build_asset(
            Surface(*ring_mesh, appearance),
            decimation_target=4000,
            texture_size=256,
            report=Report(),
        )
    )
    error, pixels = 0.0, 0
    for view in range(20):
        elevation = np.degrees(np.arcsin(1 - (2 * view + 1) / 20))
        camera = orbit_camera(137.508 * view, elevation, DISTANCE, FOV)
        splats = project(
            ring_gaussians.positions,
            ring_gaussians.scales,
            ring_gaussians.rotations,
            ring_gaussians.opacities,
            opencv_camera(camera.world_to_camera),
            0.5 / np.tan(np.radians(FOV / 2)),
            PICTURE,
        )
        drawn = draw(splats, ring_gaussians.colors, PICTURE)[0].clamp(0, 1).numpy()
        textured = render(scene, camera, PICTURE, PICTURE, unlit=True, supersample=1)
        inner = binary_erosion(textured[..., 3] == 255)
        error += ((textured[inner, :3] / 255 - drawn[inner]) ** 2).mean(1).sum()
        pixels += inner.sum()
    assert pixels > 20 * 900
    assert -10 * np.log10(error / pixels) >= 32  # dB; the bar for the method is 28


def test_colours_do_not_depend_on_where_exactly_the_mesh_lies(ring_gaussians, ring_mesh):
    vertices, _ = ring_mesh
    normals = outward(vertices).astype(np.float32)
    appearance = GaussianAppearance(ring_gaussians, reach=1 / VOXELS)
    colors = appearance.sample(vertices, normals).base_color
    for offset in (-0.4, 0.4):
        moved = appearance.sample(vertices + np.float32(offset / VOXELS) * normals, normals)
        assert np.sqrt(np.mean((moved.base_color - colors) ** 2)) < 0.015
    assert np.sqrt(np.mean((colors - painted(vertices)) ** 2)) < 0.06


def mix_the_obvious_way(gaussians: Gaussians, points, normals, reach: float) -> np.ndarray:
    """Every Gaussian at every point, in the slices of the kernel."""
    in_front = gaussian_appearance.IN_FRONT * reach
    behind = gaussian_appearance.BEHIND * reach
    whiten = (gaussians.rotation_matrices / gaussians.scales[:, None]).double().numpy()
    opacities, colors = gaussians.opacities.double().numpy(), gaussians.colors.double().numpy()
    result = []
    for point, normal in zip(points, normals, strict=True):
        offset = gaussians.positions.double().numpy() - point
        height = offset @ normal
        away = np.einsum("nc,nck->nk", offset, whiten)
        direction = np.einsum("c,nck->nk", normal, whiten)
        power = (away**2).sum(1) - (away * direction).sum(1) ** 2 / (direction**2).sum(1)
        alpha = np.minimum(0.99, opacities * np.exp(-0.5 * power))
        alpha[(alpha < 1 / 255) | (height > in_front) | (height < -behind)] = 0
        slices = int(gaussian_appearance._SLICES)
        piece = np.floor((in_front - height) / (in_front + behind) * slices)
        color, passing = np.zeros(3), 1.0
        for s in range(slices):
            here = (piece == s) & (alpha > 0)
            if here.any():
                through = np.prod(1 - alpha[here])
                mean = alpha[here] @ colors[here] / alpha[here].sum()
                color += passing * (1 - through) * mean
                passing *= through
        result.append(color / (1 - passing))
    return np.array(result)


def test_finds_every_gaussian_on_the_ray():
    """Sizes over six doublings, so that every grid is used."""
    gaussians = random_gaussians(4000)
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.4, 0.4, (200, 3)).astype(np.float32)
    normals = rng.standard_normal((200, 3))
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
    appearance = GaussianAppearance(gaussians, reach=0.02)
    assert len(appearance._grids.cell) >= 5
    got = appearance.sample(points, normals).base_color
    difference = np.abs(got - mix_the_obvious_way(gaussians, points, normals, 0.02)).max(1)
    assert np.quantile(difference, 0.95) < 1e-4
    assert difference.max() < 0.02  # a centre on the border of two slices


def test_what_hides_beneath_the_surface_stays_hidden():
    rng = np.random.default_rng(2)
    directions = rng.standard_normal((6000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    is_inner = np.arange(6000) < 3000
    gaussians = gaussians_from(
        directions * np.where(is_inner, 0.18, 0.20)[:, None],
        np.full((6000, 3), 0.012),
        np.tile([1.0, 0, 0, 0], (6000, 1)),
        np.full(6000, 0.95),
        np.where(is_inner[:, None], [1.0, 0, 0], [0, 0, 1.0]),
    )
    points = (0.19 * directions[:500]).astype(np.float32)  # between the two layers
    appearance = GaussianAppearance(gaussians, reach=0.03)
    material = appearance.sample(points, directions[:500].astype(np.float32))
    assert np.median(material.base_color[:, 2]) > 0.98
    assert material.base_color[:, 0].mean() < 0.02
    assert (material.alpha == 1).all() and (material.metallic == 0).all()


def test_points_beside_all_gaussians_take_the_nearest_colour():
    gaussians = gaussians_from(
        [[0.0, 0, 0], [0.3, 0, 0]],
        np.full((2, 3), 0.005),
        np.tile([1.0, 0, 0, 0], (2, 1)),
        [0.9, 0.9],
        [[1.0, 0, 0], [0, 1.0, 0]],
    )
    points = np.array([[0.01, 0.2, 0], [0.3, 0.2, 0]], np.float32)
    normals = np.tile(np.array([0, 0, 1], np.float32), (2, 1))
    colors = GaussianAppearance(gaussians, reach=0.02).sample(points, normals).base_color
    assert colors[0].argmax() == 0 and colors[1].argmax() == 1
    assert GaussianAppearance(gaussians, 0.02).sample(points[:0], normals[:0]).base_color.size == 0


def test_same_bytes_however_the_points_are_shared_out(ring_gaussians, ring_mesh, monkeypatch):
    vertices, _ = ring_mesh
    normals = outward(vertices).astype(np.float32)
    expected = GaussianAppearance(ring_gaussians, 1 / VOXELS).sample(vertices, normals)

    def launch_in_one_piece(*arguments):
        launch(*arguments, pieces=1)

    monkeypatch.setattr(gaussian_appearance, "launch", launch_in_one_piece)
    again = GaussianAppearance(ring_gaussians, 1 / VOXELS).sample(vertices, normals)
    assert again.base_color.tobytes() == expected.base_color.tobytes()


def test_refuses_what_it_cannot_use():
    gaussians = random_gaussians(5)
    clear = Gaussians(**{**vars(gaussians), "opacities": torch.zeros(5)})
    with pytest.raises(SurfaceError, match="every Gaussian is transparent"):
        GaussianAppearance(clear, 0.02)
    with pytest.raises(ValueError, match=r"14 channels for each of 32 Gaussians, got shape \(3, 5"):
        gaussians_of_voxels(
            torch.zeros(3, 56), torch.zeros(3, 3), torch.zeros(32, 3), GaussianConfig()
        )


@pytest.mark.gpu
def test_cuda_sees_the_same_colours(ring_gaussians, ring_mesh):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    vertices, _ = ring_mesh
    normals = outward(vertices).astype(np.float32)
    colors = [
        GaussianAppearance(ring_gaussians, 1 / VOXELS, device=device)
        .sample(vertices, normals)
        .base_color
        for device in ("cpu", "cuda:0")
    ]
    assert np.quantile(np.abs(colors[0] - colors[1]), 0.99) < 1e-4
