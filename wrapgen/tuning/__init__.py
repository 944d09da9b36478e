"""Measured configurations of kernels: the lock that records them, and the tuner that measures.

Nothing here imports more than Python's standard library: the tuner runs where the GPU is, which
need not be where models are built.
"""
