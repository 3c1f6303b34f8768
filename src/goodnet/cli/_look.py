"""What the commands that audit files begin with: the method, the images and the device are there, then file by file."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from goodnet.cli._values import settings

if TYPE_CHECKING:
    from goodnet.audit.files import FileAudit


def ready(
    method: str,
    written: Sequence[str] = (),
    *,
    data: str | None,
    limit: int,
    arch: str | None,
    input_range: str | None,
    device: str,
    seed: int,
) -> "partial[FileAudit]":
    """``audit_file`` with everything that was asked for but the path; ``written`` are the method's "name=value" words.

    Raises:
        UsageError: no such method, parameter or device, or the method needs images and there are none.
    """
    from goodnet.audit._base import auditors
    from goodnet.audit.files import audit_file, require_data
    from goodnet.core.device import check_device

    chosen = auditors[method]
    auditor = chosen(**settings(chosen, written))
    require_data(auditor, data)
    check_device(device)
    return partial(
        audit_file,
        auditor=auditor,
        data=data,
        limit=limit,
        arch=arch,
        input_range=input_range,
        device=device,
        seed=seed,
    )
