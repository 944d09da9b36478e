"""Checks the JSON of an exported program against PyTorch's schema, field by field.

The schema is that of ``torch/_export/serde/schema.py``, major version 8, written out here so that
this step needs no torch and so that a field unknown to us is refused instead of passed on.

What leaves is data only. PyTorch's own loader evaluates some strings: it parses size expressions
with ``sympify`` (an ``eval``), compiles guards (an ``exec``), imports the modules that tree
specifications name, looks operators up attribute by attribute, and writes names into Python source.
Those strings are held here to grammars in which nothing but names and formulas can be said.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import re
from collections.abc import Callable
from typing import Any, Final

from wrapgen.dtype import DType
from wrapgen.intake import guards
from wrapgen.intake.errors import (
    DeviceError,
    DTypeError,
    IntakeError,
    LayoutError,
    MalformedError,
    PickleError,
    UnsafeCodeError,
)

MAJOR: Final = 8
MINOR: Final = 20
"""The newest schema version known, that of torch 2.13."""

STRIDED: Final = 7

SCALAR_TYPES: Final[dict[int, DType | str]] = {
    1: DType.UINT8,
    2: DType.INT8,
    3: DType.INT16,
    4: DType.INT32,
    5: DType.INT64,
    6: DType.FLOAT16,
    7: DType.FLOAT32,
    8: DType.FLOAT64,
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: DType.BOOL,
    13: DType.BFLOAT16,
    28: DType.UINT16,
    29: DType.FLOAT8_E4M3FN,
    30: DType.FLOAT8_E5M2,
    31: DType.FLOAT8_E4M3FNUZ,
    32: DType.FLOAT8_E5M2FNUZ,
    33: "float8_e8m0fnu",
    34: DType.UINT32,
    35: DType.UINT64,
}
"""``ScalarType`` of the schema; a plain string is a type that exists and is not supported."""

# A type is a leaf (below), a struct, [T] a list, {T} a mapping from strings, {name:T} one from
# identifiers, T? a T or null. A field whose name ends in = may be absent.
_STRUCTS: Final[dict[str, dict[str, str]]] = {
    "ExportedProgram": {
        "graph_module": "GraphModule",
        "opset_version": "{int}",
        "range_constraints": "{symbol:RangeConstraint}",
        "schema_version": "SchemaVersion",
        "verifiers=": "[str]",
        "torch_version=": "version",
        "guards_code=": "[guard]",
    },
    "SchemaVersion": {"major": "int", "minor": "int"},
    "RangeConstraint": {"min_val": "int?", "max_val": "int?"},
    "GraphModule": {
        "graph": "Graph",
        "signature": "GraphSignature",
        "module_call_graph": "[ModuleCallEntry]",
        "metadata=": "{str}",
        "treespec_namedtuple_fields=": "{NamedTupleDef}",
    },
    "NamedTupleDef": {"field_names": "[str]"},
    "ModuleCallEntry": {"fqn": "str", "signature=": "ModuleCallSignature?"},
    "ModuleCallSignature": {
        "inputs": "[Argument]",
        "outputs": "[Argument]",
        "in_spec": "treespec",
        "out_spec": "treespec",
        "forward_arg_names=": "[name]?",
    },
    "Graph": {
        "inputs": "[Argument]",
        "outputs": "[Argument]",
        "nodes": "[Node]",
        "tensor_values": "{name:TensorMeta}",
        "sym_int_values": "{name:SymInt}",
        "sym_bool_values": "{name:SymBool}",
        "is_single_tensor_return=": "bool",
        "custom_obj_values=": "{CustomObjArgument}",
        "sym_float_values=": "{name:SymFloat}",
    },
    "Node": {
        "target": "operator",
        "inputs": "[NamedArgument]",
        "outputs": "[Argument]",
        "metadata": "{str}",
        "is_hop_single_tensor_return=": "bool?",
        "name=": "name?",
    },
    "NamedArgument": {"name": "argument_name", "arg": "Argument", "kind=": "int?"},
    "TensorMeta": {
        "dtype": "dtype",
        "sizes": "[SymInt]",
        "requires_grad": "bool",
        "device": "Device",
        "strides": "[SymInt]",
        "storage_offset": "SymInt",
        "layout": "layout",
    },
    "Device": {"type": "device", "index=": "int?"},
    "SymExpr": {"expr_str": "expression", "hint=": "SymExprHint?"},
    "TensorArgument": {"name": "name"},
    "TokenArgument": {"name": "name"},
    "GraphArgument": {"name": "name", "graph": "Graph"},
    "CustomObjArgument": {"name": "pickled", "class_fqn": "str"},
    "ComplexValue": {"real": "float", "imag": "float"},
    "GraphSignature": {"input_specs": "[InputSpec]", "output_specs": "[OutputSpec]"},
    "UserInputSpec": {"arg": "Argument"},
    "InputToConstantInputSpec": {"name": "name", "value": "ConstantValue"},
    "InputToParameterSpec": {"arg": "TensorArgument", "parameter_name": "fqn"},
    "InputToBufferSpec": {"arg": "TensorArgument", "buffer_name": "fqn", "persistent": "bool"},
    "InputToTensorConstantSpec": {"arg": "TensorArgument", "tensor_constant_name": "fqn"},
    "InputToCustomObjSpec": {"arg": "CustomObjArgument", "custom_obj_name": "str"},
    "InputTokenSpec": {"arg": "TokenArgument"},
    "UserOutputSpec": {"arg": "Argument"},
    "LossOutputSpec": {"arg": "TensorArgument"},
    "BufferMutationSpec": {"arg": "TensorArgument", "buffer_name": "fqn"},
    "ParameterMutationSpec": {"arg": "TensorArgument", "parameter_name": "fqn"},
    "GradientToParameterSpec": {"arg": "TensorArgument", "parameter_name": "fqn"},
    "GradientToUserInputSpec": {"arg": "TensorArgument", "user_input_name": "name"},
    "UserInputMutationSpec": {"arg": "TensorArgument", "user_input_name": "name"},
    "OutputTokenSpec": {"arg": "TokenArgument"},
    "PayloadConfig": {"config": "{PayloadMeta}"},
    "PayloadMeta": {
        "path_name": "str",
        "is_param": "bool",
        "use_pickle": "bool",
        "tensor_meta": "TensorMeta?",
    },
}

# Exactly one of the fields is there.
_UNIONS: Final[dict[str, dict[str, str]]] = {
    "SymExprHint": {"as_int": "int", "as_bool": "bool", "as_float": "float"},
    "SymInt": {"as_expr": "SymExpr", "as_int": "int"},
    "SymFloat": {"as_expr": "SymExpr", "as_float": "float"},
    "SymBool": {"as_expr": "SymExpr", "as_bool": "bool"},
    "SymIntArgument": {"as_name": "name", "as_int": "int"},
    "SymFloatArgument": {"as_name": "name", "as_float": "float"},
    "SymBoolArgument": {"as_name": "name", "as_bool": "bool"},
    "OptionalTensorArgument": {"as_tensor": "TensorArgument", "as_none": "bool"},
    "Argument": {
        "as_none": "bool",
        "as_tensor": "TensorArgument",
        "as_tensors": "[TensorArgument]",
        "as_int": "int",
        "as_ints": "[int]",
        "as_float": "float",
        "as_floats": "[float]",
        "as_string": "str",
        "as_strings": "[str]",
        "as_sym_int": "SymIntArgument",
        "as_sym_ints": "[SymIntArgument]",
        "as_scalar_type": "scalar_type",
        "as_memory_format": "int",
        "as_layout": "layout",
        "as_device": "Device",
        "as_bool": "bool",
        "as_bools": "[bool]",
        "as_sym_bool": "SymBoolArgument",
        "as_sym_bools": "[SymBoolArgument]",
        "as_graph": "GraphArgument",
        "as_optional_tensors": "[OptionalTensorArgument]",
        "as_custom_obj": "CustomObjArgument",
        "as_operator": "operator",
        "as_sym_float": "SymFloatArgument",
        "as_sym_floats": "[SymFloatArgument]",
        "as_optional_tensor": "OptionalTensorArgument",
        "as_complex": "ComplexValue",
        "as_nested_tensors": "[[TensorArgument]]",
        "as_int_lists": "[[int]]",
        "as_string_to_argument": "{argument_name:Argument}",
        "as_float_lists": "[[float]]",
    },
    "ConstantValue": {
        "as_none": "bool",
        "as_int": "int",
        "as_float": "float",
        "as_string": "str",
        "as_bool": "bool",
    },
    "InputSpec": {
        "user_input": "UserInputSpec",
        "parameter": "InputToParameterSpec",
        "buffer": "InputToBufferSpec",
        "tensor_constant": "InputToTensorConstantSpec",
        "custom_obj": "InputToCustomObjSpec",
        "token": "InputTokenSpec",
        "constant_input": "InputToConstantInputSpec",
    },
    "OutputSpec": {
        "user_output": "UserOutputSpec",
        "loss_output": "LossOutputSpec",
        "buffer_mutation": "BufferMutationSpec",
        "gradient_to_parameter": "GradientToParameterSpec",
        "gradient_to_user_input": "GradientToUserInputSpec",
        "user_input_mutation": "UserInputMutationSpec",
        "token": "OutputTokenSpec",
        "parameter_mutation": "ParameterMutationSpec",
    },
}

Rewrite = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Takes the name of a struct and its checked fields; returns what is to stand there instead."""


@dataclasses.dataclass(frozen=True)
class _Place:
    """A path into a file, spelled only when there is something to say about it."""

    text: str | int
    parent: _Place | None = None

    def __truediv__(self, part: str | int) -> _Place:
        return _Place(part, self)

    def __str__(self) -> str:
        if self.parent is None:
            return str(self.text)
        if isinstance(self.text, int):
            return f"{self.parent}[{self.text}]"
        return f"{self.parent}{': ' if self.parent.parent is None else '.'}{self.text}"


def parse_json(text: str, where: str) -> Any:
    """Parses strict JSON: no key twice, no NaN or Infinity, no nesting without end.

    Raises:
      MalformedError: with line and column.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(items)
        if len(fields) < len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise MalformedError(f"{where}: the key {twice!r} occurs twice in one object")
        return fields

    def constant(token: str) -> float:
        raise MalformedError(f"{where}: {token} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"{where}: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise MalformedError(f"{where}: nested too deeply") from error
    except IntakeError:
        raise
    except ValueError as error:  # an integer of more digits than Python converts
        raise MalformedError(f"{where}: {error}") from error


def check(value: Any, type_name: str, where: str, rewrite: Rewrite | None = None) -> Any:
    """Checks ``value`` against a type of the schema and returns a copy.

    Args:
      value: what ``parse_json`` gave.
      type_name: a type of the schema, such as ``ExportedProgram``.
      where: what the place in a message starts with.
      rewrite: called for each struct, innermost first.

    Raises:
      IntakeError: a sub-class says what is wrong, the message where.
    """
    try:
        return _check(value, _parse_type(type_name), _Place(where), rewrite or _keep)
    except RecursionError as error:
        raise MalformedError(f"{where}: nested too deeply") from error


def _keep(_: str, fields: dict[str, Any]) -> dict[str, Any]:
    return fields


@dataclasses.dataclass(frozen=True)
class _Type:
    kind: str  # "list", "map", "optional", "struct", "union" or "leaf"
    name: str = ""
    key: str = "str"
    item: _Type | None = None


@functools.cache
def _parse_type(text: str) -> _Type:
    if text.endswith("?"):
        return _Type("optional", item=_parse_type(text[:-1]))
    if text.startswith("["):
        return _Type("list", item=_parse_type(text[1:-1]))
    if text.startswith("{"):
        key, _, item = text[1:-1].rpartition(":")
        return _Type("map", key=key or "str", item=_parse_type(item))
    if text in _STRUCTS:
        return _Type("struct", text)
    if text in _UNIONS:
        return _Type("union", text)
    return _Type("leaf", text)


def _check(value: Any, spec: _Type, place: _Place, rewrite: Rewrite) -> Any:
    if spec.kind == "optional":
        assert spec.item is not None
        return None if value is None else _check(value, spec.item, place, rewrite)
    if spec.kind == "list":
        assert spec.item is not None
        items = _expect(list, value, place)
        return [_check(item, spec.item, place / i, rewrite) for i, item in enumerate(items)]
    if spec.kind == "map":
        assert spec.item is not None
        result = {}
        for key, item in _expect(dict, value, place).items():
            _LEAVES[spec.key](key, place / key)
            result[key] = _check(item, spec.item, place / key, rewrite)
        return result
    if spec.kind == "leaf":
        return _LEAVES[spec.name](value, place)
    if spec.kind == "union":
        return _check_union(value, spec.name, place, rewrite)
    return _check_struct(value, spec.name, place, rewrite)


def _check_union(value: Any, name: str, place: _Place, rewrite: Rewrite) -> dict[str, Any]:
    fields = _expect(dict, value, place)
    if len(fields) != 1:
        raise MalformedError(f"{place}: {name} needs exactly one field, not {len(fields)}")
    [(tag, content)] = fields.items()
    alternatives = _UNIONS[name]
    if tag not in alternatives:
        raise MalformedError(
            f"{place}: {name} has no alternative {tag!r}; known: {', '.join(alternatives)}"
        )
    return {tag: _check(content, _parse_type(alternatives[tag]), place / tag, rewrite)}


def _check_struct(value: Any, name: str, place: _Place, rewrite: Rewrite) -> dict[str, Any]:
    given = _expect(dict, value, place)
    checked = {}
    for declared, type_name in _STRUCTS[name].items():
        field = declared.removesuffix("=")
        if field in given:
            checked[field] = _check(given[field], _parse_type(type_name), place / field, rewrite)
        elif field == declared:
            raise MalformedError(f"{place}: {name} lacks the field {field!r}")
    for field in given:
        if field not in checked:
            raise MalformedError(
                f"{place}: {name} has a field {field!r} that schema {MAJOR}.{MINOR} does not know"
            )
    return rewrite(name, checked)


_JSON_NAMES: Final[dict[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _expect(kind: type, value: Any, place: _Place) -> Any:
    if type(value) is not kind:
        raise MalformedError(
            f"{place}: expected {_JSON_NAMES[kind]}, found {_JSON_NAMES[type(value)]}"
        )
    return value


# Leaves. Each takes a value and its place, and returns the value or raises.


def _integer(value: Any, place: _Place) -> int:
    number: int = _expect(int, value, place)
    if not -(1 << 63) <= number < 1 << 63:
        raise MalformedError(f"{place}: {number} does not fit 64 bits")
    return number


def _float(value: Any, place: _Place) -> float | int | str:
    """A number, or one of the strings that PyTorch writes for what JSON cannot say."""
    if isinstance(value, str) and value in ("Infinity", "-Infinity", "NaN"):
        return value
    if type(value) is int:
        return value
    number: float = _expect(float, value, place)
    return number


def _name(value: Any, place: _Place) -> str:
    """A Python identifier: PyTorch writes these names into source code and compiles it."""
    text: str = _expect(str, value, place)
    if not _IDENTIFIER.match(text):
        raise UnsafeCodeError(f"{place}: {text!r} is not an identifier")
    return text


def _argument_name(value: Any, place: _Place) -> str:
    return "" if value == "" else _name(value, place)


def _fqn(value: Any, place: _Place) -> str:
    text: str = _expect(str, value, place)
    if not text or len(text) > 1024 or not text.isprintable() or text == "__metadata__":
        raise MalformedError(f"{place}: {text[:80]!r} cannot be the name of a tensor")
    return text


def _symbol(value: Any, place: _Place) -> str:
    text: str = _expect(str, value, place)
    if not re.fullmatch(r"[A-Za-z0-9_ +*/()-]{1,256}", text):
        raise UnsafeCodeError(f"{place}: {text[:80]!r} is not a symbol")
    return text


def _operator(value: Any, place: _Place) -> str:
    text: str = _expect(str, value, place)
    if not _OPERATOR.match(text):
        raise UnsafeCodeError(
            f"{place}: {text[:80]!r} is no operator; expected torch.ops.NAMESPACE.NAME.OVERLOAD, "
            "or a function of operator, math or torch.sym_*"
        )
    return text


def _version(value: Any, place: _Place) -> str:
    """Only the public part: '2.13.0+cpu' and '2.13.0+cu126' export the same program."""
    text: str = _expect(str, value, place)
    if not re.fullmatch(r"(<=)?[0-9A-Za-z.+_-]{1,64}", text):
        raise MalformedError(f"{place}: {text[:80]!r} is no version")
    return text.partition("+")[0]


def _dtype(value: Any, place: _Place) -> int:
    code = _scalar_type(value, place)
    dtype = SCALAR_TYPES[code]
    if not isinstance(dtype, DType):
        raise DTypeError(f"{place}: {dtype} is not supported; supported are {', '.join(DType)}")
    return code


def _scalar_type(value: Any, place: _Place) -> int:
    code: int = _expect(int, value, place)
    if code not in SCALAR_TYPES:
        raise DTypeError(f"{place}: unknown element type {code}")
    return code


def _layout(value: Any, place: _Place) -> int:
    if _expect(int, value, place) != STRIDED:
        raise LayoutError(f"{place}: only strided tensors are supported, not layout {value}")
    return STRIDED


def _device(value: Any, place: _Place) -> str:
    text: str = _expect(str, value, place)
    if text not in ("cpu", "cuda"):
        raise DeviceError(
            f"{place}: the program uses device {text[:40]!r}; export it on cpu or cuda"
        )
    return text


def _pickled(_: Any, place: _Place) -> str:
    raise PickleError(
        f"{place}: the program uses a custom object (a torch.classes instance), which the archive "
        "stores as a pickle; pickles run code when opened and are never opened here. Export a "
        "model that keeps its state in tensors"
    )


def _guard(value: Any, place: _Place) -> str:
    text: str = _expect(str, value, place)
    if found := guards.fault(text):
        raise UnsafeCodeError(f"{place}: {text[:200]!r} is no condition on sizes: {found}")
    return text


def _string(value: Any, place: _Place) -> str:
    text: str = _expect(str, value, place)
    return text


def _bool(value: Any, place: _Place) -> bool:
    flag: bool = _expect(bool, value, place)
    return flag


_CONTAINERS: Final = (
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
)


def _treespec(value: Any, place: _Place) -> str:
    """How inputs or outputs nest: ``[1, {"type", "context", "children_spec"}]`` as a string.

    PyTorch imports whatever module an enum key or another container names, so that there are only
    plain containers with plain keys.
    """
    text: str = _expect(str, value, place)
    spec = parse_json(text, str(place))
    if not isinstance(spec, list) or len(spec) != 2 or spec[0] != 1:
        raise MalformedError(f"{place}: not a tree specification of protocol 1")
    _tree_node(spec[1], place)
    return json.dumps(spec, sort_keys=True)


def _tree_node(node: Any, place: _Place) -> None:
    if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
        raise MalformedError(f"{place}: expected type, context and children_spec")
    kind = node["type"]
    if kind is not None and kind not in _CONTAINERS:
        raise UnsafeCodeError(
            f"{place}: the model takes or returns {kind!r}; supported are {', '.join(_CONTAINERS)}"
            ". Wrap the model in a module whose forward uses those"
        )
    if node["context"] is not None:
        context = parse_json(_string(node["context"], place / "context"), str(place))
        keys = context if isinstance(context, list) else []
        plain = all(type(key) in (str, int) for key in keys)
        if not plain or not (context is None or isinstance(context, list)):
            raise UnsafeCodeError(f"{place}: a dict's keys must be strings or integers")
    children = _expect(list, node["children_spec"], place / "children_spec")
    for i, child in enumerate(children):
        _tree_node(child, place / "children_spec" / i)


_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}\Z")

_OPERATOR: Final = re.compile(
    r"torch\.ops\.[A-Za-z]\w*\.[A-Za-z_]\w*(\.[A-Za-z]\w*)?\Z"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift"
    r"|rshift|getitem)\Z"
    r"|math\.(trunc|ceil|floor)\Z"
    r"|torch\.(sym_\w+|_sym_\w+)\Z",
    re.ASCII,
)

_SYMPY: Final = frozenset(
    # sympy's own, as srepr writes them
    "Symbol Integer Float Rational Add Mul Pow Mod Max Min Abs floor ceiling Equality Unequality "
    "Eq Ne Lt Le Gt Ge StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not Piecewise "
    "ExprCondPair Tuple "
    # torch.utils._sympy.functions
    "FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat "
    "TruncToInt RoundToInt RoundDecimal ToFloat Identity BitwiseFn_bitwise_and "
    "BitwiseFn_bitwise_or BitwiseFn_bitwise_xor".split()
)
_SYMPY_CONSTANTS: Final = frozenset({"true", "false", "oo", "int_oo", "zoo", "nan"})
_ASSUMPTIONS: Final = frozenset(
    "positive integer nonnegative real negative zero finite nonzero commutative precision "
    "evaluate".split()
)
_POWERS: Final = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_MAX_EXPRESSION: Final = 20_000  # characters
_MAX_EXPONENT: Final = 64


def _expression(value: Any, place: _Place) -> str:
    """A size as sympy's ``srepr`` writes it, such as ``Mul(Integer(2), Symbol('s0'))``."""
    text: str = _expect(str, value, place)
    if len(text) > _MAX_EXPRESSION:
        raise UnsafeCodeError(f"{place}: an expression of {len(text)} characters")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError) as error:
        raise UnsafeCodeError(f"{place}: {text[:80]!r} is no expression") from error
    fault = _expression_fault(tree.body)
    if fault:
        raise UnsafeCodeError(f"{place}: {text[:80]!r} is no size expression: {fault}")
    return text


def _expression_fault(node: ast.expr) -> str | None:
    """Says what in a formula is not allowed, or ``None``."""
    if isinstance(node, ast.Constant):
        number = node.value
        if isinstance(number, int | float) and abs(number) < 1 << 63:
            return None  # True and False are integers
        return f"constant {node.value!r}"
    if isinstance(node, ast.Name):
        if node.id in _SYMPY_CONSTANTS or re.fullmatch(r"[a-z_]+[0-9]+", node.id):
            return None
        return f"name {node.id!r}"
    if isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub):
            return _expression_fault(node.operand)
        return "an operator"
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.FloorDiv | ast.Mod | ast.Div):
            return _expression_fault(node.left) or _expression_fault(node.right)
        return "an operator"
    if isinstance(node, ast.Call):
        return _call_fault(node)
    return type(node).__name__


def _call_fault(node: ast.Call) -> str | None:
    if not isinstance(node.func, ast.Name) or node.func.id not in _SYMPY:
        return f"a call of {ast.unparse(node.func)[:40]!r}"
    function = node.func.id
    for keyword in node.keywords:
        if keyword.arg not in _ASSUMPTIONS or not isinstance(keyword.value, ast.Constant):
            return f"keyword {keyword.arg!r}"
        if type(keyword.value.value) not in (bool, int):
            return f"keyword {keyword.arg!r}"
    if function in ("Symbol", "Float", "Integer"):
        if len(node.args) != 1:
            return f"{function} with {len(node.args)} arguments"
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            pattern = {
                "Symbol": r"[A-Za-z_][A-Za-z0-9_]{0,63}",
                "Float": r"-?[0-9]{1,40}(\.[0-9]{0,40})?(e[+-]?[0-9]{1,3})?",
                "Integer": r"-?[0-9]{1,19}",
            }[function]
            return None if re.fullmatch(pattern, argument.value) else f"{function} of a text"
        return "a symbol without a name" if function == "Symbol" else _expression_fault(argument)
    if function in _POWERS and len(node.args) == 2:
        exponent = node.args[1]
        if not _small(exponent):
            return f"an exponent that is no integer up to {_MAX_EXPONENT}"
    for argument in node.args:
        fault = _expression_fault(argument)
        if fault:
            return fault
    return None


def _small(node: ast.expr) -> bool:
    """Whether a node is an integer that is harmless as an exponent."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _small(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        return node.func.id == "Integer" and _small(node.args[0])
    return (
        isinstance(node, ast.Constant)
        and type(node.value) is int
        and abs(node.value) <= _MAX_EXPONENT
    )


_LEAVES: Final[dict[str, Callable[[Any, _Place], Any]]] = {
    "argument_name": _argument_name,
    "bool": _bool,
    "device": _device,
    "dtype": _dtype,
    "expression": _expression,
    "float": _float,
    "fqn": _fqn,
    "guard": _guard,
    "int": _integer,
    "layout": _layout,
    "name": _name,
    "operator": _operator,
    "pickled": _pickled,
    "scalar_type": _scalar_type,
    "str": _string,
    "symbol": _symbol,
    "treespec": _treespec,
    "version": _version,
}
