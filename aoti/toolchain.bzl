"""`aoti_toolchain`: wrapgen, its Python environment and the options that decide on bytes.

The registered one is `//aoti/toolchains:linux_x86_64`. To use another host instruction set, shard
count or ptxas, declare your own and register it before that one:

```starlark
load("@rules_aoti//aoti:toolchain.bzl", "aoti_toolchain")

aoti_toolchain(
    name = "haswell",
    march = "x86-64-v3",
)

toolchain(
    name = "haswell_toolchain",
    toolchain = ":haswell",
    toolchain_type = "@rules_aoti//aoti:toolchain_type",
)
```
"""

load("//aoti/private/rules:toolchain.bzl", _aoti_toolchain = "aoti_toolchain")

aoti_toolchain = _aoti_toolchain
