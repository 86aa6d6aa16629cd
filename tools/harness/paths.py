"""Where things are in the checkout."""

from __future__ import annotations

from pathlib import Path

HARNESS = Path(__file__).resolve().parent
ROOT = HARNESS.parent.parent
VENV_PYTHON = ROOT / ".venv/bin/python"
"""The Python that has the control plane; guests see it too."""
BUILD = ROOT / "build"
CACHE = BUILD / "cache"
ARTEFACTS = BUILD / "artefacts"
