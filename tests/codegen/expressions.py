"""Random size expressions of every kind, for tests of what is made of them."""

from __future__ import annotations

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

SYMBOLS = ("s0", "s1", "s2")

LEAVES = st.one_of(
    st.sampled_from(SYMBOLS),
    st.integers(0, 1 << 33).map(str),
    st.integers(0, 64).map(str),
    st.sampled_from([str((1 << 63) - 1), f"(-{1 << 63})"]),
)

COMPARISONS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def _conditions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    compared = st.builds(lambda a, op, b: f"{a} {op} {b}", inner, COMPARISONS, inner)
    return st.one_of(
        compared,
        compared,
        st.builds(lambda a: f"not {a}", compared),
        st.builds(lambda a, b, c: f"{a} and {b} and {c}", compared, compared, compared),
        st.builds(lambda a, b, c: f"({a} or {b}) and not {c}", compared, compared, compared),
        st.builds(lambda a, b, c: f"{a} and {b} or {c}", compared, compared, compared),
    )


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^"])
    count = st.one_of(st.integers(0, 5).map(str), inner)
    return st.one_of(
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, binary, inner),
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(["//", "%"]), inner),
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(["<<", ">>"]), count),
        st.builds(lambda sign, a: f"{sign}({a})", st.sampled_from(["-", "~"]), inner),
        st.builds(lambda a, n: f"({a}) ** ({n})", inner, count),
        st.builds(lambda a: f"abs({a})", inner),
        st.builds(lambda f, a, b: f"{f}({a}, {b})", st.sampled_from(["min", "max"]), inner, inner),
        st.builds(lambda a, b, c: f"min({a}, {b}, {c})", inner, inner, inner),
        st.builds(lambda a, c, b: f"({a} if {c} else {b})", inner, _conditions(inner), inner),
        st.builds(lambda a, b: f"({a} // {b} if {b} != 0 else 0)", inner, inner),
    )


EXPRESSIONS = st.recursive(LEAVES, _extend, max_leaves=10)


def collect_expressions(count: int) -> list[str]:
    """The first ``count`` expressions that hypothesis makes from a fixed seed."""
    found: dict[str, None] = {}

    @hypothesis.seed(20)
    @hypothesis.settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @given(EXPRESSIONS)
    def collect(text: str) -> None:
        found[text] = None

    collect()
    return list(found)[:count]
