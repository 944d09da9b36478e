"""The models of this repository: seeded alike everywhere, and what they say they are."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from models import (
    bert,
    causal,
    convnext,
    dlrm,
    gpt2,
    kv_cache,
    llama,
    lstm,
    mobilenet,
    seeded,
    segformer,
    swin,
    t5,
    unet,
    vit,
    whisper,
)

FAMILIES = [
    (bert, {"sequence": 16}),
    (gpt2, {"sequence": 8, "length": 16}),
    (gpt2, {"decode": True, "sequence": 8, "length": 16}),
    (llama, {"sequence": 8, "length": 16}),
    (llama, {"decode": True, "sequence": 8, "length": 16}),
    (vit, {}),
    (swin, {}),
    (convnext, {}),
    (mobilenet, {}),
    (t5, {"sequence": 8, "target": 4}),
    (whisper, {}),
    (segformer, {}),
    (unet, {}),
    (lstm, {"sequence": 4}),
    (dlrm, {"batch": 4}),
]


def leaves(tree: Any) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(tree)


def test_numbers_are_fixed() -> None:
    """A digest of bits: the numbers are the same on every machine and with every PyTorch."""
    digest = hashlib.sha256()
    for tensor in (seeded.uniform("a", (5, 7)), seeded.noise("b", (3,)), seeded.images("c", 1, 30)):
        digest.update(tensor.numpy().tobytes())
    digest.update(seeded.integers("d", (9,), 1000).numpy().tobytes())
    assert digest.hexdigest() == "91a1bf1a2f0569db06a94eba263271ebc635b5521453eb2e9290b270aa206466"


def test_a_weight_depends_on_its_name_alone() -> None:
    first, second = lstm.build("small"), lstm.build("small")
    second.head = torch.nn.Linear(64, 7)
    seeded.fill(second)
    assert torch.equal(first.lstm.weight_ih_l0, second.lstm.weight_ih_l0)


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_half_precision_holds_it(family: Any, options: dict[str, Any]) -> None:
    """The input has its say, and rounding to the dtype changes little."""
    build = {"decode": True} if "decode" in options else {}
    results = []
    for seed, dtype in ((0, "float32"), (0, "float16"), (1, "float32")):
        model = seeded.cast(family.build("small", **build), dtype)
        inputs = seeded.cast(family.example_inputs("small", **options, seed=seed), dtype)
        with torch.no_grad():
            results.append(torch.cat([x.flatten().float() for x in leaves(model(**inputs))]))
    exact, rounded, other = results
    assert bool(exact.isfinite().all())
    assert (rounded - exact).norm() / exact.norm() < 0.02
    assert (other - exact).norm() / exact.norm() > 0.05


@pytest.mark.parametrize("family", [gpt2, llama])
def test_prefill_and_decoding_are_the_whole_sequence(family: Any) -> None:
    """Five tokens at once and four one by one give what transformers gives for all nine."""
    prefill, decode = family.build("small"), family.build("small", decode=True)
    assert isinstance(prefill, causal.Prefill)
    assert isinstance(decode, causal.Decode)
    inputs = family.example_inputs("small", batch=2, sequence=5, length=12)
    tokens = torch.cat([inputs["input_ids"], seeded.integers("more", (2, 4), 1000)], dim=1)
    with torch.no_grad():
        expected = prefill.model(tokens, use_cache=False).logits
        cache: kv_cache.Tensors = inputs["cache"]
        got = [prefill(tokens[:, :5], cache)]
        got += [decode(tokens[:, i : i + 1], torch.tensor(i), cache) for i in range(5, 9)]
    torch.testing.assert_close(torch.stack(got, dim=1), expected[:, 4:], atol=1e-4, rtol=1e-4)
    assert all(int(t[:, :, 9:].count_nonzero()) == 0 for t in leaves(cache))


def test_rotary_frequencies_stay_in_float32() -> None:
    model = seeded.cast(llama.build("small"), "bfloat16")
    assert model.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert model.model.model.embed_tokens.weight.dtype == torch.bfloat16


def test_sizes_are_those_people_know() -> None:
    """In millions of parameters, as their model cards say."""
    with torch.device("meta"):
        built = {
            "bert": bert.Bert(bert.BertConfig()),
            "gpt2": gpt2.GPT2LMHeadModel(gpt2.GPT2Config()),
            "llama": llama.LlamaForCausalLM(llama.LlamaConfig(**llama.SIZES["base"])),
            "vit": vit.Vit(vit.config("base")),
            "swin": swin.Swin(swin.config("base")),
            "convnext": convnext.ConvNext(convnext.config("base")),
            "t5": t5.T5(t5.config("base")),
        }
    millions = {
        name: round(sum(p.numel() for p in model.parameters()) / 1e6)
        for name, model in built.items()
    }
    assert millions == {
        "bert": 109,
        "gpt2": 124,
        "llama": 362,
        "vit": 87,
        "swin": 28,
        "convnext": 29,
        "t5": 223,
    }
