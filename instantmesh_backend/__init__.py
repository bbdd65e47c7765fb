"""InstantMesh: six views of one picture by Zero123++, and a mesh from the six views."""
