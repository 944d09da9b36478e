"""The generator: programs and compiled kernels in, a C++ model out.

Imports neither torch nor triton.
"""

from wrapgen.codegen.errors import CodegenError

__all__ = ["CodegenError"]
