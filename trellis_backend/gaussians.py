"""A cloud of Gaussians: what is stored, and what it means.

N Gaussians. Object space of TRELLIS: z up, inside the cube -0.5..0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SH_C0 = 0.28209479177387814  # of the constant spherical harmonic: 1 / (2 sqrt(pi))


@dataclass(frozen=True)
class Activation:
    """From stored values to scale and opacity.

    filter_kernel_size: least width of a Gaussian, object units. scaling_bias, opacity_bias: what a
    stored zero stands for. scaling: softplus or exp.
    """

    filter_kernel_size: float
    scaling_bias: float
    opacity_bias: float
    scaling: str = "softplus"


@dataclass(frozen=True)
class Gaussians:
    """raw_xyz (N, 3) in the unit cube 0..1; raw_features_dc (N, 1, 3); raw_scaling (N, 3);
    raw_rotation (N, 4); raw_opacity (N, 1): float32 as a decoder gives them."""

    raw_xyz: Tensor
    raw_features_dc: Tensor
    raw_scaling: Tensor
    raw_rotation: Tensor
    raw_opacity: Tensor
    activation: Activation

    @property
    def xyz(self) -> Tensor:
        """(N, 3) centres in object space."""
        return self.raw_xyz - 0.5

    @property
    def colors(self) -> Tensor:
        """(N, 3) sRGB, from 0; may exceed 1."""
        return (0.5 + SH_C0 * self.raw_features_dc[:, 0]).clamp_min(0)

    @property
    def scaling(self) -> Tensor:
        """(N, 3) standard deviations along the axes, object units."""
        bias = self.activation.scaling_bias
        if self.activation.scaling == "exp":
            scale = (self.raw_scaling + math.log(bias)).exp()
        else:
            scale = F.softplus(self.raw_scaling + bias + math.log(-math.expm1(-bias)))
        return (scale.square() + self.activation.filter_kernel_size**2).sqrt()

    @property
    def quaternions(self) -> Tensor:
        """(N, 4) rotations as stored in a file: w, x, y, z, not of unit length."""
        return self.raw_rotation + self.raw_rotation.new_tensor([1.0, 0.0, 0.0, 0.0])

    @property
    def rotation(self) -> Tensor:
        """(N, 4) unit quaternions w, x, y, z."""
        return F.normalize(self.quaternions, dim=-1)

    @property
    def opacity(self) -> Tensor:
        """(N, 1) 0..1."""
        bias = self.activation.opacity_bias
        return torch.sigmoid(self.raw_opacity + math.log(bias / (1 - bias)))
