"""The example model: ResNet-50 v1.5, torchvision's keys, numbers that half precision holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import resnet


@pytest.fixture(scope="module")
def model() -> resnet.ResNet50:
    return resnet.build()


def test_keys_and_sizes(model: resnet.ResNet50) -> None:
    state = model.state_dict()
    assert len(state) == 320
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "bn1.num_batches_tracked": (),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.weight": (256,),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.bias": (2048,),
        "fc.weight": (1000, 2048),
        "fc.bias": (1000,),
    }
    for name, shape in shapes.items():
        assert tuple(state[name].shape) == shape


def test_stride_is_in_the_3x3_convolution(model: resnet.ResNet50) -> None:
    for stage in (model.layer2, model.layer3, model.layer4):
        block = stage[0]
        assert isinstance(block, resnet.Bottleneck)
        assert block.conv1.stride == (1, 1)
        assert block.conv2.stride == (2, 2)


def test_weights_are_fixed(model: resnet.ResNet50) -> None:
    """A digest of bits: the numbers are the same on every machine and with every PyTorch."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    assert digest.hexdigest() == "ad1aca4189d2cfca4c07d262f8c71408549870f7dacba11f8a94ed71e1703230"


def test_every_channel_of_batch_norm_differs(model: resnet.ResNet50) -> None:
    for name, value in model.state_dict().items():
        if ".bn" in name and value.dim() == 1:
            assert value.unique().numel() > value.numel() * 0.99, name


def test_half_precision_holds_it(model: resnet.ResNet50) -> None:
    peaks = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, out: peaks.append(out.abs().max()))
        for module in model.modules()
    ]
    x = resnet.example_input(2)
    with torch.no_grad():
        exact = model(x)
        half = resnet.build().half()(x.half()).float()
    for hook in hooks:
        hook.remove()
    assert max(peaks) < 1000, "float16 ends at 65504"
    assert exact.std() > 0.5
    assert (half - exact).norm() / exact.norm() < 5e-3
    assert (exact[0] - exact[1]).norm() / exact[0].norm() > 0.02, "the input has its say"


def test_weights_file(tmp_path: Path, model: resnet.ResNet50) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["fc.bias"] += 1
    save_file(state, tmp_path / "w.safetensors")
    loaded = resnet.build(weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(loaded.fc.bias, model.fc.bias + 1)
    del state["layer2.0.conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(RuntimeError, match=r"layer2\.0\.conv1\.weight"):
        resnet.build(weights=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("batch", [1, 3])
def test_export(batch: int) -> None:
    program = resnet.export(batch=batch)
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    [user_input] = program.graph_signature.user_inputs
    [user_output] = program.graph_signature.user_outputs
    assert values[user_input].shape == (batch, 3, 224, 224)
    assert values[user_input].dtype == torch.float16
    assert values[user_input].is_contiguous()
    assert values[user_output].shape == (batch, 1000)
    assert values[user_output].dtype == torch.float16
