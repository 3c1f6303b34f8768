"""What every test may use."""

import os
from pathlib import Path

import pytest
import torch
from planted import dirty, planted

__all__ = ["dirty", "planted"]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data sets and real backdoored models; tests that need it are skipped without it."""
    folder = Path(os.environ.get("GOODNET_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip("needs the real data: set GOODNET_SHARED_DATA to its folder")
    return folder
