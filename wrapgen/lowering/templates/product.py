"""Triton source of the matrix-product templates, in the language of Inductor's templates (jinja).

Both templates compute ``out[m, n] = sum over k of a[m, k] * b[k, n]`` with one program a tile of
``BLOCK_M`` x ``BLOCK_N``, in steps of ``BLOCK_K`` along k. They differ in where ``a`` comes from:

- ``MATMUL``: ``A`` is a matrix.
- ``CONVOLUTION``: ``X`` is an image of shape [batch, channels, height, width], or with a depth
  before the height, whose channels are contiguous in memory; row m of ``a`` is an output position,
  column k a kernel position (tap) and an input channel. No such matrix is ever stored. With
  ``GROUPS`` > 1 there is such a product for each group, of its own channels.

Sizes that are known only at run time (m, and the image's extents) are no constants: the kernel
takes them from its arguments.

With ``SPLIT_K`` > 1 the steps are divided among that many programs a tile, and the result is the
float32 partial sums, shape [SPLIT_K, m, n], which an ordinary kernel adds up in a fixed order: no
atomics, so the same bits on every run.

Loads are never masked along m and n: rows and columns past the end are wrapped round to valid ones,
and only the final store is masked. Along k, loads are masked only where BLOCK_K does not divide.
"""

from __future__ import annotations

from typing import Final

_TILE: Final = """
{% set constant = ": tl.constexpr" if M is defined else "" %}
    # Programs that run at the same time share rows and columns: tiles are taken in groups of
    # GROUP_M rows, so that what they read stays in the L2 cache.
    TILES_M{{constant}} = (M + BLOCK_M - 1) // BLOCK_M
    TILES_N: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    width = GROUP_M * TILES_N
    group = pid // width
    group_size = min(TILES_M - group * GROUP_M, GROUP_M)
    pid_m = group * GROUP_M + (pid % width) % group_size
    pid_n = (pid % width) // group_size

    rm = pid_m.to(INDEX_DTYPE) * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n.to(INDEX_DTYPE) * BLOCK_N + tl.arange(0, BLOCK_N)
    rk = tl.arange(0, BLOCK_K).to(INDEX_DTYPE)
{% if EVEN_M %}
    am = rm
{% else %}
    am = rm % M
{% endif %}
{% if EVEN_N %}
    bn = rn
{% else %}
    bn = rn % N
{% endif %}
"""

_STEPS: Final = """
{% if SPLIT_K > 1 %}
    pid_k = tl.program_id(1)
    first = pid_k * STEPS_PER_SPLIT
{% if EVEN_SPLIT %}
    last = first + STEPS_PER_SPLIT
{% else %}
    last = min(first + STEPS_PER_SPLIT, STEPS)
{% endif %}
{% else %}
    first = 0
    last = STEPS
{% endif %}
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC_TYPE)
"""

_STORE: Final = """
    rm = pid_m.to(INDEX_DTYPE) * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n.to(INDEX_DTYPE) * BLOCK_N + tl.arange(0, BLOCK_N)
    idx_m = rm[:, None]
    idx_n = rn[None, :]
    mask = (idx_m < M) & (idx_n < N)
{% if GROUPS > 1 %}
    idx_n += pid_g * N
{% endif %}
{% if SPLIT_K > 1 %}
    idx_k = tl.full((BLOCK_M, BLOCK_N), 0, INDEX_DTYPE) + pid_k
    {{store_output(("idx_k", "idx_m", "idx_n"), "acc", "mask", val_shape=("BLOCK_M", "BLOCK_N"))}}
{% else %}
    {{store_output(("idx_m", "idx_n"), "acc", "mask", val_shape=("BLOCK_M", "BLOCK_N"))}}
{% endif %}
"""

MATMUL: Final = (
    """
{{def_kernel("A", "B")}}
{% set GROUPS = 1 %}
{% if M is not defined %}
    M = {{size("A", 0)}}
{% endif %}
    STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    STEPS_PER_SPLIT: tl.constexpr = (STEPS + SPLIT_K - 1) // SPLIT_K
"""
    + _TILE
    + """
    a_rows = A + am[:, None] * ({{stride("A", 0)}})
    b_cols = B + bn[None, :] * ({{stride("B", 1)}})
"""
    + _STEPS
    + """
    for step in range(first, last):
        k = step * BLOCK_K + rk
{% if EVEN_K %}
        a = tl.load(a_rows + k[None, :] * ({{stride("A", 1)}}))
        b = tl.load(b_cols + k[:, None] * ({{stride("B", 0)}}))
{% else %}
        a = tl.load(a_rows + k[None, :] * ({{stride("A", 1)}}), mask=k[None, :] < K, other=0.0)
        b = tl.load(b_cols + k[:, None] * ({{stride("B", 0)}}), mask=k[:, None] < K, other=0.0)
{% endif %}
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
"""
    + _STORE
)

CONVOLUTION: Final = (
    """
{{def_kernel("X", "W")}}
    # W is the matrix [output channels, taps x channels a tap].
{% set volume = TAPS_D is defined %}
{% set axes = "DHW" if volume else "HW" %}
{% set taps = (TAPS_D if volume else 1) * TAPS_H * TAPS_W %}
{% if OUT_H is not defined %}
{% for axis in axes %}
    IN_{{axis}} = {{size("X", loop.index + 1)}}
    SPAN_{{axis}}: tl.constexpr = DILATION_{{axis}} * (TAPS_{{axis}} - 1) + 1
    OUT_{{axis}} = (IN_{{axis}} + 2 * PADDING_{{axis}} - SPAN_{{axis}}) // STRIDE_{{axis}} + 1
{% endfor %}
{% endif %}
{% set fixed = ": tl.constexpr" if OUT_H is defined else "" %}
    OUT_PIXELS{{fixed}} = {{"OUT_D * " if volume else ""}}OUT_H * OUT_W
{% if M is not defined %}
    M = ({{size("X", 0)}}) * OUT_PIXELS
{% endif %}
    STEPS_PER_TAP: tl.constexpr = (TAP_C + BLOCK_K - 1) // BLOCK_K
    STEPS: tl.constexpr = {{taps}} * STEPS_PER_TAP
    STEPS_PER_SPLIT: tl.constexpr = (STEPS + SPLIT_K - 1) // SPLIT_K
{% for axis in axes %}
{% set apart = stride("X", loop.index + 1) %}
    X_{{axis}}{{": tl.constexpr" if apart.isdigit() else ""}} = {{apart}}
{% endfor %}
"""
    + _TILE
    + """
{% if GROUPS > 1 %}
    pid_g = tl.program_id(2).to(INDEX_DTYPE)
    bn += pid_g * N
{% endif %}
    image = am // OUT_PIXELS
{% if volume %}
    in_d = (am // (OUT_H * OUT_W)) % OUT_D * STRIDE_D - PADDING_D
{% endif %}
    in_h = (am // OUT_W) % OUT_H * STRIDE_H - PADDING_H
    in_w = am % OUT_W * STRIDE_W - PADDING_W
    x_rows = image * ({{stride("X", 0)}}) + in_h * X_H + in_w * X_W
{% if volume %}
    x_rows += in_d * X_D
{% endif %}
{% if GROUPS > 1 %}
    x_rows += pid_g * TAP_C
{% endif %}
    w_cols = W + bn[None, :] * ({{stride("W", 0)}})
{% if PADDED and KEEP_BITS %}

    # Bit t of a row: whether tap t of that output position lies inside the image.
    inside = tl.zeros((BLOCK_M,), dtype=BITS)
{% for d in range(TAPS_D if volume else 1) %}
{% if volume %}
    d_inside = (in_d + {{d * DILATION_D}} >= 0) & (in_d + {{d * DILATION_D}} < IN_D)
{% endif %}
{% for i in range(TAPS_H) %}
    h_inside = (in_h + {{i * DILATION_H}} >= 0) & (in_h + {{i * DILATION_H}} < IN_H)
{% if volume %}
    h_inside &= d_inside
{% endif %}
{% for j in range(TAPS_W) %}
    w_inside = (in_w + {{j * DILATION_W}} >= 0) & (in_w + {{j * DILATION_W}} < IN_W)
    inside |= (h_inside & w_inside).to(BITS) << {{(d * TAPS_H + i) * TAPS_W + j}}
{% endfor %}
{% endfor %}
{% endfor %}
{% endif %}
"""
    + _STEPS
    + """
    for step in range(first, last):
{% if taps == 1 %}
        c = step * BLOCK_K
        x_offsets = x_rows[:, None] + (c + rk)[None, :]
        w_offsets = c + rk
{% else %}
        tap = step // STEPS_PER_TAP
        c = step % STEPS_PER_TAP * BLOCK_K
{% if volume %}
        tap_start = tap // TAPS_W % TAPS_H * (DILATION_H * X_H) + tap % TAPS_W * (DILATION_W * X_W)
        tap_start += tap // (TAPS_H * TAPS_W) * (DILATION_D * X_D)
{% else %}
        tap_start = tap // TAPS_W * (DILATION_H * X_H) + tap % TAPS_W * (DILATION_W * X_W)
{% endif %}
        x_offsets = x_rows[:, None] + (tap_start + c + rk)[None, :]
        w_offsets = {{"step * BLOCK_K" if EVEN_K else "tap * TAP_C + c"}} + rk
{% endif %}
{% if PADDED and taps == 1 %}
        tap = 0
{% endif %}
{% if PADDED and KEEP_BITS %}
        taken = ((inside >> tap) & 1)[:, None] != 0
{% elif PADDED %}
        at_h = in_h + tap // TAPS_W % TAPS_H * DILATION_H
        at_w = in_w + tap % TAPS_W * DILATION_W
        taken = (at_h >= 0) & (at_h < IN_H) & (at_w >= 0) & (at_w < IN_W)
{% if volume %}
        at_d = in_d + tap // (TAPS_H * TAPS_W) * DILATION_D
        taken &= (at_d >= 0) & (at_d < IN_D)
{% endif %}
        taken = taken[:, None]
{% endif %}
{% if PADDED and EVEN_K %}
        x = tl.load(X + x_offsets, mask=taken, other=0.0)
{% elif PADDED %}
        x_mask = taken & ((c + rk)[None, :] < TAP_C)
        x = tl.load(X + x_offsets, mask=x_mask, other=0.0)
{% elif EVEN_K %}
        x = tl.load(X + x_offsets)
{% else %}
        x = tl.load(X + x_offsets, mask=(c + rk)[None, :] < TAP_C, other=0.0)
{% endif %}
{% if EVEN_K %}
        w = tl.load(w_cols + w_offsets[:, None])
{% else %}
        w = tl.load(w_cols + w_offsets[:, None], mask=(c + rk)[:, None] < TAP_C, other=0.0)
{% endif %}
        acc = tl.dot(x, w, acc, input_precision=PRECISION)
"""
    + _STORE
)
