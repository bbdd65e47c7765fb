"""The original's cameras, and its rule for walls inside a mesh."""

import numpy as np
import torch
from helpers.parity import Parity

from trellis_backend import views
from trellis_backend.inner_faces import drop_inner_faces


def test_cameras(load_case):
    case = Parity(load_case("trellis/cameras"))
    film, around, shot = (case.config[name] for name in ("video", "multiview", "snapshot"))
    poses = {
        "video": (views.film_angles(film["num_frames"]), film),
        "multiview": (views.sphere_angles(around["nviews"]), around),
        "snapshot": (views.snapshot_angles(), shot),
    }
    for name, (angles, numbers) in poses.items():
        made = views.extrinsics(*angles, numbers["r"])
        case.check(f"{name}_extrinsics", made)
        camera = views.intrinsics(numbers["fov"])
        case.check(f"{name}_intrinsics", camera.repeat(len(made), 1, 1))
    camera = views.intrinsics(around["fov"])
    case.check("proj_gs", views.projection(camera, 0.8, 1.6))
    case.check("proj_bake", views.opengl_projection(camera, 0.1, 10))
    first = views.extrinsics(*views.film_angles(film["num_frames"]), film["r"])[0]
    case.check("view_bake0", views.opengl_view(first))


def test_walls_inside(load_case):
    """The same faces stay, whatever their vertices' numbers."""
    case = load_case("trellis/fill_holes_mincut").arrays
    mesh = case["vertices"], case["faces"], case["visibility"]
    for name, area in zip(("a004", "a0001"), (0.04, 0.0001), strict=True):
        vertices, faces = drop_inner_faces(*mesh, hole_area=area)
        wanted = case[f"{name}_vertices"][case[f"{name}_faces"]]
        assert _sorted(vertices[faces]) == _sorted(wanted)
        assert len(vertices) == len(case[f"{name}_vertices"])


def test_a_mesh_without_hidden_faces_is_left_alone():
    vertices, faces = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)
    same = drop_inner_faces(vertices, faces, np.ones(1, np.float32))
    assert same[0] is vertices and same[1] is faces


def test_a_turn_is_seen_from_outside():
    poses = views.extrinsics(*views.film_angles(6), 2.0)
    rotations = poses[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(6, 3, 3))
    centre = (poses @ torch.tensor([0.0, 0, 0, 1]))[:, :3]
    torch.testing.assert_close(centre, torch.tensor([0.0, 0, 2]).expand(6, 3), atol=1e-5, rtol=0)


def _sorted(triangles: np.ndarray) -> list:
    return sorted(np.round(triangles, 6).reshape(-1, 9).tolist())
