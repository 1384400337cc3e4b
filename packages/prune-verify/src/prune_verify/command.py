"""`prune verify`: check the certificate of a small model."""

from typing import Annotated

import typer

__all__ = ["command"]


def command(
    original: Annotated[str, typer.Argument(help="The masked model, as a safetensors file.")],
    small: Annotated[str, typer.Argument(help="The small model, as a safetensors file.")],
    certificate: Annotated[str, typer.Argument(help="The certificate, as JSON.")],
) -> None:
    """Check a certificate that a small model computes what the masked one does."""
    from prune_verify.__main__ import main  # which needs numpy

    if status := main([original, small, certificate]):
        raise typer.Exit(status)
