"""Laying out C++ as clang-format does: Google style, 100 columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

COLUMNS: Final = 100

_COLUMNAR: Final = 5
"""clang-format arranges so many elements of an array, or more, in columns as it sees fit; such
arrays that need more than one line are kept from it."""


def fits(*lines: str) -> bool:
    """Whether each line is within the column limit."""
    return all(len(line) <= COLUMNS for line in lines)


def fill(indent: int, items: Sequence[str], closing: str) -> list[str]:
    """Puts comma-separated items in lines, as many in each as fit; ``closing`` ends the last."""
    pieces = [item + "," for item in items[:-1]] + [items[-1] + closing] if items else [closing]
    lines = [" " * indent + pieces[0]]
    for piece in pieces[1:]:
        longer = f"{lines[-1]} {piece}"
        if fits(longer):
            lines[-1] = longer
        else:
            lines.append(" " * indent + piece)
    return lines


def call(indent: int, head: str, args: Sequence[str], closing: str) -> list[str]:
    """Lays out ``head(args`` and ``closing``, which begins with the parenthesis; ``head`` may be
    the declaration of a function."""
    pad = " " * indent
    one = f"{pad}{head}({', '.join(args)}{closing}"
    if fits(one):
        return [one]
    column = indent + len(head) + 1
    lines = fill(column, args, closing)
    if fits(*lines):
        lines[0] = f"{pad}{head}({lines[0].lstrip()}"
        return lines
    return [f"{pad}{head}(", *fill(indent + 4, args, closing)]


def nested_call(indent: int, outer: str, head: str, args: Sequence[str]) -> list[str]:
    """Lays out the statement ``outer(head(args));``."""
    pad = " " * indent
    inner = f"{head}({', '.join(args)}));"
    if fits(f"{pad}{outer}({inner}"):
        return [f"{pad}{outer}({inner}"]
    if fits(f"{pad}    {inner}"):
        return [f"{pad}{outer}(", f"{pad}    {inner}"]
    if fits(f"{pad}{outer}({head}("):
        broken = [f"{pad}{outer}({head}(", *fill(indent + 4, args, "));")]
        aligned = call(indent, f"{outer}({head}", args, "));")
        return aligned if len(aligned) <= len(broken) else broken
    return [f"{pad}{outer}(", f"{pad}    {head}(", *fill(indent + 8, args, "));")]


def braced(indent: int, items: Sequence[str]) -> list[str]:
    """Lays out ``{items},`` as an element of a table."""
    pad = " " * indent
    one = f"{pad}{{{', '.join(items)}}},"
    if fits(one):
        return [one]
    if not any(item.startswith("{") for item in items):
        lines = fill(indent + 1, items, "},")
        return [f"{pad}{{{lines[0].lstrip()}", *lines[1:]]
    lines = [f"{pad} {item}," for item in items]
    lines[0] = f"{pad}{{{items[0]},"
    lines[-1] = f"{pad} {items[-1]}}},"
    return lines


def array(indent: int, declaration: str, items: Sequence[str]) -> list[str]:
    """Lays out ``declaration = {items};``, in one line, three, or with one item a line."""
    pad = " " * indent
    one = f"{pad}{declaration} = {{{', '.join(items)}}};"
    if fits(one):
        return [one]
    inner = [f"{pad}    {', '.join(items)},"]
    if fits(*inner) and len(items) >= _COLUMNAR:
        return [f"{pad}{declaration} = {{", *inner, f"{pad}}};"]
    inner = [f"{pad}    {item}," for item in items]
    lines = [f"{pad}{declaration} = {{", *inner, f"{pad}}};"]
    if len(items) < _COLUMNAR:
        return lines
    return [f"{pad}// clang-format off", *lines, f"{pad}// clang-format on"]


def statements(indent: int, code: Sequence[str]) -> list[str]:
    """Lays out statements, one a line. Those that are too long are broken at blanks and kept from
    clang-format, which weighs such breaks in ways of its own."""
    pad = " " * indent
    lines: list[str] = []
    for statement in code:
        if fits(pad + statement):
            lines.append(pad + statement)
            continue
        pieces = [pad]
        for word in statement.split(" "):
            if pieces[-1].strip() and not fits(f"{pieces[-1]} {word}"):
                pieces.append(f"{pad}    {word}")
            else:
                pieces[-1] += f" {word}" if pieces[-1].strip() else word
        lines += [f"{pad}// clang-format off", *pieces, f"{pad}// clang-format on"]
    return lines


def braced_value(declaration: str, items: Sequence[str]) -> list[str]:
    """Lays out ``declaration = {items};`` of an object."""
    one = f"{declaration} = {{{', '.join(items)}}};"
    if fits(one):
        return [one]
    head = f"{declaration} = {{"
    lines = fill(len(head), items, "};")
    if fits(*lines):
        return [head + lines[0].lstrip(), *lines[1:]]
    return [head, *fill(4, items, "};")]


def function_lines(
    declaration: str, lines: Sequence[str], *, unused: str, end: str = "return nullptr;"
) -> list[str]:
    """Lays out a function of indented lines and a last statement; its parameter ``unused`` has no
    name where the lines do not use it."""
    used = any(unused in line for line in lines if not line.lstrip().startswith("//"))
    if not used:
        declaration = declaration.replace(f"{unused})", f"/*{unused}*/)")
    if not lines:
        return function(declaration, [end])
    return [f"{declaration} {{", *lines, f"  {end}", "}"]


def function(declaration: str, body: Sequence[str]) -> list[str]:
    """Lays out a function; a body of one statement goes into the line of the declaration."""
    one = f"{declaration} {{ {body[0]} }}"
    if len(body) == 1 and fits(one):
        return [one]
    return [f"{declaration} {{", *(f"  {line}" for line in body), "}"]


def comment(indent: int, text: str, lead: str = "") -> list[str]:
    """Makes a ``//`` comment of one paragraph that begins with ``lead``; further lines are as much
    deeper."""
    return comment_of(indent, one_line(text).split(" "), lead)


def comment_of(indent: int, pieces: Sequence[str], lead: str = "") -> list[str]:
    """The same of pieces that are not to be broken. At least one piece."""
    margin = " " * indent + "// "
    lines = [margin + lead + one_line(pieces[0])]
    for piece in pieces[1:]:
        longer = f"{lines[-1]} {one_line(piece)}"
        if fits(longer):
            lines[-1] = longer
        else:
            lines.append(margin + " " * len(lead) + one_line(piece))
    return [line.rstrip() for line in lines]


def with_comments(indent: int, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Puts each row's comment behind its code, aligned; above it where the lines get too long."""
    pad = " " * indent
    width = max((len(code) for code, _ in rows), default=0)
    lines = [f"{pad}{code:{width}}  // {one_line(note)}" for code, note in rows]
    if fits(*lines):
        return lines
    return [line for code, note in rows for line in (*comment(indent, note), pad + code)]


def one_line(text: str) -> str:
    """Makes any text safe inside a ``//`` comment: one line that does not end in a backslash."""
    text = "".join(c if c.isprintable() else " " for c in text)
    text = re.sub(r" +", " ", text).strip()
    return text + "." if text.endswith(("\\", "??/")) else text


def string(text: str) -> str:
    """A C++ string literal of the text's UTF-8 bytes."""
    result = ""
    for byte in text.encode():
        character = chr(byte)
        if character in '"\\?':
            result += "\\" + character
        elif 32 <= byte < 127:
            result += character
        else:
            result += f"\\{byte:03o}"
    return f'"{result}"'
