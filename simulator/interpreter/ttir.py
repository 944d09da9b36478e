"""Reads Triton's intermediate representation, TTIR, in the text form that Triton 3.7.1 prints.

The custom assembly of the tt, arith, math, scf, cf and ub dialects has one shape with few
exceptions: results, a name, operands among words, attributes, and types. So there is one reader for
all operations and one more for each exception; an operation that nobody knows is read, and refused
when it is to be executed.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from typing import Any, Final, NoReturn

from simulator.interpreter.errors import InterpreterError


@dataclasses.dataclass(frozen=True, slots=True)
class Type:
    """A type: ``shape`` of a tensor (empty for a scalar) and its ``element``.

    ``element`` is a scalar type's name (``f32``, ``i1``, ``index``, ``f8E4M3FN``), ``ptr`` or
    ``tensordesc``; the latter two have a ``pointee``. A tensor of pointers has the pointer's.
    """

    element: str
    shape: tuple[int, ...] = ()
    pointee: Type | None = None

    def with_element(self, element: str) -> Type:
        """A type of the same shape."""
        return Type(element, self.shape)

    def __str__(self) -> str:
        text = self.element if self.pointee is None else f"!tt.{self.element}<{self.pointee}>"
        if not self.shape:
            return text
        return f"tensor<{'x'.join(map(str, self.shape))}x{text}>"


@dataclasses.dataclass(slots=True, eq=False)
class Op:
    """An operation.

    Attributes:
      name: as in ``arith.addi``.
      operands: the values it takes, by number.
      results: the values it makes, by number.
      types: the types behind the colon up to the arrow, in order.
      result_types: one for each result.
      attributes: by name.
      words: what else stands among the operands, such as ``slt`` or ``acq_rel``.
      groups: the operands of each pair of brackets, in order.
      regions: nested blocks.
      successors: (block label, operands) of a branch.
      line: in the text, from 1.
      dying: values that nothing needs after this operation.
      cache: what the executor makes of it.
    """

    name: str
    operands: list[int]
    results: list[int]
    types: list[Type]
    result_types: list[Type]
    attributes: dict[str, Any]
    words: list[str]
    groups: list[list[int]]
    regions: list[list[Block]]
    successors: list[tuple[str, list[int]]]
    line: int
    dying: tuple[int, ...] = ()
    cache: Any = None


@dataclasses.dataclass(slots=True, eq=False)
class Block:
    """A basic block. ``arguments`` are values by number, ``types`` theirs."""

    label: str
    arguments: list[int]
    types: list[Type]
    ops: list[Op]


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function. ``divisibility`` is what Triton was promised; 1 if nothing."""

    name: str
    type: Type
    divisibility: int


@dataclasses.dataclass(slots=True, eq=False)
class Function:
    """A function. ``blocks`` is its body; ``functions`` all of its module, by name."""

    name: str
    public: bool
    parameters: tuple[Parameter, ...]
    arguments: list[int]
    result_types: list[Type]
    blocks: list[Block]
    line: int
    functions: dict[str, Function] = dataclasses.field(default_factory=dict)
    cache: Any = None


def parse(text: str) -> Function:
    """Reads a module and returns its kernel, the one public function.

    Raises ``InterpreterError`` that names the line of what cannot be read.
    """
    reader = _Reader(text)
    try:
        functions = reader.module()
    except (ValueError, IndexError, OverflowError, RecursionError, struct.error) as error:
        raise InterpreterError(f"TTIR line {reader.line()}: {error}") from error
    public = [function for function in functions.values() if function.public]
    if len(public) != 1:
        names = ", ".join(function.name for function in public) or "none"
        raise InterpreterError(f"TTIR has one public function, a kernel; this has: {names}")
    return public[0]


_SPACE: Final = re.compile(r"(?:\s|//[^\n]*)+")
_BLANK: Final = re.compile(r"(?:[ \t]|//[^\n]*)+")
_VALUE: Final = re.compile(r"%[A-Za-z0-9_$.\-]+(?:#\d+)?")
_COUNT: Final = re.compile(r":(\d+)")
_WORD: Final = re.compile(r"[A-Za-z_][\w.$]*")
_SYMBOL: Final = re.compile(r'@(?:"((?:[^"\\]|\\.)*)"|([\w.$\-]+))')
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LABEL: Final = re.compile(r"\^[\w$.\-]+")
_NUMBER: Final = re.compile(r"-?(?:0x[0-9A-Fa-f]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")
_DIMS: Final = re.compile(r"(?:\d+x)*")
_SCALAR: Final = re.compile(r"i\d+|index|bf16|tf32|f\d+(?:E\d+M\d+\w*)?|none")
_ALIAS: Final = re.compile(r"#[A-Za-z_][\w.]*(?:<[^>]*>)?")
_ESCAPE: Final = re.compile(r'\\([0-9A-Fa-f]{2}|[nt"\\])')

_SIMPLE_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}

_I1: Final = ("arith.cmpi", "arith.cmpf")


class _Reader:
    """A recursive-descent reader with a position in the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._scope: dict[str, int] = {}
        self._next = 0
        self._star = 0  # types before the last ``*``

    # Text.

    def line(self) -> int:
        """The line of the text that is being read, from 1."""
        return self._text.count("\n", 0, self._at) + 1

    def _fail(self, expected: str) -> NoReturn:
        start = self._text.rfind("\n", 0, self._at) + 1
        end = self._text.find("\n", self._at)
        line = self._text[start : len(self._text) if end < 0 else end].strip()
        raise InterpreterError(
            f"TTIR line {self.line()}: expected {expected} at column {self._at - start + 1}: "
            f"{line!r}"
        )

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        if match:
            self._at = match.end()

    def _ahead(self) -> int:
        """Where the next token begins."""
        match = _SPACE.match(self._text, self._at)
        return match.end() if match else self._at

    def _peek(self, literal: str) -> bool:
        return self._text.startswith(literal, self._ahead())

    def _take(self, literal: str) -> bool:
        """Takes a token if it is next. What fails takes nothing, no line break either."""
        at = self._ahead()
        end = at + len(literal)
        if not self._text.startswith(literal, at):
            return False
        if literal[-1].isalnum() and self._text[end : end + 1].isalnum():
            return False
        self._at = end
        return True

    def _expect(self, literal: str) -> None:
        if not self._take(literal):
            self._fail(repr(literal))

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._ahead())
        if match is None:
            return None
        self._at = match.end()
        return match.group()

    def _need(self, pattern: re.Pattern[str], what: str) -> str:
        found = self._match(pattern)
        if found is None:
            self._fail(what)
        return found

    def _end_of_line(self) -> bool:
        """Whether nothing but blanks and a comment is left of the line."""
        match = _BLANK.match(self._text, self._at)
        at = match.end() if match else self._at
        return at >= len(self._text) or self._text[at] == "\n"

    def _balanced(self) -> str:
        """Takes a bracketed text whole."""
        depth, start = 0, self._at
        while self._at < len(self._text):
            string = _STRING.match(self._text, self._at)
            if string:
                self._at = string.end()
                continue
            char = self._text[self._at]
            self._at += 1
            if char in "([{<":
                depth += 1
            elif char in ")]}>" and self._text[self._at - 2] != "-":
                depth -= 1
                if depth == 0:
                    return self._text[start : self._at]
        return self._fail("a closing bracket")

    def _location(self) -> None:
        """Skips ``loc(...)``."""
        if self._text.startswith("loc(", self._at):
            self._at += 3
            self._balanced()

    # Values.

    def _define(self, name: str, count: int = 1) -> list[int]:
        numbers = list(range(self._next, self._next + count))
        self._next += count
        if count == 1:
            self._scope[name] = numbers[0]
        for i, number in enumerate(numbers):
            self._scope[f"{name}#{i}"] = number
        return numbers

    def _operand(self) -> int:
        name = self._need(_VALUE, "a value")
        if name not in self._scope:
            self._fail(f"a value defined before; {name} is none")
        return self._scope[name]

    # Types.

    def type(self) -> Type:
        self._skip()
        if self._take("tensor<"):
            dims = self._need(_DIMS, "dimensions")
            element = self.type()
            if self._take(","):
                self._skip()
                self._need(_ALIAS, "an encoding")
            self._expect(">")
            shape = tuple(int(size) for size in dims.split("x") if size)
            return Type(element.element, shape + element.shape, element.pointee)
        if self._take("!tt.ptr<"):
            pointee = self.type()
            if self._take(","):
                self._need(_NUMBER, "an address space")
            self._expect(">")
            return Type("ptr", (), pointee)
        if self._take("!tt.tensordesc<"):
            return self._descriptor()
        if self._take("<"):  # a type whose name the operation implies
            inner = self.type()
            self._expect(">")
            return inner
        return Type(self._need(_SCALAR, "a type"))

    def _descriptor(self) -> Type:
        self._skip()
        if self._peek("tensor<"):
            pointee = self.type()
        else:
            dims = self._need(_DIMS, "dimensions")
            inner = self.type()
            pointee = Type(inner.element, tuple(int(s) for s in dims.split("x") if s))
        if self._take(","):
            self._need(_ALIAS, "an encoding")
        self._expect(">")
        return Type("tensordesc", (), pointee)

    def _types(self) -> list[Type]:
        """``T``, ``(T, U)`` or ``()``."""
        if not self._take("("):
            return [self.type()]
        found: list[Type] = []
        while not self._take(")"):
            found.append(self.type())
            self._take(",")
        return found

    def _signature(self) -> tuple[list[Type], list[Type]]:
        """What is behind an operation's colon: the operands' types, and the results' if said."""
        before: list[Type] = []
        after: list[Type] | None = None
        current = before
        while True:
            current += self._types()
            if self._end_of_line():
                break
            if self._take("->") or self._take("to"):
                after = current = []
            elif self._take("*"):
                self._star = len(before)
            elif not self._take(","):
                break
        return before, after or []

    # Attributes.

    def _attributes(self) -> dict[str, Any]:
        """``{name = value, flag}`` or ``<{...}>``."""
        wrapped = self._take("<{")
        if not wrapped:
            self._expect("{")
        found: dict[str, Any] = {}
        while not self._take("}"):
            self._skip()
            string = self._match(_STRING)
            name = string[1:-1] if string else self._need(_WORD, "an attribute's name")
            found[name] = self._attribute() if self._take("=") else True
            self._take(",")
        if wrapped:
            self._expect(">")
        return found

    def _attribute(self) -> Any:
        self._skip()
        string = self._match(_STRING)
        if string is not None:
            return _unescape(string[1:-1])
        if self._peek("array<"):
            self._at += len("array")
            body = self._balanced()[1:-1].partition(":")[2]
            return [_literal(item.strip()) for item in body.split(",") if item.strip()]
        if self._peek("dense<"):
            return self._dense()
        if self._take("["):
            items: list[Any] = []
            while not self._take("]"):
                items.append(self._attribute())
                self._take(",")
            return items
        if self._peek("{"):
            return self._attributes()
        number = self._match(_NUMBER)
        if number is not None:
            if self._take(":"):
                return _number(number, self.type().element)
            return _literal(number)
        symbol = self._match(_SYMBOL)
        if symbol is not None:
            return symbol[1:].strip('"')
        if self._peek("#"):
            return self._need(_ALIAS, "an attribute")
        word = self._need(_WORD, "an attribute")
        if self._text.startswith("<", self._at):
            word += self._balanced()
        return {"true": True, "false": False}.get(word, word)

    def _dense(self) -> Any:
        """``dense<...> : type``: a number, or nested lists of them."""
        self._expect("dense<")
        payload = self._dense_item()
        self._expect(">")
        if not self._take(":"):
            return payload
        return _numbers(payload, self.type())

    def _dense_item(self) -> Any:
        if self._take("["):
            items: list[Any] = []
            while not self._take("]"):
                items.append(self._dense_item())
                self._take(",")
            return items
        if self._peek(">"):
            return []
        string = self._match(_STRING)
        return string or self._match(_NUMBER) or self._need(_WORD, "a constant")

    # Structure.

    def module(self) -> dict[str, Function]:
        functions: dict[str, Function] = {}
        self._preamble()
        if self._take("module"):
            if self._match(_SYMBOL):
                pass
            if self._take("attributes"):
                self._attributes()
            self._expect("{")
            while not self._take("}"):
                function = self._function()
                functions[function.name] = function
        else:
            while self._peek("tt.func"):
                function = self._function()
                functions[function.name] = function
        for function in functions.values():
            function.functions = functions
        return functions

    def _preamble(self) -> None:
        """Skips aliases of attributes: ``#loc1 = loc(...)``."""
        while self._peek("#"):
            end = self._text.find("\n", self._at)
            self._at = len(self._text) if end < 0 else end

    def _function(self) -> Function:
        self._expect("tt.func")
        line = self.line()
        public = not self._take("private")
        self._take("public")
        symbol = self._need(_SYMBOL, "a function's name")
        self._scope, self._next = {}, 0
        self._expect("(")
        parameters: list[Parameter] = []
        arguments: list[int] = []
        while not self._take(")"):
            name = self._need(_VALUE, "a parameter")
            self._expect(":")
            kind = self.type()
            attributes = self._attributes() if self._peek("{") else {}
            self._skip()
            self._location()
            arguments += self._define(name)
            divisibility = attributes.get("tt.divisibility", 1)
            parameters.append(Parameter(name[1:], kind, int(divisibility)))
            self._take(",")
        results = self._types() if self._take("->") else []
        if self._take("attributes"):
            self._attributes()
        blocks = self._region(named=False)
        self._skip()
        self._location()
        function = Function(
            name=symbol[1:].strip('"'),
            public=public,
            parameters=tuple(parameters),
            arguments=arguments,
            result_types=results,
            blocks=blocks,
            line=line,
        )
        _mark_dying(function)
        return function

    def _region(
        self, arguments: list[tuple[str, Type]] | None = None, *, named: bool = True
    ) -> list[Block]:
        """``{ blocks }``; ``arguments`` are those of the first block where the operation says."""
        self._expect("{")
        outer = dict(self._scope) if named else self._scope
        numbers = [self._define(name)[0] for name, _ in arguments or []]
        block = Block("^entry", numbers, [kind for _, kind in arguments or []], [])
        blocks = [block]
        while not self._take("}"):
            label = self._match(_LABEL)
            if label is not None:
                fresh = Block(label, [], [], [])
                if self._take("("):
                    while not self._take(")"):
                        name = self._need(_VALUE, "a block's argument")
                        self._expect(":")
                        fresh.types.append(self.type())
                        self._skip()
                        self._location()
                        fresh.arguments += self._define(name)
                        self._take(",")
                self._expect(":")
                if len(blocks) == 1 and not block.ops and not block.arguments:
                    blocks = []
                blocks.append(fresh)
                block = fresh
                continue
            block.ops.append(self._op())
        self._scope = outer
        return blocks

    def _op(self) -> Op:
        names: list[tuple[str, int]] = []
        self._skip()
        line = self.line()
        if self._peek("%"):
            while True:
                name = self._need(_VALUE, "a result")
                several = _COUNT.match(self._text, self._at)
                if several:
                    self._at = several.end()
                names.append((name, int(several.group(1)) if several else 1))
                if not self._take(","):
                    break
            self._expect("=")
        generic = self._match(_STRING)
        name = generic[1:-1] if generic else self._need(_WORD, "an operation")
        op = Op(name, [], [], [], [], {}, [], [], [], [], line)
        # Operands come before the results exist.
        special = None if generic else getattr(self, "_op_" + name.replace(".", "_"), None)
        if special is not None:
            special(op)
        elif generic:
            self._generic(op)
        else:
            self._plain(op)
        self._skip_location()
        for result, count in names:
            op.results += self._define(result, count)
        self._set_result_types(op)
        return op

    def _skip_location(self) -> None:
        match = _BLANK.match(self._text, self._at)
        at = match.end() if match else self._at
        if self._text.startswith("loc(", at):
            self._at = at
            self._location()

    def _set_result_types(self, op: Op) -> None:
        if not op.results:
            return
        found = op.result_types
        if not found and op.types:
            first, last = op.types[0], op.types[-1]
            if op.name in _I1:
                found = [first.with_element("i1")]
            elif op.name == "tt.load":
                assert first.pointee is not None
                found = [Type(first.pointee.element, first.shape, first.pointee.pointee)]
            elif op.name == "tt.addptr":
                found = [first]
            elif op.name == "arith.addui_extended":
                found = op.types
            elif op.name == "tt.make_tensor_descriptor":
                found = [Type("tensordesc", (), last)]
            else:
                found = [last]
        if len(found) == 1:
            found = found * len(op.results)
        if len(found) != len(op.results):
            self._fail(f"types for the {len(op.results)} results of {op.name}")
        op.result_types = found

    def _plain(self, op: Op) -> None:
        """Operands, words and attributes in any order, then types, on one line."""
        while not self._end_of_line():
            self._skip()
            if self._text.startswith("loc(", self._at):
                return
            if self._text.startswith("%", self._at):
                op.operands.append(self._operand())
            elif self._take("["):
                group: list[int] = []
                while not self._take("]"):
                    group.append(self._operand())
                    self._take(",")
                op.groups.append(group)
                op.operands += group
            elif self._peek("{") or self._peek("<{"):
                op.attributes.update(self._attributes())
            elif self._take("->"):  # no operands, so no types of theirs
                op.result_types = self._types()
            elif self._take(":"):
                if not self._peek("%"):  # tt.print has a second colon before its operands
                    op.types, op.result_types = self._signature()
            elif self._peek('"'):
                op.words.append(_unescape(self._need(_STRING, "a string")[1:-1]))
            elif self._peek("@"):
                op.words.append(self._need(_SYMBOL, "a symbol")[1:].strip('"'))
            elif self._take(",") or self._take("(") or self._take(")"):
                pass
            else:
                self._word(op)

    def _word(self, op: Op) -> None:
        word = self._match(_WORD) or self._match(_NUMBER)
        if word is None:
            self._fail("an operand, a word or a type")
        if self._text.startswith("<", self._at):
            op.attributes[word] = self._balanced()[1:-1]
        elif self._take("="):
            op.attributes[word] = self._attribute()
        else:
            op.words.append(word)

    def _generic(self, op: Op) -> None:
        """``"name"(operands)[successors] <{...}> ({regions}) {...} : (types) -> types``."""
        self._expect("(")
        while not self._take(")"):
            op.operands.append(self._operand())
            self._take(",")
        if self._peek("<{"):
            op.attributes.update(self._attributes())
        if self._take("("):
            while not self._take(")"):
                op.regions.append(self._region())
                self._take(",")
        if self._peek("{"):
            op.attributes.update(self._attributes())
        self._expect(":")
        op.types = self._types()
        self._expect("->")
        op.result_types = self._types()

    def _op_arith_constant(self, op: Op) -> None:
        self._skip()
        if self._peek("{"):
            op.attributes.update(self._attributes())
        if self._peek("dense<"):
            self._expect("dense<")
            payload = self._dense_item()
            self._expect(">")
            self._expect(":")
            op.types = [self.type()]
            op.attributes["value"] = _numbers(payload, op.types[0])
            return
        word = self._match(_NUMBER) or self._need(_WORD, "a constant")
        op.types = [self.type()] if self._take(":") else [Type("i1")]
        op.attributes["value"] = _number(word, op.types[0].element)

    def _op_tt_dot_scaled(self, op: Op) -> None:
        """Each operand may have a scale; only the types tell: those of the left before ``*``."""
        self._plain(op)
        op.attributes["left"] = self._star

    def _op_scf_for(self, op: Op) -> None:
        """``%i = %a to %b step %c iter_args(%x = %y) -> (T) : i32 {...} {...}``."""
        if self._take("unsigned"):
            op.words.append("unsigned")
        iv = self._need(_VALUE, "an induction variable")
        self._expect("=")
        op.operands.append(self._operand())
        self._expect("to")
        op.operands.append(self._operand())
        self._expect("step")
        op.operands.append(self._operand())
        names: list[str] = []
        if self._take("iter_args"):
            names = self._carried(op)
            self._expect("->")
            op.result_types = self._types()
        kind = self.type() if self._take(":") else Type("index")
        op.types = [kind]
        arguments = list(zip([iv, *names], [kind, *op.result_types], strict=True))
        op.regions.append(self._region(arguments))
        self._trailing(op)

    def _carried(self, op: Op) -> list[str]:
        """``(%x = %y, ...)``: defines nothing yet; returns the new names."""
        names: list[str] = []
        self._expect("(")
        while not self._take(")"):
            names.append(self._need(_VALUE, "a carried value"))
            self._expect("=")
            op.operands.append(self._operand())
            self._take(",")
        return names

    def _trailing(self, op: Op) -> None:
        """Attributes behind a region, on its last line."""
        if not self._end_of_line() and self._peek("{"):
            op.attributes.update(self._attributes())

    def _op_scf_if(self, op: Op) -> None:
        op.operands.append(self._operand())
        if self._take("->"):
            op.result_types = self._types()
        op.regions.append(self._region())
        if self._take("else"):
            op.regions.append(self._region())
        self._trailing(op)

    def _op_scf_while(self, op: Op) -> None:
        """``(%x = %y) : (T) -> (U) {...} do {...}``."""
        names = self._carried(op) if self._peek("(") else []
        self._expect(":")
        op.types = self._types()
        self._expect("->")
        op.result_types = self._types()
        op.regions.append(self._region(list(zip(names, op.types, strict=True))))
        self._expect("do")
        op.regions.append(self._region())
        if self._take("attributes"):
            op.attributes.update(self._attributes())
        self._trailing(op)

    def _op_cf_br(self, op: Op) -> None:
        op.successors.append(self._successor())

    def _op_cf_cond_br(self, op: Op) -> None:
        op.operands.append(self._operand())
        if self._peek("weights"):
            self._take("weights")
            self._skip()
            self._balanced()
        for _ in range(2):
            self._expect(",")
            op.successors.append(self._successor())

    def _successor(self) -> tuple[str, list[int]]:
        label = self._need(_LABEL, "a block")
        operands: list[int] = []
        if self._text.startswith("(", self._at):
            self._expect("(")
            while not self._take(":"):
                operands.append(self._operand())
                self._take(",")
            while not self._take(")"):
                self.type()
                self._take(",")
        return label, operands


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        return _SIMPLE_ESCAPES.get(code) or chr(int(code, 16))

    return _ESCAPE.sub(replace, text)


def _literal(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


_FLOAT_FORMATS: Final = {"f64": ("<Q", "<d"), "f32": ("<I", "<f"), "f16": ("<H", "<e")}


def is_float(element: str) -> bool:
    """Whether a scalar type is a floating-point type, of any width."""
    return element.startswith(("f", "bf", "tf"))


def _number(text: str, element: str) -> int | float | bool:
    """A constant of a type; a hexadecimal one of a floating-point type is its bits."""
    if text in ("true", "false"):
        return text == "true"
    if not is_float(element):
        value = int(text, 0)
        return bool(value & 1) if element == "i1" else value
    if not text.lower().startswith("0x"):
        return float(text)
    bits = int(text, 16)
    if element == "bf16":
        return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])
    if element in _FLOAT_FORMATS:
        packed, unpacked = _FLOAT_FORMATS[element]
        return float(struct.unpack(unpacked, struct.pack(packed, bits))[0])
    return float8_value(bits, element)


def float8_value(bits: int, element: str) -> float:
    """The value of an 8-bit float: OCP's E4M3 (no infinities) or E5M2."""
    if element not in ("f8E4M3FN", "f8E5M2"):
        raise InterpreterError(f"constants of type {element} are not supported")
    mantissa_bits, bias = (3, 7) if element == "f8E4M3FN" else (2, 15)
    sign = -1.0 if bits & 0x80 else 1.0
    exponent = (bits & 0x7F) >> mantissa_bits
    mantissa = bits & ((1 << mantissa_bits) - 1)
    if element == "f8E4M3FN" and bits & 0x7F == 0x7F:
        return float("nan")
    if element == "f8E5M2" and exponent == 31:
        return float("nan") if mantissa else sign * float("inf")
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


def _numbers(payload: Any, kind: Type) -> Any:
    """A ``dense`` constant: one number for all elements, or a flat list of them."""
    if isinstance(payload, list):
        return [_number(item, kind.element) for item in _flatten(payload)]
    if payload.startswith('"'):
        raise InterpreterError(f"constants as raw bytes are not supported: {kind}")
    return _number(payload, kind.element)


def _flatten(items: list[Any]) -> list[str]:
    return [
        leaf for item in items for leaf in (_flatten(item) if isinstance(item, list) else [item])
    ]


def _mark_dying(function: Function) -> None:
    """Finds for each operation of a straight-line body the values it is the last to use."""
    if len(function.blocks) > 1:
        # What another block uses is not known here: only nested bodies are marked.
        for block in function.blocks:
            for op in block.ops:
                for region in op.regions:
                    for inner in region:
                        _mark_block(inner)
        return
    for block in function.blocks:
        _mark_block(block)


def _mark_block(block: Block) -> set[int]:
    """Marks a block; returns the values used in it that are defined outside."""
    defined = set(block.arguments)
    for op in block.ops:
        defined.update(op.results)
    seen: set[int] = set()
    outside: set[int] = set()
    for op in reversed(block.ops):
        used = set(op.operands)
        for _, operands in op.successors:
            used.update(operands)
        for region in op.regions:
            for inner in region:
                used |= _mark_block(inner)
        fresh = (used | set(op.results)) - seen
        op.dying = tuple(sorted(fresh & defined))
        seen |= used
        outside |= used - defined
    return outside
