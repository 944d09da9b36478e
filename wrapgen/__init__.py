"""wrapgen: turns a PyTorch model export into cubins and a generated C++ model."""
