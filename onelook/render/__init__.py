"""Rasterise, shade and film an asset."""
