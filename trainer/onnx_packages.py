"""What ONNX needs beside the locked packages, looked for without importing any of it."""

from __future__ import annotations

import importlib.util

from trainer.errors import InputError

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def check_packages() -> None:
    """Raise `InputError` unless all that `export.onnx` needs is installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"export.onnx is true, but {', '.join(missing)} can not be imported, expected the "
            "packages of requirements/onnx.txt: pip install -r requirements/onnx.txt"
        )
