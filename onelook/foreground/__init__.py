"""Decode a picture safely, cut its subject out, centre it."""
