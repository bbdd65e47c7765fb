"""The one kernel that turns rasterised faces into a picture.

Per pixel: for every sample and layer, the face's attributes at that point, its textures, light,
tone mapping; then the mean of the samples over the background, and sRGB.
"""

from __future__ import annotations

import warp as wp

from onelook.render.light_kernels import Light, light_surface, tone_map
from onelook.render.raster_kernels import ScreenVertex, edge
from onelook.render.texture_kernels import Texture, sample

wp.set_module_options({"enable_backward": False})

MASK, BLEND = wp.constant(1), wp.constant(2)  # alpha modes; 0 is opaque
COHERENT = wp.constant(0.92)  # squared cosine of normals lit together: about 16 degrees


@wp.struct
class Corner:
    """What a vertex carries besides its position; object space."""

    normal: wp.vec3
    uv: wp.vec2


@wp.struct
class Scene:
    """An asset on a device."""

    positions: wp.array(dtype=wp.vec3)
    corners: wp.array(dtype=Corner)
    faces: wp.array(dtype=wp.vec3i)
    color: Texture
    surface: Texture  # metallic, roughness, tangent-space normal x and y
    has_surface: wp.bool
    has_normals: wp.bool
    metallic: wp.float32
    roughness: wp.float32
    alpha_mode: wp.int32


@wp.struct
class View:
    """The camera in studio space; ray = forward + x * across + y * up for x, y in -1..1."""

    to_studio: wp.mat33
    across: wp.vec3
    up: wp.vec3
    backward: wp.vec3
    eye: wp.vec3
    is_pinhole: wp.bool


@wp.struct
class Backdrop:
    """What is behind the object; colours linear. ground is the height of the floor."""

    is_transparent: wp.bool
    top: wp.vec3
    bottom: wp.vec3
    shadow: wp.array2d(dtype=wp.float32)  # darkness over the square -reach..reach of x and z
    strength: wp.float32
    reach: wp.float32
    ground: wp.float32


@wp.struct
class Point:
    """The material and normal (studio space) of a point of the surface."""

    color: wp.vec3
    alpha: wp.float32
    metallic: wp.float32
    roughness: wp.float32
    normal: wp.vec3


@wp.func
def bend_normal(
    scene: Scene, corner: wp.vec3i, du: wp.vec2, dv: wp.vec2, normal: wp.vec3, bent: wp.vec2
) -> wp.vec3:
    """A tangent-space normal x, y -1..1 (+X right, +Y up in the picture) to object space.

    du, dv: uv along the face's two edges from its first vertex. The tangent follows from them.
    """
    origin = scene.positions[corner[0]]
    p, q = scene.positions[corner[1]] - origin, scene.positions[corner[2]] - origin
    determinant = du[0] * dv[1] - dv[0] * du[1]
    if wp.abs(determinant) < 1.0e-20:
        return normal
    tangent = (p * dv[1] - q * du[1]) / determinant
    upward = (p * dv[0] - q * du[0]) / determinant  # against v, which runs down the picture
    tangent = wp.normalize(tangent - normal * wp.dot(tangent, normal))
    upward = wp.normalize(upward - normal * wp.dot(upward, normal))
    z = wp.sqrt(wp.max(1.0 - wp.dot(bent, bent), 0.0))
    return wp.normalize(tangent * bent[0] + upward * bent[1] + normal * z)


@wp.func
def fast_log2(x: float) -> float:
    """Logarithm of a positive number from its bits: at most 0.09 less than the true one."""
    return float(wp.cast(x, wp.int32)) * (1.0 / 8388608.0) - 127.0


@wp.func
def point_at(
    scene: Scene,
    view: View,
    screen: wp.array(dtype=ScreenVertex),
    face: int,
    x: int,
    y: int,
    level_step: float,
) -> Point:
    """The surface point of `face` at a position in 1/256 samples.

    level_step: 0..1 rounds the mip level down after adding it; below 0 blends two levels instead.
    """
    corner = scene.faces[face]
    a, b, c = screen[corner[0]], screen[corner[1]], screen[corner[2]]
    # perspective-correct weights: linear in the picture over clip w, renormalised
    in_a = float(edge(b, c, x, y)) * a.inverse_w
    in_b = float(edge(c, a, x, y)) * b.inverse_w
    in_c = float(edge(a, b, x, y)) * c.inverse_w
    scale = 1.0 / (in_a + in_b + in_c)
    ca, cb, cc = scene.corners[corner[0]], scene.corners[corner[1]], scene.corners[corner[2]]
    uv = (ca.uv * in_a + cb.uv * in_b + cc.uv * in_c) * scale

    # change of uv per sample step: the weights' own derivatives, by the quotient rule
    step = 256.0 * scale
    from_a, from_b = (ca.uv - uv) * (a.inverse_w * step), (cb.uv - uv) * (b.inverse_w * step)
    from_c = (cc.uv - uv) * (c.inverse_w * step)
    across = from_a * float(b.y - c.y) + from_b * float(c.y - a.y) + from_c * float(a.y - b.y)
    down = from_a * float(c.x - b.x) + from_b * float(a.x - c.x) + from_c * float(b.x - a.x)
    # a level for the mean of both directions, so that grazing views stay sharp and take no colour
    # from far parts of the atlas; the long direction may be undersampled four times at most
    footprint = wp.abs(across[0] * down[1] - across[1] * down[0])
    footprint = wp.max(footprint, wp.max(wp.dot(across, across), wp.dot(down, down)) / 16.0)
    level = 0.5 * fast_log2(footprint * float(scene.color.size * scene.color.size) + 1.0e-12)
    if level_step >= 0.0:
        level = wp.floor(level + level_step)

    point = Point()
    color = sample(scene.color, uv, level)
    point.color = wp.vec3(color[0], color[1], color[2])
    point.alpha = 1.0
    if scene.alpha_mode == BLEND:
        point.alpha = color[3]
    elif scene.alpha_mode == MASK:
        point.alpha = wp.where(color[3] < 0.5, 0.0, 1.0)
    point.metallic = scene.metallic
    point.roughness = scene.roughness
    normal = (ca.normal * in_a + cb.normal * in_b + cc.normal * in_c) * scale
    if scene.has_surface:
        texel = sample(scene.surface, uv, level)
        point.metallic = texel[0]
        point.roughness = texel[1]
        if scene.has_normals:
            bent = wp.vec2(texel[2] * 2.0 - 1.0, texel[3] * 2.0 - 1.0)
            normal = wp.normalize(normal)
            normal = bend_normal(scene, corner, cb.uv - ca.uv, cc.uv - ca.uv, normal, bent)
    if scale > 0.0:  # clockwise on the screen: the back of an open surface
        normal = -normal
    point.normal = view.to_studio * normal
    return point


@wp.func
def backdrop_at(backdrop: Backdrop, eye: wp.vec3, ray: wp.vec3, to_studio: wp.mat33, v: float):
    """Colour behind the object along a ray; v runs from 0 at the top of the picture to 1."""
    color = backdrop.top + (backdrop.bottom - backdrop.top) * v
    if backdrop.strength > 0.0 and ray[1] < -1.0e-4 and eye[1] > backdrop.ground:
        floor_point = eye + ray * ((backdrop.ground - eye[1]) / ray[1])
        inside = wp.transpose(to_studio) * floor_point  # the shadow turns with the object
        size = backdrop.shadow.shape[0]
        x = (inside[0] / backdrop.reach * 0.5 + 0.5) * float(size) - 0.5
        y = (inside[2] / backdrop.reach * 0.5 + 0.5) * float(size) - 0.5
        if x >= 0.0 and y >= 0.0 and x < float(size - 1) and y < float(size - 1):
            column, row = int(x), int(y)
            fx, fy = x - float(column), y - float(row)
            upper = wp.lerp(backdrop.shadow[row, column], backdrop.shadow[row, column + 1], fx)
            lower = wp.lerp(
                backdrop.shadow[row + 1, column], backdrop.shadow[row + 1, column + 1], fx
            )
            color = color * (1.0 - backdrop.strength * wp.lerp(upper, lower, fy))
    return color


@wp.func
def pack(color: wp.vec3, alpha: float, encode: wp.array(dtype=wp.uint8)) -> wp.uint32:
    """Linear colour and alpha to RGBA bytes, red lowest."""
    packed = wp.uint32(wp.clamp(alpha, 0.0, 1.0) * 255.0 + 0.5) << wp.uint32(24)
    steps = float(encode.shape[0] - 1)
    for channel in range(3):
        index = int(wp.clamp(color[channel], 0.0, 1.0) * steps + 0.5)
        packed = packed | (wp.uint32(encode[index]) << wp.uint32(8 * channel))
    return packed


@wp.func
def show(point: Point, light: Light, towards_eye: wp.vec3, unlit: bool) -> wp.vec3:
    """Display colour of a group of samples that share their light; `point` holds their means."""
    if unlit:
        return point.color
    normal = wp.normalize(point.normal)
    return tone_map(
        light_surface(light, point.color, point.metallic, point.roughness, normal, towards_eye)
    )


@wp.func
def is_apart(normal: wp.vec3, other: wp.vec3) -> bool:
    """Whether two normals of any length differ too much to be lit together."""
    agreement = wp.dot(normal, other)
    lengths = wp.dot(normal, normal) * wp.dot(other, other)
    return agreement < 0.0 or agreement * agreement < COHERENT * lengths


@wp.func
def add_weighted(mean: Point, weight: float, point: Point, more: float) -> Point:
    """The mean after a point of weight `more` joins points of `weight`."""
    share = more / (weight + more)
    joined = Point()
    joined.color = mean.color + (point.color - mean.color) * share
    joined.normal = mean.normal + (point.normal - mean.normal) * share
    joined.metallic = mean.metallic + (point.metallic - mean.metallic) * share
    joined.roughness = mean.roughness + (point.roughness - mean.roughness) * share
    return joined


@wp.kernel
def shade_pixels(
    first: int,
    scene: Scene,
    view: View,
    light: Light,
    backdrop: Backdrop,
    screen: wp.array(dtype=ScreenVertex),
    layers: wp.array3d(dtype=wp.int32),
    samples: int,
    unlit: bool,
    encode: wp.array(dtype=wp.uint8),
    image: wp.array2d(dtype=wp.uint32),
):
    """One item: a pixel. layers (K, H * samples, W * samples): face ids, nearest layer first.

    Samples whose normals agree are lit together: light is far away, so it depends on the normal and
    the material alone.
    """
    pixel = first + wp.tid()
    width, height = image.shape[1], image.shape[0]
    row, column = pixel // width, pixel % width
    u = (float(column) + 0.5) / float(width)
    v = (float(row) + 0.5) / float(height)
    shift = view.across * (2.0 * u - 1.0) + view.up * (1.0 - 2.0 * v)
    nothing = wp.vec3(0.0, 0.0, 0.0)
    eye = view.eye + wp.where(view.is_pinhole, nothing, shift)
    ray = wp.where(view.is_pinhole, shift, nothing) - view.backward
    towards_eye = -wp.normalize(ray)

    share = 1.0 / float(samples * samples)
    num_layers = layers.shape[0]
    total = samples * samples * num_layers
    picture = wp.vec3(0.0, 0.0, 0.0)  # display colour times weight
    coverage = wp.float32(0.0)
    group = Point()  # means of the samples that wait for their light
    group_weight = wp.float32(0.0)
    passing = wp.float32(1.0)  # light that the layers in front let through
    for i in range(total + 1):
        point = Point()
        weight = wp.float32(0.0)
        if i < total:
            sample_index, layer = i // num_layers, i % num_layers
            if layer == 0:
                passing = wp.float32(1.0)
            sample_row = row * samples + sample_index // samples
            sample_column = column * samples + sample_index % samples
            face = layers[layer, sample_row, sample_column]
            if face >= 0 and passing > 0.0:
                # the samples of a pixel take turns between two mip levels: trilinear on average
                level_step = wp.where(samples > 1, (float(sample_index) + 0.5) * share, -1.0)
                x, y = sample_column * 256 + 128, sample_row * 256 + 128
                point = point_at(scene, view, screen, face, x, y, level_step)
                weight = passing * point.alpha * share
                passing = passing * (1.0 - point.alpha)
        is_new_group = weight > 0.0 and is_apart(point.normal, group.normal)
        if group_weight > 0.0 and (i == total or is_new_group):
            picture += show(group, light, towards_eye, unlit) * group_weight
            coverage += group_weight
            group_weight = wp.float32(0.0)
        if weight > 0.0:
            group = add_weighted(group, group_weight, point, weight)
            group_weight += weight

    if backdrop.is_transparent:
        image[row, column] = pack(picture / wp.max(coverage, 1.0e-6), coverage, encode)
    else:
        if coverage < 0.999:
            behind = backdrop_at(backdrop, eye, ray, view.to_studio, v)
            picture = picture + behind * (1.0 - coverage)
        image[row, column] = pack(picture, 1.0, encode)
