"""The export step: any user's file, the same bytes everywhere, errors that are the user's own."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wrapgen.export import ExportError, export
from wrapgen.intake import split

NET = textwrap.dedent(
    """
    import torch

    from blocks import Block

    class Net(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = torch.nn.Linear(width, 4)
            self.block = Block()

        def forward(self, x):
            return self.block(self.fc(x))

    def export(width=8, weights=None):
        net = Net(width)
        if weights is not None:
            from safetensors.torch import load_file
            net.load_state_dict(load_file(weights))
        return torch.export.export(net, (torch.empty(2, width),))

    def no_program():
        return 1

    def fails(width):
        return helper(width)

    def helper(width):
        raise ValueError(f"bad width {width}")
    """
)
BLOCKS = textwrap.dedent(
    """
    import torch

    class Block(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x) * 2
    """
)


def project(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "blocks.py").write_text(BLOCKS)
    (directory / "net.py").write_text(NET)
    return directory / "net.py"


def run(src: Path, out: Path, *arguments: str, cwd: Path, **environment: str) -> bytes:
    """Exports in a process of its own."""
    paths = [str(Path(path or ".").absolute()) for path in sys.path]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths)} | environment
    command = [sys.executable, "-m", "wrapgen", "export", str(src), "-o", str(out), *arguments]
    subprocess.run(command, cwd=cwd, env=env, check=True)
    return out.read_bytes()


def test_same_bytes_everywhere(tmp_path: Path) -> None:
    first = project(tmp_path / "one")
    second = project(tmp_path / "a longer path" / "with spaces")
    a = run(Path("net.py"), tmp_path / "a.pt2", cwd=first.parent, HOME="/", PYTHONHASHSEED="1")
    b = run(
        second,
        tmp_path / "other name.pt2",
        "--arg=width=8",
        cwd=tmp_path,
        HOME=str(tmp_path),
        PYTHONHASHSEED="77",
        TZ="Asia/Tokyo",
        LC_ALL="C.UTF-8",
    )
    assert a == b
    assert str(tmp_path).encode() not in a
    # The negative control.
    second.with_name("blocks.py").write_text(BLOCKS.replace("* 2", "* 3"))
    assert run(second, tmp_path / "c.pt2", cwd=tmp_path, HOME="/") != a


def test_imports_from_elsewhere(tmp_path: Path) -> None:
    beside = run(project(tmp_path / "beside"), tmp_path / "a.pt2", cwd=tmp_path)
    src = project(tmp_path / "apart")
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    src.with_name("blocks.py").rename(libraries / "blocks.py")
    # A module of Python's own stays what it is, and a directory need not exist.
    (libraries / "json.py").write_text("raise ImportError")
    arguments = ["--import-from", "nowhere", "--import-from", "libraries"]
    assert run(src, tmp_path / "b.pt2", *arguments, cwd=tmp_path) == beside


def test_torch_reads_it(tmp_path: Path) -> None:
    export(project(tmp_path / "src"), "export", {"width": 6}, None, tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2")
    x = torch.ones(2, 6)
    weight, bias = program.state_dict["fc.weight"], program.state_dict["fc.bias"]
    torch.testing.assert_close(program.module()(x), torch.relu(x @ weight.T + bias) * 2)
    [[example], _] = program.example_inputs or ([None], None)
    assert torch.equal(example, torch.zeros(2, 6)), "sample inputs were uninitialised memory"


def test_locations_are_relative_to_imports(tmp_path: Path) -> None:
    export(project(tmp_path / "src"), "export", {}, None, tmp_path / "m.pt2")
    split(tmp_path / "m.pt2", tmp_path / "graph.json", tmp_path / "weights.safetensors")
    nodes = json.loads((tmp_path / "graph.json").read_text())["exported_program"]["graph_module"][
        "graph"
    ]["nodes"]
    traces = {node["metadata"].get("stack_trace", "").partition("\n")[0] for node in nodes}
    assert traces == {'File "net.py", in forward', 'File "blocks.py", in forward'}


COMMENTED = textwrap.dedent(
    """
    import torch
    import triton
    from torch.library import triton_op, wrap_triton

    @triton.jit
    def double(x, out, BLOCK: triton.language.constexpr):
        at = triton.language.arange(0, BLOCK)
        triton.language.store(out + at, 2 * triton.language.load(x + at))

    @triton_op("commented::double", mutates_args={})
    def double_op(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        wrap_triton(double)[(1,)](x, out, BLOCK=16)
        return out

    class Net(torch.nn.Module):
        def forward(self, x):
            y = torch.relu(x)
            y = torch.cat(
                [y, x]
            )
            return y if KERNEL is None else KERNEL(x) + torch.relu(x)

    KERNEL = double_op

    def export(weights=None):
        return torch.export.export(Net(), (torch.zeros(16),), strict=False)
    """
)


def graph_of(archive: Path) -> bytes:
    graph = archive.with_suffix(".json")
    split(archive, graph, archive.with_suffix(".safetensors"))
    return graph.read_bytes()


@pytest.mark.parametrize("kernel", ["double_op", "None"])
def test_a_comment_changes_the_archive_and_not_the_graph(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands. An archive of torch.export.save is taken apart to the same graph."""
    text = COMMENTED.replace("KERNEL = double_op", f"KERNEL = {kernel}")
    graphs: dict[str, set[bytes]] = {}
    archives = {}
    # Not below Bazel's execution root, which a place in a model is told relative to.
    outside = tempfile.TemporaryDirectory(dir="/tmp")
    for i, (name, old, new) in enumerate(
        (
            ("no comment", "", ""),
            ("at the top", "\nimport torch\n", "\n# More.\n# Of it.\nimport torch\n"),
            ("in the model", "    y = torch.relu(x)\n", "    # More.\n        y = torch.relu(x)\n"),
            ("behind an operation", "y = torch.relu(x)\n", "y = torch.relu(x)  # More.\n"),
            ("in an operation", "    [y, x]\n", "    # More.\n            [y, x]  # Of it.\n"),
            ("in a kernel", "    at = t", "    # More.\n    at = t"),
            ("behind a kernel's code", "(0, BLOCK)\n", "(0, BLOCK)  # More.\n    # Of it.\n"),
            ("at the end", "strict=False)\n", "strict=False)\n# More.\n"),
            ("no comment, but another model", "torch.relu(x)\n     ", "torch.tanh(x)\n     "),
        )
    ):
        assert text.count(old) == 1 or not old, name
        directory = Path(outside.name, name)
        directory.mkdir()
        src, archive, saved = (directory / file for file in ("net.py", "m.pt2", "saved.pt2"))
        # An operator of triton_op can be defined once; an export leaves no trace of its name.
        src.write_text(text.replace(old, new).replace("commented::", f"commented{i}{kernel}::"))
        export(src, "export", {}, None, archive)
        archives[name] = archive.read_bytes()
        graphs[name] = {graph_of(archive)}
        if kernel == "None":
            spec = importlib.util.spec_from_file_location("net", src)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, "net", module)
            spec.loader.exec_module(module)
            torch.export.save(module.export(), saved)
            graphs[name].add(graph_of(saved))
    outside.cleanup()
    assert len(graphs["no comment"]) == 1
    changed = {name for name, found in graphs.items() if found != graphs["no comment"]}
    assert changed == {"no comment, but another model"}
    assert archives["at the top"] != archives["no comment"], "line numbers are in the archive"


def test_archive_is_mappable_and_plain(tmp_path: Path) -> None:
    export(project(tmp_path / "src"), "export", {}, None, tmp_path / "m.pt2")
    data = (tmp_path / "m.pt2").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        assert [info.filename for info in infos] == sorted(info.filename for info in infos)
        for info in infos:
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.compress_type == zipfile.ZIP_STORED
            payload = archive.read(info)
            assert data.index(payload, info.header_offset) % 64 == 0 or not payload
            assert info.filename.startswith("model/")


def test_weights_file(tmp_path: Path) -> None:
    weights = {"fc.weight": torch.full((4, 8), 0.5), "fc.bias": torch.ones(4)}
    save_file(weights, tmp_path / "w.safetensors")
    export(project(tmp_path / "src"), "export", {}, tmp_path / "w.safetensors", tmp_path / "m.pt2")
    state = torch.export.load(tmp_path / "m.pt2").state_dict
    for name, value in weights.items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize(
    ("entry_point", "arguments", "message"),
    [
        ("nothing", {}, r"no function called 'nothing'; the file defines .*export, fails"),
        ("no_program", {}, r"no_program\(\) returned int, expected a torch\.export\.Exported"),
        ("export", {"depth": 3}, r"unexpected keyword argument 'depth'"),
        ("fails", {"width": 3}, r"fails\(width=3\) failed\n(.|\n)*in helper\n(.|\n)*bad width 3"),
    ],
)
def test_user_errors(
    tmp_path: Path, entry_point: str, arguments: dict[str, Any], message: str
) -> None:
    src = project(tmp_path / "src")
    with pytest.raises(ExportError) as caught:
        export(src, entry_point, arguments, None, tmp_path / "m.pt2")
    assert str(caught.value).startswith(str(src))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "wrapgen/export.py" not in str(caught.value), "only the user's own frames"
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py", None, "does not exist"),
        ("syntax.py", "def export(:", "SyntaxError"),
        ("imports.py", "import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("not-a-name.py", "", "rename the file"),
    ],
)
def test_files_that_cannot_be_imported(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ExportError, match=message):
        export(tmp_path / name, "export", {}, None, tmp_path / "m.pt2")


def test_weights_errors(tmp_path: Path) -> None:
    src = project(tmp_path / "src")
    with pytest.raises(ExportError, match="weights file does not exist"):
        export(src, "export", {}, tmp_path / "none", tmp_path / "m.pt2")
    with pytest.raises(ExportError, match="given twice"):
        export(src, "export", {"weights": "x"}, src, tmp_path / "m.pt2")
