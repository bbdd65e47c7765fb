"""The arguments of every command that opens a model: where it runs, and with which checkpoint."""

from __future__ import annotations

import argparse


def add_setup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --device, --vram and --weights, as `Engine` takes them."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: auto)")
    parser.add_argument(
        "--vram", default="auto", metavar="GB", help="GPU memory networks may use (default: auto)"
    )
    parser.add_argument(
        "--weights",
        metavar="PLACE",
        help="folder or owner/repository with another checkpoint of the model, in its layout",
    )
