"""No test touches the user's cache or ledger: both lie in a folder of the test run, also for subprocesses."""

import os
import tempfile

import pytest

_FOLDER = tempfile.TemporaryDirectory(prefix="foretune-tests-")
os.environ.setdefault("FORETUNE_CACHE", os.path.join(_FOLDER.name, "cache"))  # noqa: PTH118 (before any import)
os.environ["FORETUNE_LEDGER"] = "off"


@pytest.fixture
def elsewhere(monkeypatch):
    """Runs take a device that is not the CPU, and fail where a tensor stays behind on it; the device is returned."""
    from .other_device import DEVICE, other_device

    with other_device(monkeypatch):
        yield DEVICE
