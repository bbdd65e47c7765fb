"""Warp functions that light a point: image-based glTF metallic-roughness, and tone mapping.

All vectors are in studio space (see environment.py) and of unit length; colours are linear.
"""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class Light:
    """An `Environment` on a device: its levels one after the other, level k at offsets[k]."""

    irradiance: wp.array(dtype=wp.vec3)
    texels: wp.array(dtype=wp.vec3)
    offsets: wp.array(dtype=wp.int32)
    sizes: wp.array(dtype=wp.int32)


@wp.func
def irradiance_at(light: Light, n: wp.vec3) -> wp.vec3:
    """Irradiance / pi of a surface with this normal; the basis is environment.harmonics."""
    x, y, z = n[0], n[1], n[2]
    c = light.irradiance
    total = c[0] * 0.282095
    total += c[1] * (0.488603 * y) + c[2] * (0.488603 * z) + c[3] * (0.488603 * x)
    total += c[4] * (1.092548 * x * y) + c[5] * (1.092548 * y * z) + c[7] * (1.092548 * x * z)
    total += c[6] * (0.315392 * (3.0 * z * z - 1.0)) + c[8] * (0.546274 * (x * x - y * y))
    return wp.max(total, wp.vec3(0.0, 0.0, 0.0))


@wp.func
def sample_octahedral(light: Light, u: float, v: float, level: int) -> wp.vec3:
    """Bilinear; u, v -1..1 over the square inside the border."""
    size = light.sizes[level]
    x = (u * 0.5 + 0.5) * float(size) + 0.5  # the border shifts by one pixel
    y = (v * 0.5 + 0.5) * float(size) + 0.5
    column, row = wp.clamp(int(x), 0, size), wp.clamp(int(y), 0, size)
    fx, fy = x - float(column), y - float(row)
    corner = light.offsets[level] + row * (size + 2) + column
    a, b = light.texels[corner], light.texels[corner + 1]
    c, d = light.texels[corner + size + 2], light.texels[corner + size + 3]
    top = a + (b - a) * fx
    bottom = c + (d - c) * fx
    return top + (bottom - top) * fy


@wp.func
def reflection_at(light: Light, direction: wp.vec3, roughness: float) -> wp.vec3:
    """Blurred radiance from a direction."""
    scale = 1.0 / (wp.abs(direction[0]) + wp.abs(direction[1]) + wp.abs(direction[2]))
    u, v = direction[0] * scale, direction[2] * scale
    fold = wp.max(-direction[1] * scale, 0.0)
    u += wp.where(u < 0.0, -fold, fold)
    v += wp.where(v < 0.0, -fold, fold)
    position = roughness * float(light.sizes.shape[0] - 1)
    lower = wp.min(int(position), light.sizes.shape[0] - 2)
    near = sample_octahedral(light, u, v, lower)
    far = sample_octahedral(light, u, v, lower + 1)
    return near + (far - near) * (position - float(lower))


@wp.func
def mirror_fraction(roughness: float, facing: float) -> wp.vec2:
    """Scale and bias of F0 in the environment's specular term; facing is normal . view.

    The analytic fit of Karis, "Physically Based Shading on Mobile" (2014), after Lazarov.
    """
    rx = 1.0 - roughness
    ry = 0.0425 - 0.0275 * roughness
    rz = 1.04 - 0.572 * roughness
    rw = 0.022 * roughness - 0.04
    a004 = wp.min(rx * rx, wp.exp(-6.4324054 * facing)) * rx + ry  # exp2(-9.28 facing)
    return wp.vec2(wp.max(rz - 1.04 * a004, 0.0), wp.max(rw + 1.04 * a004, 0.0))


@wp.func
def light_surface(
    light: Light,
    base_color: wp.vec3,
    metallic: float,
    roughness: float,
    normal: wp.vec3,
    view: wp.vec3,
) -> wp.vec3:
    """Radiance towards `view` of a glTF metallic-roughness surface.

    Light that leaves the microsurface after more than one bounce is added back as Fdez-Aguera,
    "A Multiple-Scattering Microfacet Model for Real-Time Image-based Lighting" (2019) does, so
    that a white surface in white surroundings stays white.
    """
    facing = wp.clamp(wp.dot(normal, view), 0.01, 1.0)
    mirrored = normal * (2.0 * wp.dot(normal, view)) - view
    reflected = reflection_at(light, mirrored, roughness)
    irradiance = irradiance_at(light, normal)
    f0 = wp.vec3(0.04, 0.04, 0.04) * (1.0 - metallic) + base_color * metallic
    fraction = mirror_fraction(roughness, facing)
    once = f0 * fraction[0] + wp.vec3(fraction[1], fraction[1], fraction[1])
    lost = 1.0 - fraction[0] - fraction[1]
    color = wp.vec3(0.0, 0.0, 0.0)
    for i in range(3):
        mean_fresnel = f0[i] + (1.0 - f0[i]) / 21.0
        again = once[i] * mean_fresnel * lost / (1.0 - mean_fresnel * lost)
        diffuse = base_color[i] * (1.0 - metallic) * (1.0 - once[i] - again)
        color[i] = once[i] * reflected[i] + (again + diffuse) * irradiance[i]
    return color


@wp.func
def tone_map(color: wp.vec3) -> wp.vec3:
    """Linear radiance to linear display light 0..1: Khronos PBR Neutral (2024 specification).

    It undoes the 4 % a dielectric reflects and leaves everything below 0.76 alone, so base colours
    come out as they are; brighter light is compressed and slowly loses its colour.
    """
    low = wp.min(color[0], wp.min(color[1], color[2]))
    offset = wp.float32(0.04)
    if low < 0.08:
        offset = low - 6.25 * low * low
    color = color - wp.vec3(offset, offset, offset)
    peak = wp.max(color[0], wp.max(color[1], color[2]))
    if peak > 0.76:
        squeezed = 1.0 - 0.24 * 0.24 / (peak + 0.24 - 0.76)
        color = color * (squeezed / peak)
        white = 1.0 - 1.0 / (0.15 * (peak - squeezed) + 1.0)
        color = color + (wp.vec3(squeezed, squeezed, squeezed) - color) * white
    return color
