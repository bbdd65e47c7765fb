"""TripoSR: one picture to a triplane in a single pass (Tochilkin et al. 2024)."""
