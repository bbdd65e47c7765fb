"""TRELLIS.2: one picture -> a textured PBR mesh, through sparse structured latents."""
