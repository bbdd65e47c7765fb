"""Surfaces of fields, worked out only where the surface is."""
