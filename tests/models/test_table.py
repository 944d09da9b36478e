"""docs/models.md says what the data says."""

from __future__ import annotations

from bench import table, zoo


def test_the_page_is_rendered_from_the_data() -> None:
    page = table.PAGE.read_text()
    assert page == table.render(page), "run `python -m bench.table`"


def test_every_model_is_on_it() -> None:
    page = table.PAGE.read_text()
    families = {name.partition("_")[0] for name in zoo.catalog("base")}
    assert len(families) == 14
    assert all(f"`{family}" in page for family in families)


def test_dtypes_of_entry_points() -> None:
    """The catalogue reads arguments only: it must know what an entry point does without one."""
    for name, model in zoo.catalog("small").items():
        if name in ("resnet_fp32", "resnet_bf16", "llama_decode", "t5", "bert"):
            wanted = {"resnet_fp32": "float32", "bert": "float16"}.get(name, "bfloat16")
            assert model.dtype == wanted
