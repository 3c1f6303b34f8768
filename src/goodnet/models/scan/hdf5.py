"""HDF5 files, walked in a process of their own: the HDF5 library itself can crash or hang on a hostile file."""

import json
import os
import subprocess
import sys

from goodnet.models.scan.base import MIB, Broken, Finding, Window

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_SECONDS = 15
_BYTES_PER_SECOND = 20 * MIB


def scan_hdf5(window: Window) -> list[Finding]:
    """What an HDF5 file would execute, and what cannot be read.

    Raises:
        Broken: the HDF5 library crashes on the file or takes too long.
    """
    if window.path is None:
        raise Broken("an HDF5 file inside a packed archive")
    # -P and no relative paths: a module that lies beside the file must never be imported
    command = [sys.executable, "-P", "-m", "goodnet.models.scan.hdf5_walk", str(window.path.absolute())]
    paths = os.pathsep.join(path for path in sys.path if os.path.isabs(path))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        walk = subprocess.run(
            [*command, str(window.start), str(window.size)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS + window.size / _BYTES_PER_SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Broken("the HDF5 library hangs on this file") from None
    if walk.returncode:
        raise Broken(f"the HDF5 library fails on this file (exit status {walk.returncode}): it is damaged or hostile")
    return [Finding(**finding) for finding in json.loads(walk.stdout)]
