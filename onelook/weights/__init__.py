"""Checkpoints: what there is, where it lies, how to fetch and verify it, how to open it.

Nothing here is imported before it is needed: the parts that list and locate use the standard
library alone, `pull` needs huggingface_hub, `opening` and `pickles` need torch and safetensors.
"""
