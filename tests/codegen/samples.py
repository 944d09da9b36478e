"""Small hand-made programs, and kernel directories with images that nothing can run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from wrapgen import set_condition
from wrapgen.dtype import INFO, DType
from wrapgen.program import (
    SCHEMA_VERSION,
    Arg,
    Buffer,
    Constraint,
    Copy,
    Dim,
    Fill,
    FixedInput,
    If,
    Kernel,
    KernelParam,
    Launch,
    PointerArg,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    ScalarSpec,
    SourceNode,
    Step,
    Symbol,
    TensorMapArg,
    TensorSpec,
    Weight,
    While,
)
from wrapgen.target import Target

F16 = DType.FLOAT16
F32 = DType.FLOAT32
I32 = DType.INT32


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    result = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        result[i - 1] = result[i] * shape[i]
    return tuple(result)


def tensor(name: str, path: str, dtype: DType, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, path=path, dtype=dtype, shape=shape, strides=strides(shape))


def buffer(name: str, dtype: DType, *shape: int) -> Buffer:
    nbytes = INFO[dtype].itemsize
    for size in shape:
        nbytes *= size
    return Buffer(name=name, dtype=dtype, shape=shape, strides=strides(shape), nbytes=nbytes)


def pointer(name: str, dtype: DType = F16) -> KernelParam:
    return KernelParam(name=name, kind="pointer", dtype=dtype, divisible_by_16=True)


def scalar(name: str, dtype: DType, divisible_by_16: bool = False) -> KernelParam:
    return KernelParam(name=name, kind="scalar", dtype=dtype, divisible_by_16=divisible_by_16)


def tensor_map(name: str, *block: int, dtype: DType = F16) -> KernelParam:
    return KernelParam(
        name=name, kind="tensor_map", dtype=dtype, divisible_by_16=False, block=block
    )


def kernel(stem: str, *params: KernelParam, num_warps: int = 4) -> Kernel:
    digest = hashlib.sha256(stem.encode()).hexdigest()
    return Kernel(
        name=f"{stem}_{digest[:12]}",
        shard=0,
        ttir_sha256=digest,
        params=params,
        num_warps=num_warps,
        num_stages=3,
        num_ctas=1,
        template="",
        config={"BLOCK": 1024},
    )


def reads(space: Any, name: str, offset: int = 0) -> PointerArg:
    return PointerArg(ref=Ref(space=space, name=name, offset=offset), access="read")


def writes(space: Any, name: str, offset: int = 0) -> PointerArg:
    return PointerArg(ref=Ref(space=space, name=name, offset=offset), access="write")


def updates(space: Any, name: str) -> PointerArg:
    return PointerArg(ref=Ref(space=space, name=name), access="read_write")


def node(name: str, op: str, module: str = "", code: str = "") -> SourceNode:
    place = {"file": "sample.py", "function": "forward"} if code else {}
    return SourceNode(name=name, op=op, module=module, code=code, **place)


def launch(
    of: Kernel, grid: tuple[Dim, Dim, Dim], *args: Arg, sources: tuple[SourceNode, ...] = ()
) -> Launch:
    return Launch(kernel=of.name, grid=grid, args=args, sources=sources)


def program(**fields: Any) -> Program:
    empty: dict[str, Any] = dict(
        schema_version=SCHEMA_VERSION,
        target="sm_90",
        num_shards=1,
        symbols=(),
        inputs=(),
        outputs=(),
        weights=(),
        constants=(),
        kernels=(),
        folding=Procedure(buffers=(), steps=()),
        main=Procedure(buffers=(), steps=()),
    )
    return Program(**(empty | fields))


def elementwise(target: str = "sm_90") -> Program:
    """y = relu(x + 1): one launch from the caller's memory to the caller's memory."""
    add = kernel("add_relu", pointer("in_ptr0", F32), pointer("out_ptr0", F32), scalar("n", I32))
    source = node("add", "aten.add.Tensor", "", "return torch.relu(x + 1)")
    relu = node("relu", "aten.relu.default", "", "return torch.relu(x + 1)")
    return program(
        target=target,
        inputs=(tensor("x", "args[0]", F32, 2, 1000),),
        outputs=(tensor("output0", "outputs[0]", F32, 2, 1000),),
        kernels=(add,),
        main=Procedure(
            buffers=(),
            steps=(
                launch(
                    add,
                    (2, 1, 1),
                    reads("input", "x"),
                    writes("output", "output0"),
                    ScalarArg(dtype=I32, value=2000),
                    sources=(source, relu),
                ),
            ),
        ),
    )


def conv_chain(target: str = "sm_90") -> Program:
    """Two convolutions with batch-norm folded in at load, a residual added in place, a linear
    layer: weights that only folding reads, constants, temporaries that share memory."""
    fold = kernel("fold_norm", *(pointer(n) for n in ("weight", "scale", "bias", "out_w", "out_b")))
    conv = kernel("conv", *(pointer(n) for n in ("x", "weight", "bias", "out")), num_warps=8)
    add = kernel("add_", pointer("in_out_ptr0"), pointer("in_ptr1"), scalar("xnumel", I32, True))
    linear = kernel(
        "linear",
        *(pointer(n) for n in ("x", "weight", "bias", "out")),
        scalar("scale", F32),
        scalar("rows", DType.INT64),
    )
    weights = [
        Weight(name=f"layers.{i}.{name}", dtype=F16, shape=shape)
        for i in (0, 1)
        for name, shape in (
            ("bn.bias", (16,)),
            ("bn.weight", (16,)),
            ("conv.weight", (16, 16, 3, 3)),
        )
    ]
    weights += [
        Weight(name="fc.bias", dtype=F16, shape=(10,)),
        Weight(name="fc.weight", dtype=F16, shape=(10, 16)),
        Weight(name="steps", dtype=DType.INT64, shape=()),
    ]
    folding: list[Step] = []
    convolutions: list[Step] = []
    for i in (0, 1):
        module = f"layers.{i}"
        folding.append(
            launch(
                fold,
                (16, 1, 1),
                reads("weight", f"{module}.conv.weight"),
                reads("weight", f"{module}.bn.weight"),
                reads("weight", f"{module}.bn.bias"),
                writes("constant", f"{module}.folded"),
                writes("constant", f"{module}.folded", 4608),
                sources=(node(f"fold_{i}", "aten.mul.Tensor", module),),
            )
        )
        convolutions.append(
            launch(
                conv,
                (49, 2, 1),
                reads("arena", "buf0") if i else reads("input", "image"),
                reads("constant", f"{module}.folded"),
                reads("constant", f"{module}.folded", 4608),
                writes("arena", f"buf{i}"),
                sources=(
                    node(
                        f"conv2d_{i}",
                        "aten.conv2d.default",
                        f"{module}.conv",
                        "x = self.bn(self.conv(x))",
                    ),
                    node(
                        f"batch_norm_{i}",
                        "aten.batch_norm.default",
                        f"{module}.bn",
                        "x = self.bn(self.conv(x))",
                    ),
                    node(f"relu_{i}", "aten.relu.default", module, "return F.relu(x)  # ??/"),
                ),
            )
        )
    main: list[Step] = [
        *convolutions,
        launch(
            add,
            (1, 1, 1),
            updates("arena", "buf1"),
            reads("arena", "buf0"),
            ScalarArg(dtype=I32, value=12544),
            sources=(node("add", "aten.add.Tensor", "", "x = x + identity"),),
        ),
        Copy(
            dst=Ref(space="arena", name="buf2"),
            src=Ref(space="arena", name="buf1", offset=64),
            nbytes=512,
            sources=(node("slice_1", "aten.slice.Tensor", "", "x = x[:, 2:]"),),
        ),
        launch(
            linear,
            (1, 1, 1),
            reads("arena", "buf2"),
            reads("weight", "fc.weight"),
            reads("weight", "fc.bias"),
            writes("output", "logits"),
            ScalarArg(dtype=F32, value=(0.1).hex()),
            ScalarArg(dtype=DType.INT64, value=1 << 40),
            sources=(node("linear", "aten.linear.default", "fc", "return self.fc(x)"),),
        ),
    ]
    return program(
        target=target,
        inputs=(tensor("image", "args[0]", F16, 1, 16, 28, 28),),
        outputs=(tensor("logits", "outputs[0]", F16, 1, 10),),
        weights=tuple(weights),
        constants=tuple(buffer(f"layers.{i}.folded", F16, 2320) for i in (0, 1)),
        kernels=(add, conv, fold, linear),
        folding=Procedure(buffers=(), steps=tuple(folding)),
        main=Procedure(
            buffers=(
                buffer("buf0", F16, 1, 16, 28, 28),
                buffer("buf1", F16, 1, 16, 28, 28),
                buffer("buf2", F16, 256),
            ),
            steps=tuple(main),
        ),
    )


def copies(target: str = "sm_90") -> Program:
    """No kernel at all: fills, copies, an input that is updated, awkward names and several outputs,
    of which one is a scalar and one is empty."""

    def ref(space: Any, name: str, offset: int = 0) -> Ref:
        return Ref(space=space, name=name, offset=offset)

    zeros = (node("zeros", "aten.zeros.default", "", 'cache = torch.zeros(4)  # "*/ \\'),)
    return program(
        target=target,
        inputs=(
            tensor("class", "kwargs['class']", F32, 4),
            dataclasses.replace(tensor("state", "args[1]", DType.BOOL, 16), mutated=True),
        ),
        outputs=(
            tensor("a_b", "outputs['a']", F32, 4),
            tensor("aB", "outputs['b']", F32),
            tensor("none", "outputs['c']", DType.INT64, 0, 3),
        ),
        weights=(Weight(name="table", dtype=F32, shape=(4,)),),
        constants=(buffer("copied", F32, 4),),
        folding=Procedure(
            buffers=(),
            steps=(
                Copy(
                    dst=ref("constant", "copied"), src=ref("weight", "table"), nbytes=16, sources=()
                ),
            ),
        ),
        main=Procedure(
            buffers=(buffer("cache", F32, 4),),
            steps=(
                Fill(dst=ref("arena", "cache"), byte=0, nbytes=16, sources=zeros),
                Copy(
                    dst=ref("arena", "cache", 8),
                    src=ref("constant", "copied"),
                    nbytes=8,
                    sources=(),
                ),
                Copy(
                    dst=ref("output", "a_b"), src=ref("arena", "cache"), nbytes="4 * 4", sources=()
                ),
                Copy(dst=ref("output", "aB"), src=ref("input", "class", 4), nbytes=4, sources=()),
                Fill(dst=ref("input", "state"), byte=1, nbytes=16, sources=()),
            ),
        ),
    )


def dynamic(target: str = "sm_90") -> Program:
    """Every kind of thing that depends on the inputs: sizes, strides, grids, offsets, memory;
    scalar inputs, both only passed on; an input that is updated, one that may be empty.

    ``tests/runtime/dynamic_test.cc`` runs what is generated of it.
    """
    scale = kernel(
        "scale", pointer("x", F32), pointer("out", F32), scalar("n", I32), scalar("factor", F32)
    )
    shift = kernel(
        "shift",
        *(pointer("x", F32), pointer("out", F32), scalar("n", I32)),
        *(scalar("start", DType.INT64), scalar("seed", DType.INT64)),
    )
    increment = kernel("increment", pointer("state", F32), scalar("n", I32))

    def spec(name: str, path: str, shape: tuple[Dim, ...], strides: tuple[Dim, ...]) -> TensorSpec:
        return TensorSpec(name=name, path=path, dtype=F32, shape=shape, strides=strides)

    def temporary(name: str, shape: tuple[Dim, ...], nbytes: Dim) -> Buffer:
        ones: tuple[Dim, ...] = (1,) if len(shape) == 1 else (shape[1], 1)
        return Buffer(name=name, dtype=F32, shape=shape, strides=ones, nbytes=nbytes)

    def number(value: Dim, dtype: DType = I32) -> ScalarArg:
        return ScalarArg(dtype=dtype, value=value)

    def blocks(count: str) -> tuple[Dim, Dim, Dim]:
        return (f"({count} + 127) // 128", 1, 1)

    factor = ScalarArg(dtype=F32, value=(2.0).hex())
    main: list[Step] = [
        launch(
            scale,
            blocks("s0 * s1"),
            *(reads("input", "x"), writes("arena", "doubled"), number("s0 * s1"), factor),
            sources=(node("mul", "aten.mul.Tensor", "", "y = 2 * x"),),
        ),
        Fill(dst=Ref(space="arena", name="zeros"), byte=0, nbytes="s1 * s1 * 4", sources=()),
        launch(
            shift,
            blocks("s0 * s1"),
            *(reads("arena", "doubled"), writes("output", "out"), number("s0 * s1")),
            *(number("u0", DType.INT64), number("u1 * 3", DType.INT64)),
            sources=(node("add", "aten.add.Tensor", "", "y = y + start + 3 * seed"),),
        ),
        launch(increment, (1, "s0 * 1200", 1), updates("input", "state"), number("s0 * 4")),
        launch(
            scale,
            blocks("s2 * 3 // 2"),
            *(reads("input", "rows"), writes("output", "half"), number("s2 * 3 // 2"), factor),
        ),
        Copy(
            dst=Ref(space="output", name="copy"),
            src=Ref(space="input", name="y"),
            nbytes="s0 * s1 * 8",
            sources=(),
        ),
        Copy(
            dst=Ref(space="output", name="last"),
            src=Ref(space="arena", name="doubled", offset="(s0 - 1) * s1 * 4"),
            nbytes="s1 * 4",
            sources=(),
        ),
        launch(
            scale,
            blocks("s1 * s1"),
            *(reads("arena", "zeros"), writes("arena", "squares"), number("s1 * s1"), factor),
        ),
        Copy(
            dst=Ref(space="output", name="square"),
            src=Ref(space="arena", name="squares"),
            nbytes="s1 * s1 * 4",
            sources=(),
        ),
    ]
    return program(
        target=target,
        symbols=(
            Symbol(name="s0", minimum=1, maximum=64),
            Symbol(name="s1", minimum=1, maximum=100),
            Symbol(name="s2", minimum=0, maximum=16),
            Symbol(name="u0", minimum=0, maximum=1000),
            Symbol(name="u1", minimum=-(1 << 63), maximum=(1 << 63) - 1),
        ),
        constraints=(
            Constraint(condition="u0 + s1 <= 1000", text="start + x.shape[1] <= 1000"),
            Constraint(condition="s2 <= s0", text="rows.shape[0] <= x.shape[0]"),
        ),
        inputs=(
            spec("x", "args[0]", ("s0", "s1"), ("s1", 1)),
            spec("y", "args[1]['y']", ("s1", "s0 * 2"), (1, "s1")),
            ScalarSpec(name="start", path="kwargs['start']", symbol="u0"),
            dataclasses.replace(spec("state", "args[2]", ("s0", 4), (4, 1)), mutated=True),
            spec("rows", "args[3]", ("s2", 3), (3, 1)),
            ScalarSpec(name="seed", path="kwargs['seed']", symbol="u1"),
        ),
        fixed=(FixedInput(path="kwargs['flag']", value="True"),),
        outputs=(
            spec("out", "outputs[0]", ("s0", "s1"), ("s1", 1)),
            spec("half", "outputs[1]", ("s2 * 3 // 2",), (1,)),
            spec("copy", "outputs[2]", ("s1", "s0 * 2"), (1, "s1")),
            spec("last", "outputs[3]", ("s1",), (1,)),
            spec("square", "outputs[4]", ("s1", "s1"), ("s1", 1)),
        ),
        kernels=(increment, scale, shift),
        main=Procedure(
            buffers=(
                temporary("doubled", ("s0", "s1"), "s0 * s1 * 4"),
                temporary("zeros", ("s1", "s1"), "s1 * s1 * 4"),
                temporary("squares", ("s1", "s1"), "s1 * s1 * 4"),
            ),
            steps=tuple(main),
        ),
    )


def user_kernels(target: str = "sm_90") -> Program:
    """Calls of user-defined kernels: a view, an update in place, numbers of each type."""
    scaled_sum = kernel(
        "scaled_sum",
        pointer("x", F32),
        dataclasses.replace(pointer("y", F32), divisible_by_16=False),
        pointer("out", F32),
        scalar("n", I32),
        scalar("alpha", F32),
        num_warps=2,
    )
    types = {
        "small": I32,
        "large": DType.INT64,
        "single": F32,
        "double": DType.FLOAT64,
        "half": F16,
        "brain": DType.BFLOAT16,
        "flag": DType.BOOL,
        "other": DType.BOOL,
    }
    numbers = kernel(
        "numbers",
        pointer("out", F32),
        pointer("count", I32),
        *(scalar(name, dtype) for name, dtype in types.items()),
        num_warps=1,
    )
    tenth = (0.1).hex()
    values: tuple[Dim, ...] = ("2 * s0", "s0 + 1099511627776", tenth, tenth, tenth, tenth, 1, 0)
    steps: list[Step] = [
        launch(
            scaled_sum,
            ("(24 * s0 + 511) // 512", 1, 1),
            *(reads("input", "x"), reads("input", "y", 4), writes("output", "out")),
            ScalarArg(dtype=I32, value="24 * s0"),
            ScalarArg(dtype=F32, value=(0.5).hex()),
            sources=(
                node("scaled_sum", "triton.scaled_sum", "", "out = scaled_sum_op(x, y[1:], 0.5)"),
            ),
        ),
        launch(
            numbers,
            (1, 1, 1),
            *(updates("output", "out"), reads("input", "count")),
            *(
                ScalarArg(dtype=dtype, value=value)
                for dtype, value in zip(types.values(), values, strict=True)
            ),
            sources=(node("numbers", "triton.numbers", "", "numbers_op(out, count.item())"),),
        ),
    ]

    def spec(name: str, path: str, size: Dim, dtype: DType = F32) -> TensorSpec:
        return TensorSpec(name=name, path=path, dtype=dtype, shape=(size,), strides=(1,))

    return program(
        target=target,
        symbols=(Symbol(name="s0", minimum=1, maximum=64),),
        inputs=(
            spec("size", "args[0]", "s0"),
            spec("x", "args[1]", "24 * s0"),
            spec("y", "args[2]", "24 * s0 + 1"),
            TensorSpec(name="count", path="args[3]", dtype=I32, shape=(), strides=()),
        ),
        outputs=(spec("out", "outputs[0]", "24 * s0"),),
        kernels=(numbers, scaled_sum),
        main=Procedure(buffers=(), steps=tuple(steps)),
    )


def control(target: str = "sm_90") -> Program:
    """y = 3 * x if sum(x) > 0 else -2 * x; three times y = 2 * y, the first time with w added.

    A branch whose two sides differ in length, and a loop with a branch without an alternative in
    it. What is the caller's is copied in and out around them.

    ``tests/runtime/control_test.cc`` runs what is generated of it.
    """
    add = kernel("add_", pointer("in_out_ptr0", F32), pointer("in_ptr1", F32))
    positive = kernel("positive", pointer("x", F32), pointer("out", DType.BOOL))
    scale = kernel("scale", pointer("x", F32), pointer("out", F32), scalar("factor", F32))
    less = kernel("less", pointer("x", DType.INT64), pointer("out", DType.BOOL), scalar("n", I32))
    count = kernel("count", pointer("x", DType.INT64), pointer("out", DType.INT64))
    setter = set_condition.kernel(1)
    one: tuple[Dim, Dim, Dim] = (1, 1, 1)

    def ref(space: Any, name: str) -> Ref:
        return Ref(space=space, name=name)

    def copy(dst: Ref, src: Ref, nbytes: int) -> Copy:
        return Copy(dst=dst, src=src, nbytes=nbytes, sources=())

    def by(factor: float) -> ScalarArg:
        return ScalarArg(dtype=F32, value=factor.hex())

    code = "y = torch.cond(x.sum() > 0, lambda x: 3 * x, lambda x: 2 * (-x), (x,))"
    main: list[Step] = [
        copy(ref("arena", "given"), ref("input", "x"), 16),
        launch(positive, one, reads("input", "x"), writes("arena", "gt")),
        If(
            kernel=setter.name,
            predicate=ref("arena", "gt"),
            dtype=DType.BOOL,
            then=(launch(scale, one, reads("arena", "given"), writes("arena", "y"), by(3.0)),),
            otherwise=(
                launch(scale, one, reads("arena", "given"), writes("arena", "minus"), by(-1.0)),
                launch(scale, one, reads("arena", "minus"), writes("arena", "y"), by(2.0)),
            ),
            sources=(node("cond", "higher_order.cond", "", code),),
        ),
        Fill(dst=ref("arena", "i"), byte=0, nbytes=8, sources=()),
        While(
            kernel=setter.name,
            predicate=ref("arena", "lt"),
            dtype=DType.BOOL,
            condition=(
                launch(
                    less,
                    one,
                    *(reads("arena", "i"), writes("arena", "lt")),
                    ScalarArg(dtype=I32, value=3),
                ),
            ),
            body=(
                launch(scale, one, reads("arena", "y"), writes("arena", "double"), by(2.0)),
                launch(
                    less,
                    one,
                    *(reads("arena", "i"), writes("arena", "first")),
                    ScalarArg(dtype=I32, value=1),
                ),
                If(
                    kernel=setter.name,
                    predicate=ref("arena", "first"),
                    dtype=DType.BOOL,
                    then=(launch(add, one, updates("arena", "double"), reads("weight", "w")),),
                    otherwise=(),
                    sources=(),
                ),
                copy(ref("arena", "y"), ref("arena", "double"), 16),
                launch(count, one, reads("arena", "i"), writes("arena", "next")),
                copy(ref("arena", "i"), ref("arena", "next"), 8),
            ),
            sources=(node("while_loop", "higher_order.while_loop", "", "torch.while_loop("),),
        ),
        copy(ref("output", "y"), ref("arena", "y"), 16),
        copy(ref("output", "i"), ref("arena", "i"), 8),
    ]
    return program(
        target=target,
        inputs=(tensor("x", "args[0]", F32, 4),),
        outputs=(tensor("y", "outputs[0]", F32, 4), tensor("i", "outputs[1]", DType.INT64)),
        weights=(Weight(name="w", dtype=F32, shape=(4,)),),
        kernels=(add, count, less, positive, scale, setter),
        main=Procedure(
            buffers=(
                *(buffer(name, F32, 4) for name in ("given", "y", "minus", "double")),
                *(buffer(name, DType.BOOL) for name in ("gt", "lt", "first")),
                *(buffer(name, DType.INT64) for name in ("i", "next")),
            ),
            steps=tuple(main),
        ),
    )


def launches(target: str = "sm_90") -> Program:
    """Every kind of launch: one whose programs wait for each other, clusters, one that may start
    before the kernel ahead of it has ended, three directions, tensor maps, scratch memory (of the
    kernels that ``SCRATCH`` says need it)."""
    total = dataclasses.replace(
        kernel(
            "total",
            *(pointer("x"), pointer("partial", F32), pointer("semaphore", I32)),
            *(pointer("out", F32), scalar("n", I32)),
        ),
        cooperative=True,
    )
    pairs = dataclasses.replace(kernel("pairs", pointer("x"), pointer("out")), num_ctas=2)
    shift = dataclasses.replace(kernel("shift", pointer("x"), pointer("out")), launch_pdl=True)
    tiles = kernel(
        "tiles", tensor_map("x", 64, 32), tensor_map("out", 64, 64), scalar("columns", I32)
    )

    def mapped(space: Any, name: str, access: Any, padding: Any = "zero") -> TensorMapArg:
        ref = Ref(space=space, name=name)
        shape, steps = (128, 64), (64, 1)
        return TensorMapArg(ref=ref, access=access, shape=shape, strides=steps, padding=padding)

    semaphore = Ref(space="arena", name="semaphore")
    sum_node = node("sum_1", "aten.sum.default", "", "total = x.sum()")
    main: list[Step] = [
        Fill(dst=semaphore, byte=0, nbytes=4, sources=(sum_node,)),
        launch(
            total,
            (16, 1, 1),
            reads("input", "x"),
            *(writes("arena", "partial"), updates("arena", "semaphore")),
            writes("output", "total"),
            ScalarArg(dtype=I32, value=8192),
            sources=(sum_node,),
        ),
        launch(
            pairs,
            (4, 2, 3),
            *(reads("input", "x"), writes("arena", "doubled")),
            sources=(node("mul", "aten.mul.Tensor", "", "y = 2 * x"),),
        ),
        launch(
            shift,
            (8, 1, 1),
            *(reads("arena", "doubled"), writes("arena", "shifted")),
            sources=(node("add", "aten.add.Tensor", "", "y = y + 1"),),
        ),
        launch(
            tiles,
            (2, 2, 1),
            mapped("arena", "shifted", "read", "nan"),
            mapped("output", "y", "write"),
            ScalarArg(dtype=I32, value=64),
            sources=(node("relu", "aten.relu.default", "", "return total, torch.relu(y)"),),
        ),
    ]
    return program(
        target=target,
        inputs=(tensor("x", "args[0]", F16, 128, 64),),
        outputs=(
            tensor("total", "outputs[0]", F32),
            tensor("y", "outputs[1]", F16, 128, 64),
        ),
        kernels=(pairs, shift, tiles, total),
        main=Procedure(
            buffers=(
                buffer("semaphore", I32, 1),
                buffer("partial", F32, 16),
                buffer("doubled", F16, 128, 64),
                buffer("shifted", F16, 128, 64),
            ),
            steps=tuple(main),
        ),
    )


SCRATCH = {"tiles": 128}
"""Bytes of scratch memory that a block needs, by the stem of the kernel's name."""


def many_launches(count: int, target: str = "sm_90") -> Program:
    """A chain of ``count`` launches of ``count // 10`` kernels."""
    names = ("in_ptr0", "in_ptr1", "in_ptr2", "out_ptr0")
    kernels = [
        kernel(f"fused_layer_norm_{i}", *map(pointer, names), scalar("xnumel", I32))
        for i in range(max(count // 10, 1))
    ]
    steps = []
    for i in range(count):
        module = f"model.layers.{i // 10}.attention"
        steps.append(
            launch(
                kernels[i % len(kernels)],
                (64, 12, 1),
                reads("arena", f"buf{i - 1}") if i else reads("input", "x"),
                reads("arena", f"buf{max(i - 2, 0)}") if i else reads("input", "x"),
                reads("weight", f"{module}.weight"),
                writes("output", "y") if i == count - 1 else writes("arena", f"buf{i}"),
                ScalarArg(dtype=I32, value=4096),
                sources=(node(f"n{i}", "aten.native_layer_norm.default", module, f"x = f{i}(x)"),),
            )
        )
    weights = [f"model.layers.{i}.attention.weight" for i in range(-(-count // 10))]
    return program(
        target=target,
        inputs=(tensor("x", "args[0]", F16, 4096),),
        outputs=(tensor("y", "outputs[0]", F16, 4096),),
        weights=tuple(Weight(name=name, dtype=F16, shape=(4096,)) for name in weights),
        kernels=tuple(kernels),
        main=Procedure(
            buffers=tuple(buffer(f"buf{i}", F16, 4096) for i in range(count)), steps=tuple(steps)
        ),
    )


def _driver(of: Kernel, target: Target) -> int:
    if of.name == set_condition.NAME:
        return set_condition.DRIVER
    return 12000 if target.platform == "cuda" else 60000000


def metadata(of: Kernel, target: Target, image: bytes) -> dict[str, Any]:
    """Metadata such as the compile step writes for ``image``."""
    nbytes = {"pointer": 8, "tensor_map": 128}
    sizes = [nbytes.get(p.kind) or INFO[p.dtype].itemsize for p in of.params] + [8, 8]
    # As in a cubin: parameters begin at byte 528 of their bank, where a map is at a multiple of 64.
    params, end = [], 0
    for size in sizes:
        alignment = min(size, 64)
        offset = -(-(528 + end) // alignment) * alignment - 528
        params.append({"offset": offset, "size": size})
        end = offset + size
    maps = [
        {"param": i, "element": 6, "swizzle": 3 if p.block[-1] == 64 else 2, "box": list(p.block)}
        for i, p in enumerate(of.params)
        if p.kind == "tensor_map"
    ]
    return {
        "schema_version": 2,
        "name": of.name,
        "target": str(target),
        "format": {"sm": "cubin", "compute": "ptx", "gfx": "hsaco"}[target.kind],
        "size": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "ttir_sha256": of.ttir_sha256,
        "ptx_version": "8.6" if target.platform == "cuda" else "",
        "driver": _driver(of, target),
        "threads": target.device.warp_size * of.num_warps,
        "num_warps": of.num_warps,
        "num_ctas": of.num_ctas,
        "shared_memory": 1024 * of.num_warps,
        "registers": 64,
        "local_memory": 0,
        "spill_stores": 0,
        "spill_loads": 0,
        "params": params,
        "global_scratch": SCRATCH.get(of.name.rpartition("_")[0], 0),
        "global_scratch_align": 128,
        "profile_scratch": 0,
        "tensor_maps": maps,
    }


def image_of(of: Kernel, target: Target) -> bytes:
    return f"image of {of.name} for {target}\n".encode()


def expressions(target: str = "sm_90") -> Program:
    """One launch, whose arguments are expressions of every kind; and the same kernel in folding."""
    arguments = {
        "rounded_up": "-(-s0 // 3)",
        "digit": "s0 // 8 % s1 if s1 != 0 else 0",
        "padded": "s0 + 7 & ~7",
        "largest": "max(s0, 4 * s1, 16)",
        "power": "2 ** s1",
        "between": "1 if s0 > 8 and not s1 == 4 else abs(s1 - s0)",
        "shifted": "u0 << 2",
    }
    of = kernel("fill", pointer("out", F32), *(scalar(name, DType.INT64) for name in arguments))
    fixed = tuple(ScalarArg(dtype=DType.INT64, value=i) for i in range(len(arguments)))
    return program(
        target=target,
        symbols=(
            Symbol(name="s0", minimum=1, maximum=4096),
            Symbol(name="s1", minimum=0, maximum=64),
            Symbol(name="u0", minimum=-(1 << 63), maximum=(1 << 63) - 1),
        ),
        inputs=(
            TensorSpec(name="x", path="args[0]", dtype=F32, shape=("s0", "s1"), strides=("s1", 1)),
            ScalarSpec(name="count", path="args[1]", symbol="u0"),
        ),
        outputs=(TensorSpec(name="out", path="outputs", dtype=F32, shape=("s0",), strides=(1,)),),
        constants=(buffer("table", F32, 256),),
        kernels=(of,),
        folding=Procedure(
            buffers=(), steps=(launch(of, (1, 1, 1), writes("constant", "table"), *fixed),)
        ),
        main=Procedure(
            buffers=(),
            steps=(
                launch(of, (1, 1, 1), writes("output", "out"), *fixed),
                launch(
                    of,
                    ("(s0 + 127) // 128", 1, 1),
                    writes("output", "out"),
                    *(ScalarArg(dtype=DType.INT64, value=text) for text in arguments.values()),
                ),
            ),
        ),
    )


def large(launches: int = 1000, kernels: int = 300, *, dynamic: bool = False) -> Program:
    """A model as large as they come: a chain of launches, each with five tensors, a weight among
    them, and three scalars; where it is ``dynamic``, each of another size."""
    size: Dim = "s0 * 4096" if dynamic else 4096
    nbytes: Dim = "s0 * 4096 * 2" if dynamic else 8192
    of = [
        kernel(
            f"fused_{i}",
            *(pointer(f"in_ptr{j}") for j in range(4)),
            pointer("out_ptr0"),
            *(scalar(name, I32, True) for name in ("xnumel", "rnumel")),
            scalar("scale", F32),
        )
        for i in range(kernels)
    ]
    weights = [
        Weight(name=f"layers.{i}.weight", dtype=F16, shape=(64, 64)) for i in range(launches)
    ]
    blocks = [
        Buffer(name=f"buf{i}", dtype=F16, shape=(size,), strides=(1,), nbytes=nbytes)
        for i in range(launches)
    ]
    steps = []
    for i in range(launches):
        before = [blocks[j].name for j in (i - 1, i - 2) if j >= 0]
        inputs = [reads("arena", name) for name in before]
        inputs += [reads("input", "x")] * (3 - len(before))
        extent: Dim = f"s0 * {64 * (i + 1)}" if dynamic else 4096
        steps.append(
            launch(
                of[i % kernels],
                ((f"(s0 * {i + 1} + 3) // 4" if dynamic else 4), 1, 1),
                *inputs,
                reads("weight", weights[i].name),
                writes("output", "out") if i == launches - 1 else writes("arena", blocks[i].name),
                ScalarArg(dtype=I32, value=extent),
                ScalarArg(dtype=I32, value=64),
                ScalarArg(dtype=F32, value=(0.5).hex()),
                sources=(
                    node(f"mm_{i}", "aten.linear.default", f"layers.{i}", "x = self.mm(x)"),
                    node(f"gelu_{i}", "aten.gelu.default", f"layers.{i}.act", "gelu(x)"),
                ),
            )
        )
    shape: tuple[Dim, ...] = ("s0", 4096) if dynamic else (1, 4096)

    def spec(name: str, path: str) -> TensorSpec:
        return TensorSpec(name=name, path=path, dtype=F16, shape=shape, strides=(4096, 1))

    return program(
        symbols=(Symbol(name="s0", minimum=1, maximum=64),) if dynamic else (),
        inputs=(spec("x", "args[0]"),),
        outputs=(spec("out", "outputs[0]"),),
        weights=tuple(weights),
        kernels=tuple(of),
        main=Procedure(buffers=tuple(blocks[:-1]), steps=tuple(steps)),
    )


def write_kernels(out: Path, program: Program, *targets: Target) -> Path:
    """Writes what the compile step writes for the program's kernels; returns ``out``."""
    for target in targets:
        (out / str(target)).mkdir(parents=True, exist_ok=True)
        for one in program.kernels:
            image = image_of(one, target)
            data = metadata(one, target, image)
            (out / str(target) / f"{one.name}.json").write_text(json.dumps(data))
            (out / str(target) / f"{one.name}.{data['format']}").write_bytes(image)
    return out
