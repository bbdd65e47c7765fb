"""Residency carries torch's tensors: without torch there is nothing to test but its arithmetic."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["test_residency.py", "test_image.py"]
