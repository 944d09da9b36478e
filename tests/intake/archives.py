"""Archives for tests, honest and malicious, made without torch."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FLOAT32 = 7
ROOT = "model"
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"

Json = dict[str, Any]
TRACE = (
    'File "/home/someone/project/net.py", line 7, in forward\n    y = self.fc(x)\n'
    '  File "/opt/python/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 134, in '
    "forward\n    return F.linear(input, self.weight)"
)


def ints(numbers: Sequence[int]) -> list[Json]:
    return [{"as_int": number} for number in numbers]


def tensor_meta(
    sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    offset: int = 0,
    dtype: int = FLOAT32,
    device: str = "cpu",
    index: int | None = None,
) -> Json:
    if strides is None:
        strides = [int(np.prod(sizes[i + 1 :], dtype=int)) for i in range(len(sizes))]
    return {
        "dtype": dtype,
        "sizes": ints(sizes),
        "requires_grad": True,
        "device": {"type": device, "index": index},
        "strides": ints(strides),
        "storage_offset": {"as_int": offset},
        "layout": 7,
    }


def payload(path: str, meta: Json | None, *, pickled: bool = False) -> Json:
    return {"path_name": path, "is_param": True, "use_pickle": pickled, "tensor_meta": meta}


def treespec(children: Sequence[Json]) -> str:
    spec = {"type": "builtins.tuple", "context": "null", "children_spec": list(children)}
    return json.dumps([1, spec])


LEAF: Json = {"type": None, "context": None, "children_spec": []}


def program(weights: Mapping[str, Json], *, device: str = "cpu", index: int | None = None) -> Json:
    """``linear(x, first weight)`` with all ``weights`` as parameters; values are their metas."""
    names = {fqn: "p_" + fqn.replace(".", "_") for fqn in weights}
    first = next(iter(names.values()))
    values = {names[fqn]: copy.deepcopy(meta) for fqn, meta in weights.items()}
    values |= {name: tensor_meta([2, 4], device=device, index=index) for name in ("x", "linear")}
    tensor = {name: {"as_tensor": {"name": name}} for name in values}
    arguments = {"input": tensor["x"], "weight": tensor[first]}
    node = {
        "target": "torch.ops.aten.linear.default",
        "inputs": [
            {"name": name, "arg": argument, "kind": 1} for name, argument in arguments.items()
        ],
        "outputs": [tensor["linear"]],
        "metadata": {
            "stack_trace": TRACE,
            "nn_module_stack": "140234,,net.Net;L__self___fc,fc,torch.nn.modules.linear.Linear",
            "torch_fn": "linear_1;builtin_function_or_method.linear",
        },
        "is_hop_single_tensor_return": None,
        "name": "linear",
    }
    signature = {
        "input_specs": [
            {"parameter": {"arg": {"name": name}, "parameter_name": fqn}}
            for fqn, name in names.items()
        ]
        + [{"user_input": {"arg": tensor["x"]}}],
        "output_specs": [{"user_output": {"arg": tensor["linear"]}}],
    }
    call = {
        "inputs": [],
        "outputs": [],
        "in_spec": treespec([json.loads(treespec([LEAF]))[1]]),
        "out_spec": json.dumps([1, LEAF]),
        "forward_arg_names": ["x"],
    }
    return {
        "graph_module": {
            "graph": {
                "inputs": [*(tensor[name] for name in names.values()), tensor["x"]],
                "outputs": [tensor["linear"]],
                "nodes": [node],
                "tensor_values": values,
                "sym_int_values": {},
                "sym_bool_values": {},
                "is_single_tensor_return": False,
                "custom_obj_values": {},
                "sym_float_values": {},
            },
            "signature": signature,
            "module_call_graph": [{"fqn": "", "signature": call}, {"fqn": "fc", "signature": None}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.13.0+cpu",
        "guards_code": ["L['x'].size()[0] == 2"],
    }


class Parts:
    """The members of a small, valid archive, to be spoilt before it is written."""

    def __init__(self) -> None:
        self.values = np.arange(12, dtype="<f4").reshape(3, 4)
        meta = tensor_meta([3, 4])
        self.program = program({"fc.weight": meta})
        self.weights: Json = {"config": {"fc.weight": payload("weight_0", copy.deepcopy(meta))}}
        self.constants: Json = {"config": {}}
        self.members: dict[str, bytes] = {
            "archive_format": b"pt2",
            "archive_version": b"0",
            "byteorder": b"little",
            "data/weights/weight_0": self.values.tobytes(),
            "data/sample_inputs/model.pt": b"a pickle that nobody opens",
            ".data/serialization_id": b"0" * 40,
        }

    @property
    def graph(self) -> Json:
        graph: Json = self.program["graph_module"]["graph"]
        return graph

    @property
    def node(self) -> Json:
        node: Json = self.graph["nodes"][0]
        return node

    @property
    def meta(self) -> Json:
        meta: Json = self.weights["config"]["fc.weight"]["tensor_meta"]
        return meta

    def all_members(self) -> dict[str, bytes]:
        documents = {MODEL: self.program, WEIGHTS: self.weights, CONSTANTS: self.constants}
        texts = {name: json.dumps(content).encode() for name, content in documents.items()}
        return texts | self.members

    def write(
        self,
        path: Path,
        *,
        root: str = ROOT,
        method: int = zipfile.ZIP_STORED,
        extra: Sequence[tuple[str | zipfile.ZipInfo, bytes]] = (),
        without: Sequence[str] = (),
    ) -> Path:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in self.all_members().items():
                if name not in without:
                    archive.writestr(f"{root}/{name}", data)
            for member, data in extra:
                archive.writestr(member, data)
        return path


Spoil = Callable[[Parts], None]
