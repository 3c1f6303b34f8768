"""Everything that goodnet raises on purpose.

GoodnetError
├── UsageError             the call is wrong; the message says what to pass      (exit code 2)
│   ├── ParameterError     a hyper-parameter is out of its range                 (also ValueError)
│   ├── UnknownName        a method, architecture or data set that does not exist (also KeyError)
│   ├── NotHeld            a method needs something that its Defender does not hold
│   └── NotApplicable      a method cannot work on this network, such as one without BatchNorm
├── UnreadableFile         a file that cannot be read as what it should be       (exit code 2)
│   ├── UnreadableModel    truncated, absurd or unsupported model file
│   ├── UnknownArchitecture  weights that fit no known architecture, or several
│   └── UnreadableData     no images found, wrong layout, wrong shapes
└── UnsafeFile             loading the file would execute something              (exit code 1)
"""


class GoodnetError(Exception):
    """The root: catch this to catch everything that goodnet raises on purpose."""


class UsageError(GoodnetError):
    """The call is wrong; the message says what to pass instead."""


class ParameterError(UsageError, ValueError):
    """A hyper-parameter is out of its range; the message names it."""


class UnknownName(UsageError, KeyError):
    """No method, architecture or data set has this name; the message lists those that exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotHeld(UsageError):
    """A method needs something (clean images, a model ...) that its Defender does not hold."""


class NotApplicable(UsageError):
    """A method cannot work on this network (no BatchNorm, no linear layer ...); the message says why."""


class UnreadableFile(GoodnetError):
    """A file cannot be read as what it should be."""


class UnreadableModel(UnreadableFile):
    """A model file is truncated, absurd or of a kind that goodnet does not read."""


class UnknownArchitecture(UnreadableFile):
    """Weights fit no known architecture, or several; the message says which and what to pass."""


class UnreadableData(UnreadableFile):
    """A data set has no images, the wrong layout or the wrong shapes."""


class UnsafeFile(GoodnetError):
    """Loading this file the usual way would execute something; nothing was executed.

    Attributes:
        findings: one line for each thing that the file would execute.
    """

    def __init__(self, message: str, findings: tuple[str, ...] = ()):
        super().__init__(message)
        self.findings = findings
