"""The textured OBJ, and the texels that its texture is asked for."""

import cv2
import numpy as np
import torch
from helpers.golden import seed_weights
from helpers.instantmesh_cases import tiny_config
from helpers.parity import Parity

from instantmesh_backend.extract_mesh import extract_mesh
from instantmesh_backend.obj_export import obj_with_mtl, textured_obj
from instantmesh_backend.reconstruction import build_reconstruction
from onelook.asset.texels import TexelGeometry


def read_picture(png):
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def test_files_are_the_originals(load_case):
    case = load_case("instantmesh/obj_mtl_export")
    given = [case.arrays[name] for name in ("verts", "uvs", "faces", "faces_tex", "texture")]
    made = obj_with_mtl("thing", *given)
    for name in ("obj", "mtl"):
        stored = case.arrays[f"{name}_text"].tobytes().decode()
        assert getattr(made, name).decode().strip() == stored.strip()
    difference = read_picture(made.png).astype(int) - case.arrays["png"]
    assert np.abs(difference).max() <= case.info["tolerance"]["atol"]


def test_texels_lie_where_the_originals_lie(load_case):
    case = load_case("instantmesh/uv_bake_math")
    size, arrays = case.info["config"]["resolution"], case.arrays
    spread = np.zeros((len(arrays["uvs"]), 3), np.float32)  # one position for each uv
    spread[arrays["faces_tex"].ravel()] = arrays["verts"][arrays["faces"].ravel()]
    faces = arrays["faces_tex"].astype(np.int32)
    # UVs are rounded to 1/1024 texel; in an odd multiple of the size the centres are still there
    fine, middle = 85 * size, slice(42, None, 85)
    geometry = TexelGeometry(spread, np.zeros_like(spread), arrays["uvs"], faces, fine, "cpu")
    piece = geometry.piece(0, fine)
    points = np.zeros((fine * fine, 3), np.float32)
    points[piece.texels] = geometry.points(piece).points
    is_inside = (arrays["mask"][..., 0] > 0) & arrays["safe"]
    assert is_inside.sum() > 50
    np.testing.assert_allclose(
        points.reshape(fine, fine, 3)[middle, middle][is_inside],
        arrays["gb_pos"][is_inside],
        **case.info["tolerance"],
    )


@torch.inference_mode()
def test_texture_holds_the_colours_of_the_surface(load_case):
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    model = seed_weights(build_reconstruction(tiny_config(case)), case.case.info["weights_seed"])
    model.synthesizer.decoder.net_sdf[6].bias.data = case["net_sdf_last_bias"]
    mesh = extract_mesh(model, case["planes"])
    made = textured_obj(mesh, "m", texture_size=256)
    lines = [line.split() for line in made.obj.decode().splitlines()]
    vertices, uvs = (np.array([r[1:] for r in lines if r[0] == k], float) for k in ("v", "vt"))
    corners = np.array([[c.split("/") for c in r[1:]] for r in lines if r[0] == "f"], int) - 1
    np.testing.assert_allclose(vertices, mesh.vertices.numpy(), atol=1e-6)
    np.testing.assert_array_equal(
        np.sort(np.sort(corners[..., 0]), axis=0), np.sort(np.sort(mesh.faces.numpy()), axis=0)
    )
    centres = vertices[corners[..., 0]].mean(axis=1)
    at = uvs[corners[..., 1]].mean(axis=1)
    picture = read_picture(made.png)[::-1]
    seen = picture[tuple((at[:, ::-1] * 256).astype(int).T)] / 255
    wanted = mesh.colors(torch.from_numpy(centres).float()).clamp(0, 1).numpy()
    assert np.median(np.abs(seen - wanted)) < 0.02
