"""What a kernel does with the memory behind its parameters."""

from __future__ import annotations

import textwrap

from wrapgen.lowering.kernel import _loaded


def loaded(body: str) -> set[str]:
    source = "def kernel(in_ptr0, out_ptr0, xnumel):\n" + textwrap.indent(body, "    ")
    return set(_loaded(source, ["in_ptr0", "out_ptr0", "xnumel"]))


def test_an_output_of_several_passes_is_not_read() -> None:
    """SegFormer's last layer norm: the kernel loads again what it stored itself."""
    assert loaded(
        "for offset in range(2):\n"
        "    tl.store(out_ptr0 + offset, tl.load(in_ptr0 + offset))\n"
        "for offset in range(2):\n"
        "    tmp = tl.load(out_ptr0 + offset)\n"
    ) == {"in_ptr0"}


def test_an_update_in_place_is() -> None:
    assert "out_ptr0" in loaded("tl.store(out_ptr0 + 1, tl.load(out_ptr0 + 1) + 1)\n")
    assert "out_ptr0" in loaded("tl.atomic_add(out_ptr0 + 1, 1.0)\ntl.store(out_ptr0, 2.0)\n")
