"""The embedded default: an inflated relief of the picture; needs no weights and no GPU."""
