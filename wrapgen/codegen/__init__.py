"""The generator: programs and compiled kernels in, a C++ model out.

Imports neither torch nor triton.
"""

from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.model import generate, wrap, wrap_files

__all__ = ["CodegenError", "generate", "wrap", "wrap_files"]
