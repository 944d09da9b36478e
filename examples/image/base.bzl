"""What the image's base is made of: the three Debian packages that a C++ program needs.

Of Debian 12. The archive keeps the latest version of a package; its snapshot archive keeps all.
"""

load("//oci:debian.bzl", "debian_packages")

def base_debs():
    """Declares `@base_debs`."""
    debian_packages(
        name = "base_debs",
        packages = {
            "pool/main/g/gcc-12/libgcc-s1_12.2.0-14+deb12u1_amd64.deb": "3016e62cb4b7cd8038822870601f5ed131befe942774d0f745622cc77d8a88f7",
            "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb": "5cd3171216d4ab0fc911cfe9c35509bf2dd8f47761c43b7f6a4296701551a24d",
            "pool/main/g/glibc/libc6_2.36-9+deb12u14_amd64.deb": "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf",
        },
    )

def _base_impl(_mctx):
    base_debs()

base = module_extension(
    implementation = _base_impl,
    doc = "`@base_debs`.",
)
