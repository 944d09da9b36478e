"""Where a package comes from: its in-toto statement and its SPDX bill of materials, written by the
package step and checked by ``wrapgen verify``. docs/provenance.md describes both files.

``facts`` is what both say; ``statement`` and ``sbom`` are functions of it, and no fact is of a
time, a host or a path. ``verify`` gathers the facts again from what is in a package, has both files
written again, and compares.
"""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "manifest.json"
"""The manifest's path below the package's folder."""

MANIFEST_VERSION: Final = 2
"""``schema_version`` of the manifest."""

STATEMENT: Final = "provenance.json"
"""The statement's path below the package's folder."""

SBOM: Final = "sbom.spdx.json"
"""The bill of materials' path below the package's folder."""
