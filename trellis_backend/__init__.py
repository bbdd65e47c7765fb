"""TRELLIS: one picture -> sparse structure -> structured latent -> mesh and Gaussians."""
