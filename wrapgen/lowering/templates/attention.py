"""Triton source of the attention template, in the language of Inductor's templates (jinja).

``out[b, h, i] = sum over j of softmax_j(scale * q[b, h, i] . k[b, h, j] + mask[b, h, i, j]) v[b, h,
j]`` without the scores ever being in memory: a program has ``BLOCK_M`` rows of q and goes along the
keys in steps of ``BLOCK_N``, with the maximum and the sum of the exponentials so far (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018; Dao, "FlashAttention-2", 2023).

Few rows and many keys (decoding) would leave most of the device idle, so the keys may be divided
among ``SPLIT`` programs (Dao et al., "Flash-Decoding for long-context inference", 2023). The result
is then float32 [SPLIT, batch, heads, rows, DV + 4]: each part's sums, and in columns DV and DV + 1
its maximum and the sum of its exponentials, by which an ordinary kernel weighs the parts, in order:
the same bits on every run. (Their logarithm would do in one column, but for rows whose mask is the
smallest finite float32 everywhere: added to that it is lost.)

Heads of k and v may be fewer than those of q (``GROUP`` of q's to one). With ``PACK`` = ``GROUP``
the rows of a group are rows of one tile, so that k and v are read once for all of them.

Head dimensions need not be powers of two, which tiles must be: D is D1 + D2 columns, of which the
second part may be missing or partly empty, so that 72 or 80 take 64 + 16 and not 128; DV likewise.

Exponentials are powers of two. Without an additive mask log2(e) is part of the scale, and scale and
difference from the maximum are one multiply-add (``FOLD``). With one, scores are kept as they are
and ``EXPONENT``, log2(e), is applied to differences: a mask of the smallest finite float32 would
overflow if it were multiplied.

q, k and v have any strides; rows past the end are masked, along keys only in the last steps.
"""

from __future__ import annotations

from typing import Final

_MACROS: Final = """
{# A tile of x (Q, K or V), [rows, columns] or turned round; none of what is past the end. #}
{% macro read(x, rows, columns, whole_rows, whole_columns, turned=False) %}
{%- set r, c = ("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]") -%}
{%- set end = "LQ" if x == "Q" else "LK" -%}
{%- set width = "DV" if x == "V" else "D" -%}
{%- set limits = (["(%s < %s)%s" % (rows, end, r)] if not whole_rows else [])
    + (["(%s < %s)%s" % (columns, width, c)] if not whole_columns else []) -%}
{%- set at = "(%s * (%s))%s + (%s * (%s))%s"
    % (rows, stride(x, 2), r, columns, stride(x, 3), c) -%}
tl.load({{x.lower()}}_base + {{at}}
{%- if limits %}, mask={{limits | join(" & ")}}, other=0.0{% endif %})
{%- endmacro %}
{# A step along the keys; ``edge``: it may reach past the last key, or past a row's own. #}
{% macro step(edge) %}
{% set whole = EVEN_N or not edge %}
        n = block * BLOCK_N + rn
        k = {{read("K", "n", "rd", whole, EVEN_D1, True)}}
        s = tl.dot(q, k, input_precision=PRECISION)
{% if D2 %}
        k2 = {{read("K", "n", "rd2", whole, EVEN_D2, True)}}
        s = tl.dot(q2, k2, s, input_precision=PRECISION)
{% endif %}
{% if not FOLD %}
        s *= SCALE
{% endif %}
{% if MASKED %}
{% set limits = (["(rm < LQ)[:, None]"] if not MASK_ONE_M and not EVEN_M else [])
    + (["(n < LK)[None, :]"] if not whole else []) %}
        m = tl.load(mask_base + n[None, :] * ({{"0" if MASK_ONE_N else stride("MASK", 3)}})
{%- if limits %}, mask={{limits | join(" & ")}}, other=0{% endif %})
{% if MASK_ADDED %}
        s += m.to(tl.float32)
{% else %}
        s = tl.where(m != 0, s, float("-inf"))
{% endif %}
{% endif %}
{% if not whole %}
        s = tl.where((n < LK)[None, :], s, float("-inf"))
{% endif %}
{% if edge and CAUSAL %}
        s = tl.where(n[None, :] <= rm[:, None], s, float("-inf"))
{% endif %}
{% if FOLD %}
        top = tl.maximum(top_before, tl.max(s, 1) * SCALE)
{% else %}
        top = tl.maximum(top_before, tl.max(s, 1))
{% endif %}
{% if GUARD %}
        # Nothing but -inf so far: any finite number will do to subtract.
        shift = tl.where(top == float("-inf"), 0.0, top)
{% else %}
        shift = top
{% endif %}
{% if FOLD %}
        p = tl.exp2(s * SCALE - shift[:, None])
        shrink = tl.exp2(top_before - shift)
{% else %}
        p = tl.exp2((s - shift[:, None]) * EXPONENT)
        shrink = tl.exp2((top_before - shift) * EXPONENT)
{% endif %}
        total = total * shrink + tl.sum(p, 1)
        acc *= shrink[:, None]
        v = {{read("V", "n", "rv", whole, EVEN_DV1)}}
        p = p.to(v.dtype)
        acc = tl.dot(p, v, acc, input_precision=PRECISION)
{% if DV2 %}
        acc2 *= shrink[:, None]
        v2 = {{read("V", "n", "rv2", whole, EVEN_DV2)}}
        acc2 = tl.dot(p, v2, acc2, input_precision=PRECISION)
{% endif %}
        top_before = top
{% endmacro %}
{% macro store(column, value, inside, width) %}
{%- set at = (("idx_s",) if SPLIT > 1 else ()) + ("idx_b", "idx_h", "idx_m", column) -%}
{{store_output(at, value, inside, val_shape=("BLOCK_M", width))}}
{%- endmacro %}
"""

ATTENTION: Final = (
    _MACROS
    + """
{% if MASKED %}
{{def_kernel("Q", "K", "V", "MASK")}}
{% else %}
{{def_kernel("Q", "K", "V")}}
{% endif %}
    LQ = {{size("Q", 2)}}
    LK = {{size("K", 2)}}
    TILES = (LQ * PACK + BLOCK_M - 1) // BLOCK_M
    PACKS = {{size("Q", 1)}} // PACK
    pid = tl.program_id(0).to(INDEX_DTYPE)
{% if CAUSAL %}
    # Programs start in order, and the later a row, the more keys it sees: long ones first.
    packs = ({{size("Q", 0)}}) * PACKS
    tile = TILES - 1 - pid // packs
    pack = pid % packs
{% else %}
    tile = pid % TILES
    pack = pid // TILES
{% endif %}
    b = pack // PACKS
    pack = pack % PACKS

    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
{% if PACK > 1 %}
    rm = rows // PACK
    head = pack * PACK + rows % PACK
    head_kv = pack
{% else %}
    rm = rows
    head = pack
    head_kv = pack // GROUP
{% endif %}
    rn = tl.arange(0, BLOCK_N).to(INDEX_DTYPE)
    rd = tl.arange(0, D1).to(INDEX_DTYPE)
    rv = tl.arange(0, DV1).to(INDEX_DTYPE)
{% if D2 %}
    rd2 = D1 + tl.arange(0, D2).to(INDEX_DTYPE)
{% endif %}
{% if DV2 %}
    rv2 = DV1 + tl.arange(0, DV2).to(INDEX_DTYPE)
{% endif %}

{% if PACK > 1 %}
    q_base = (Q + b * ({{stride("Q", 0)}}) + head * ({{stride("Q", 1)}}))[:, None]
{% else %}
    q_base = Q + b * ({{stride("Q", 0)}}) + head * ({{stride("Q", 1)}})
{% endif %}
    k_base = K + b * ({{stride("K", 0)}}) + head_kv * ({{stride("K", 1)}})
    v_base = V + b * ({{stride("V", 0)}}) + head_kv * ({{stride("V", 1)}})
{% if MASKED %}
    mask_base = MASK
{% if not MASK_ONE_B %}
    mask_base += b * ({{stride("MASK", 0)}})
{% endif %}
{% if not MASK_ONE_H and PACK > 1 %}
    mask_base += (head * ({{stride("MASK", 1)}}))[:, None]
{% elif not MASK_ONE_H %}
    mask_base += head * ({{stride("MASK", 1)}})
{% endif %}
{% if not MASK_ONE_M %}
    mask_base += (rm * ({{stride("MASK", 2)}}))[:, None]
{% endif %}
{% endif %}
    q = {{read("Q", "rm", "rd", EVEN_M, EVEN_D1)}}
{% if D2 %}
    q2 = {{read("Q", "rm", "rd2", EVEN_M, EVEN_D2)}}
{% endif %}

    # Steps up to ``full`` need no mask of our own.
    first = 0
    last = (LK + BLOCK_N - 1) // BLOCK_N
    full = LK // BLOCK_N
{% if CAUSAL %}
    last = tl.minimum(last, (tile * BLOCK_M + BLOCK_M - 1) // PACK // BLOCK_N + 1)
    full = tl.minimum(full, (tile * BLOCK_M // PACK + 1) // BLOCK_N)
{% endif %}
{% if SPLIT > 1 %}
    part = tl.program_id(1)
    each = (last + SPLIT - 1) // SPLIT
    first = part * each
    last = tl.minimum(last, first + each)
    full = tl.maximum(first, tl.minimum(full, last))
{% endif %}

    top_before = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_M, DV1), dtype=tl.float32)
{% if DV2 %}
    acc2 = tl.zeros((BLOCK_M, DV2), dtype=tl.float32)
{% endif %}
{% if INNER %}
    for block in range(first, full):
{{step(False)}}
{% endif %}
{% if EDGE %}
    for block in range({{"full" if INNER else "first"}}, last):
{{step(True)}}
{% endif %}

{% if SPLIT == 1 %}
{% if ZERO_ROWS %}
    # A row that sees no key is zero.
    factor = tl.where(total == 0.0, 0.0, 1.0 / total)
{% else %}
    factor = 1.0 / total
{% endif %}
    acc *= factor[:, None]
{% if DV2 %}
    acc2 *= factor[:, None]
{% endif %}
{% endif %}
    idx_b = tl.full((BLOCK_M, 1), 0, INDEX_DTYPE) + b
    idx_h = tl.full((BLOCK_M, 1), 0, INDEX_DTYPE) + {{"head[:, None]" if PACK > 1 else "head"}}
    idx_m = rm[:, None]
    idx_d = rv[None, :]
    inside = (idx_m < LQ) & (idx_d < DV)
{% if SPLIT > 1 %}
    idx_s = tl.full((BLOCK_M, 1), 0, INDEX_DTYPE) + part
{% endif %}
    {{store("idx_d", "acc", "inside", "DV1")}}
{% if DV2 %}
    idx_d2 = rv2[None, :]
    inside2 = (idx_m < LQ) & (idx_d2 < DV)
    {{store("idx_d2", "acc2", "inside2", "DV2")}}
{% endif %}
{% if SPLIT > 1 %}
    inside_row = idx_m < LQ
    idx_top = tl.full((BLOCK_M, 1), DV, INDEX_DTYPE)
    top_column = top_before[:, None]
    {{store("idx_top", "top_column", "inside_row", "1")}}
    idx_total = idx_top + 1
    total_column = total[:, None]
    {{store("idx_total", "total_column", "inside_row", "1")}}
{% endif %}
"""
)
