"""What the generator raises."""

from __future__ import annotations


class CodegenError(ValueError):
    """Input the generator cannot make code of. The message names the place, what was expected and
    what came."""
