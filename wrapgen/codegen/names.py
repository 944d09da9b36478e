"""C++ names for things that have names of their own: weights, temporaries, kernels, models."""

from __future__ import annotations

import re
from typing import Final

from wrapgen.codegen.errors import CodegenError

# https://en.cppreference.com/w/cpp/keyword, up to C++23.
KEYWORDS: Final = frozenset(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
    char32_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
    constinit continue decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
    nullptr operator or or_eq private protected public register reinterpret_cast requires return
    short signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while
    xor xor_eq""".split()
)

_MODEL_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")
# A class cannot have the name of one of its members; names that begin with the runtime's prefix
# could be those of its functions, as aoti_model_description is.
_PREFIX: Final = "aoti"
_RESERVED_MODELS: Final = frozenset(
    {
        "create_session",
        "get",
        "get_weights",
        "inputs",
        "layouts",
        "load",
        "load_weights",
        "main",
        "model",
        "output_layouts",
        "outputs",
        "session",
        "std",
        "swap_weights",
    }
)


def check_model_name(name: str) -> None:
    """Raises ``CodegenError`` unless ``name`` can name a namespace and C functions."""
    if (
        not _MODEL_NAME.match(name)
        or name in KEYWORDS
        or name in _RESERVED_MODELS
        or name.partition("_")[0] == _PREFIX
    ):
        raise CodegenError(
            f"{name!r} cannot name a model: expected lowercase words joined by single "
            "underscores, such as resnet_b32, that are no word of C++, do not begin with "
            f"{_PREFIX} and are none of " + ", ".join(sorted(_RESERVED_MODELS))
        )


def pascal(text: str) -> str:
    """``layer1.0.conv2.weight`` becomes ``Layer1_0Conv2Weight``; two digits are kept apart."""
    result = ""
    for word in re.findall(r"[A-Za-z0-9]+", text):
        if result and result[-1].isdigit() and word[0].isdigit():
            result += "_"
        result += word[0].upper() + word[1:]
    return result


class Namer:
    """Gives each key a name of its own within one scope, whatever keys look alike."""

    def __init__(self, reserved: frozenset[str] = frozenset()) -> None:
        self._names: dict[str, str] = {}
        self._taken = set(reserved)

    def name(self, key: str, wanted: str) -> str:
        """The name of ``key``: ``wanted``, or with a number behind it if that is taken."""
        if key not in self._names:
            name, count = wanted, 1
            while name in self._taken or name in KEYWORDS:
                count += 1
                name = f"{wanted}_{count}"
            self._taken.add(name)
            self._names[key] = name
        return self._names[key]
