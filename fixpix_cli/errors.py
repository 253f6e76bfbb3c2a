"""Floor 0. The error tree; each class knows its exit code.

    FixpixError
    ├── FrameError (1)          one frame cannot be done; the others go on
    │   ├── UnreadableError     damaged, truncated, not what its name says
    │   ├── RefusedError        readable, but cannot be rewritten safely
    │   ├── NoMapError          no fitting defect map and no --auto
    │   ├── MismatchError       a map or mask of another shape, camera or row order
    │   └── OutputExistsError   the output is there already
    ├── UsageError (2)          the command line itself is wrong
    ├── UnusableError (3)       a resource of the whole run cannot be used
    │   ├── StoreError          the map store
    │   ├── ModelError          a model file or its card
    │   ├── DeviceError         the device that nets shall run on
    │   ├── ClusterError        the cluster, its workers or the storage that they share
    │   └── OutputFolderError   the output folder
    └── Interrupted (130)       Ctrl-C

Foreign exceptions (OSError, LibRaw, astropy, tifffile, onnxruntime) are
translated once, in the keeper of the library, never here.
"""


class FixpixError(Exception):
    """Base of everything that fixpix raises on purpose; ``str()`` is one line for the user."""

    exit_code = 1


class FrameError(FixpixError):
    """One frame failed; the message says what is wrong and what to do."""


class UnreadableError(FrameError):
    """The file is damaged, truncated or not what its name says."""


class RefusedError(FrameError):
    """The file can be read but not rewritten without touching good pixels."""


class NoMapError(FrameError):
    """No defect map fits this frame and ``--auto`` was not given."""


class MismatchError(FrameError):
    """A map or mask does not belong to this frame."""


class OutputExistsError(FrameError):
    """The output exists and neither ``--overwrite`` nor ``--resume`` was given."""


class UsageError(FixpixError):
    """The request makes no sense; nothing was done."""

    exit_code = 2


class UnusableError(FixpixError):
    """Something that the whole run needs cannot be used."""

    exit_code = 3


class StoreError(UnusableError):
    """The map store or a map file cannot be used."""


class ModelError(UnusableError):
    """A model file or its card cannot be used."""


class DeviceError(UnusableError):
    """The device that was asked for is not there."""


class ClusterError(UnusableError):
    """The cluster cannot be reached, or its workers cannot do the work."""


class OutputFolderError(UnusableError):
    """The output folder cannot be created or written."""


class Interrupted(FixpixError):
    """The user pressed Ctrl-C; only whole files are left behind."""

    exit_code = 130
