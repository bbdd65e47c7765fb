"""Errors that a caller may act on. Each message is one sentence for the person who reads it.

It names the input, what came, what was expected and what to do next; it never holds a path of the
machine, because the doors show it to strangers.
"""


class OnelookError(Exception):
    """Base of the project's named errors."""


class PictureError(OnelookError, ValueError):
    """The picture cannot be used: not an image, truncated, too large, too small, too elongated."""


class ForegroundError(OnelookError, ValueError):
    """The picture is fine, but no subject was found in it."""


class OptionError(OnelookError, ValueError):
    """An option is unknown, misspelt, of the wrong type or out of range."""


class SurfaceError(OnelookError, ValueError):
    """Triangles that cannot be turned into an asset, such as an empty or all-degenerate mesh."""


class OutputError(OnelookError):
    """The output folder is not writable or its disk is full."""


class WeightsError(OnelookError):
    """A checkpoint is missing, incomplete, of another variant, or not allowed."""


class DeviceMemoryError(OnelookError):
    """The GPU has too little memory for a model, however little of it is kept there at a time."""


class GenerationError(OnelookError):
    """What a network made cannot be used: empty, not finite or too large; another seed may do."""
