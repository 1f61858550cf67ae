"""No test touches the user's cache or ledger: both lie in a folder of the test run, also for subprocesses."""

import os
import tempfile

_FOLDER = tempfile.TemporaryDirectory(prefix="foretune-tests-")
os.environ.setdefault("FORETUNE_CACHE", os.path.join(_FOLDER.name, "cache"))  # noqa: PTH118 (before any import)
os.environ["FORETUNE_LEDGER"] = "off"
