# SPDX-License-Identifier: GPL-2.0-only
"""Only what pyproject.toml cannot say: the two modules that cffi compiles."""

from setuptools import setup

setup(
    cffi_modules=[
        "dmremap/dm/_build.py:builder",
        "dmremap/ondisk/_build.py:builder",
    ],
)
