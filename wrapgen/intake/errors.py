"""Why an archive is refused. One class a reason, so that a caller can tell them apart."""

from __future__ import annotations


class IntakeError(ValueError):
    """An archive that is refused. The message names the file, the place and, if any, a way out."""


class NotAnArchiveError(IntakeError):
    """The file is no zip archive, or its structure is broken or contradicts itself."""


class UnsafeNameError(IntakeError):
    """A member's name leaves the archive, occurs twice, or is no plain file."""


class SizeError(IntakeError):
    """The archive declares more data than the limits allow, or expands suspiciously."""


class PickleError(IntakeError):
    """Something the program needs is stored as a pickle, which would run code when opened."""


class VersionError(IntakeError):
    """The archive or the program in it has a version that this intake does not know."""


class ByteOrderError(IntakeError):
    """The payload is not little-endian."""


class DeviceError(IntakeError):
    """The program uses a device other than cpu and cuda."""


class DTypeError(IntakeError):
    """The program uses an element type that no target supports."""


class LayoutError(IntakeError):
    """A tensor is not strided, or its strides cannot be kept."""


class MissingMemberError(IntakeError):
    """A file or tensor that must be in the archive is not."""


class PayloadError(IntakeError):
    """The bytes of a tensor do not fit what is declared about it."""


class MalformedError(IntakeError):
    """JSON that does not parse, or a field that is missing, unknown, or of the wrong type."""


class UnsafeCodeError(IntakeError):
    """A field that PyTorch would evaluate holds something that is not a plain name or formula."""
