import numpy as np
import pytest
import warp as wp

from onelook.render.environment import harmonics, octahedral_directions, prefilter, studio
from onelook.render.environment import studio_radiance as radiance
from onelook.render.light_kernels import Light, irradiance_at, reflection_at
from onelook.render.shade import upload_environment


@wp.kernel
def look_up(
    light: Light,
    directions: wp.array(dtype=wp.vec3),
    roughness: float,
    reflection: wp.array(dtype=wp.vec3),
    irradiance: wp.array(dtype=wp.vec3),
):
    i = wp.tid()
    reflection[i] = reflection_at(light, directions[i], roughness)
    irradiance[i] = irradiance_at(light, directions[i])


def sphere_directions(count):
    random = np.random.default_rng(0).normal(size=(count, 3))
    return (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)


def evaluate(environment, directions, roughness):
    out = [wp.empty(len(directions), dtype=wp.vec3, device="cpu") for _ in range(2)]
    light = upload_environment(environment, "cpu")
    points = wp.array(directions, dtype=wp.vec3, device="cpu")
    wp.launch(look_up, len(directions), [light, points, roughness], outputs=out, device="cpu")
    return out[0].numpy(), out[1].numpy()


def test_a_mirror_sees_the_light_from_every_direction():
    def smooth(directions):
        return np.stack([1 + d for d in np.moveaxis(directions, -1, 0)], -1)

    directions = sphere_directions(5000)
    mirrored, _ = evaluate(prefilter(smooth), directions, 0.0)
    np.testing.assert_allclose(mirrored, smooth(directions), atol=0.01)


def test_irradiance_is_the_cosine_weighted_mean_of_the_sky():
    directions = sphere_directions(20000)
    light = radiance(directions)
    normals = sphere_directions(7)
    _, irradiance = evaluate(studio(), normals, 0.0)
    cosine = np.maximum(normals @ directions.T, 0)
    exact = cosine @ light / cosine.sum(axis=1, keepdims=True)
    # nine harmonics carry all but about a tenth of hard light (Ramamoorthi and Hanrahan)
    assert abs(irradiance - exact).max() < 0.15 * exact.max()


def test_roughness_blurs_but_keeps_the_energy():
    means, spreads = [], []
    for level in studio().levels:
        inside = level[1:-1, 1:-1].reshape(-1, 3)
        solid_angle = abs(octahedral_directions(len(level) - 2)).sum(-1).reshape(-1, 1) ** 3
        means.append((inside * solid_angle).sum() / solid_angle.sum() / 3)
        spreads.append(inside.max())
    assert means == pytest.approx([means[0]] * len(means), rel=0.03)
    assert spreads == sorted(spreads, reverse=True)


def test_uniform_light_stays_uniform():
    environment = prefilter(lambda directions: np.ones(directions.shape, np.float32))
    for roughness in (0.0, 0.35, 1.0):
        reflection, irradiance = evaluate(environment, sphere_directions(100), roughness)
        np.testing.assert_allclose(reflection, 1, atol=1e-4)
        np.testing.assert_allclose(irradiance, 1, atol=1e-4)


def test_harmonics_are_orthonormal():
    directions = sphere_directions(200000).astype(np.float64)
    gram = 4 * np.pi * harmonics(directions).T @ harmonics(directions) / len(directions)
    np.testing.assert_allclose(gram, np.eye(9), atol=0.03)
