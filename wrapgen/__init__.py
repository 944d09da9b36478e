"""wrapgen: turns a PyTorch model export into cubins and a generated C++ model."""

__version__ = "0.1.0"
