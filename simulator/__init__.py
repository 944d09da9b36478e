"""A GPU on host memory: a libcuda.so.1, and what executes kernels behind it."""
