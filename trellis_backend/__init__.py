"""TRELLIS: one picture, or several, or a text, to a 3D asset (Xiang et al. 2024)."""
