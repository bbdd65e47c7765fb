"""Turn the faces of a mesh the same way round, and outward.

Neighbours agree when they run along their common edge in opposite directions. Meshes from a dual
grid leave the direction to chance, so agreement is spread from face to face: first the patches that
already agree are found, then a tree over the patches says which to flip. Where a surface has only
one side (a Moebius band) some neighbours must go on disagreeing; the caller cuts there.

M faces, P pairs of half-edges on a common edge, S sheets (parts joined across pairs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from onelook.asset.pairing import is_balanced, straightest_pairs
from onelook.asset.topology import Edges, components, face_crosses, lengths

Array = np.ndarray

THIN_VOLUME = 0.01  # of area ** 1.5 (a sphere has 0.094); an open sheet with less has no inside


def agreeing(faces: Array, pairs: Array) -> Array:
    """(P,) bool: whether the two half-edges of each pair run in opposite directions."""
    tails = faces.ravel()
    return tails[pairs[:, 0]] != tails[pairs[:, 1]]


def flip_faces(faces: Array, edges: Edges, flip: Array) -> tuple[Array, Edges]:
    """Turn the faces round where `flip` (M,) is true; the very same objects if there are none.

    A face (a, b, c) becomes (a, c, b): its first and third half-edges change places.
    """
    if not flip.any():
        return faces, edges
    turned = np.where(flip[:, None], faces[:, [0, 2, 1]], faces)
    face, corner = np.divmod(edges.order, 3)
    order = np.where(flip[face], 3 * face + 2 - corner, edges.order)
    of_half = edges.of_half.reshape(-1, 3)
    of_half = np.where(flip[:, None], of_half[:, ::-1], of_half).ravel()
    return turned, replace(edges, order=order, of_half=of_half)


def flips_to_agree(faces: Array, pairs: Array) -> Array:
    """(M,) bool: faces to flip so that neighbours agree wherever the surface has two sides.

    Of the two ways to do that for a sheet, the one that flips fewer faces.
    """
    agree = agreeing(faces, pairs)
    if agree.all():
        return np.zeros(len(faces), bool)
    return _fewest_flips(pairs // 3, ~agree, len(faces))


def flips_across_crowded(
    vertices: Array, faces: Array, edges: Edges, sheet: Array, count: int
) -> Array:
    """(M,) bool: faces of sheets to flip so that sheets which meet at crowded edges agree.

    sheet (M,): the sheet of each face, 0 <= sheet < count; its faces agree already. Where
    directions balance at an edge, its sheets stay as they are to each other; elsewhere those that
    go straight on into each other must agree. Of claims that contradict each other, what most edges
    say wins.
    """
    crowded = edges.crowded()
    edge = edges.of_half[crowded].astype(np.int64)
    forward = faces.ravel()[crowded] == edges.ends[edge, 0]
    settled = crowded[is_balanced(edge, forward)]
    same_edge = edges.of_half[settled[1:]] == edges.of_half[settled[:-1]]
    stay = np.stack([settled[1:], settled[:-1]], 1)[same_edge]
    straight = straightest_pairs(vertices, faces, edges)
    disagree = ~agreeing(faces, straight)
    claims = np.concatenate([np.full(len(stay), -1), np.where(disagree, 1, -1)])  # > 0: flip one
    links = sheet[np.concatenate([stay, straight]) // 3]
    between = links[:, 0] != links[:, 1]
    pair, of_link = np.unique(np.sort(links[between], axis=1), axis=0, return_inverse=True)
    votes = np.bincount(of_link.ravel(), claims[between], len(pair))
    pair, votes = pair[votes != 0], votes[votes != 0]
    strongest = _strongest_tree(pair, np.abs(votes), count)
    sizes = np.bincount(sheet, minlength=count)
    return _fewest_flips(pair[strongest], votes[strongest] > 0, count, sizes)[sheet]


def _strongest_tree(links: Array, strength: Array, count: int) -> Array:
    """Which links (P, 2) of distinct nodes form the spanning forest of the greatest strength."""
    place = np.arange(1, len(links) + 1)
    cost = np.empty(len(links))
    cost[np.lexsort((place, -strength))] = place  # distinct, so that the forest is unique
    graph = coo_matrix((cost, (links[:, 0], links[:, 1])), shape=(count, count)).tocsr()
    return np.isin(cost, minimum_spanning_tree(graph).data)


def _fewest_flips(links: Array, differ: Array, count: int, sizes: Array | None = None) -> Array:
    """(count,) bool: which of `count` items to flip.

    Of two items joined by a link (P, 2), one is flipped where `differ` (P,) is true, and both or
    none elsewhere, as far as the links allow that. Of the two ways to flip items that hang
    together, the one that flips less, by `sizes` (count,).
    """
    patch_count, patch = components(links[~differ], count)
    between = patch[links[differ]]
    between = between[between[:, 0] != between[:, 1]]
    part_count, part = components(between, patch_count)
    flip = _two_colours(between, part, patch_count)[patch]
    part = part[patch]
    sizes = np.ones(count) if sizes is None else sizes
    balance = np.bincount(part, np.where(flip, sizes, -sizes), part_count)
    return flip ^ (balance > 0)[part]


def _two_colours(links: Array, part: Array, count: int) -> Array:
    """(count,) bool: colours of nodes such that links of a breadth-first tree join different ones.

    part (count,): the connected component of each node.
    """
    _, roots = np.unique(part, return_index=True)
    rows = np.concatenate([links[:, 0], np.full(len(roots), count)])  # node `count` is the root
    columns = np.concatenate([links[:, 1], roots])
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count + 1, count + 1))
    _, parent = breadth_first_order(graph.tocsr(), count, directed=False)
    parent[count] = count
    colour = parent != count  # of a node against its ancestor, which moves up by doubling
    ancestor = parent.copy()
    while (ancestor != count).any():
        colour = colour ^ colour[ancestor]
        ancestor = ancestor[ancestor]
    return colour[:count]


@dataclass(frozen=True)
class Sides:
    """Which sheets show their inside, by the sign of their volume: (S,) bool each.

    is_inside_out: flip them. is_undecided: open sheets too thin for the sign to mean anything.
    """

    is_inside_out: Array
    is_undecided: Array


def judge_sides(vertices: Array, faces: Array, sheet: Array, count: int, is_open: Array) -> Sides:
    """Tell from its volume whether each sheet faces outward.

    sheet (M,): the sheet of each face, 0 <= sheet < count; its faces agree already. is_open
    (count,): sheets with a border; their holes are closed by cones to the sheet's centre.
    """
    volume, area = sheet_volumes(vertices, faces, sheet, count)
    least = np.where(is_open, THIN_VOLUME * area**1.5, 0.0)
    return Sides(volume < -least, is_open & (np.abs(volume) <= least))


def sheet_volumes(vertices: Array, faces: Array, sheet: Array, count: int) -> tuple[Array, Array]:
    """Signed volume and area of each sheet, (S,) float64 each."""
    cross = face_crosses(vertices, faces)
    corner = vertices[faces[:, 0]] - vertices.mean(0)  # near zero, where float32 is finest
    area = np.bincount(sheet, lengths(cross), count) / 2
    total = np.stack([np.bincount(sheet, cross[:, k], count) for k in range(3)], 1)
    sizes = np.maximum(np.bincount(sheet, minlength=count), 1)
    middle = np.stack([np.bincount(sheet, corner[:, k], count) for k in range(3)], 1)
    middle /= sizes[:, None]
    heights = np.bincount(sheet, np.einsum("ij,ij->i", corner, cross), count)
    return (heights - np.einsum("ij,ij->i", middle, total)) / 6, area
