"""The native engine, which is optional: without a compiler the pure Python one is installed, with a warning."""

from __future__ import annotations

import sys

from setuptools import Extension, setup

extensions = []
if sys.platform != "win32" and sys.implementation.name == "cpython":
    extensions = [
        Extension(
            "tornado_ws._native",
            ["tornado_ws/_native.pyx"],
            depends=["tornado_ws/_native.h", "tornado_ws/_tls.h"],
            extra_compile_args=["-O3"],
            optional=True,
        ),
        Extension(
            "tornado_ws._deflate",
            ["tornado_ws/_deflate.pyx"],
            depends=["tornado_ws/_zlib.h"],
            extra_compile_args=["-O3"],
            optional=True,
        ),
    ]

setup(ext_modules=extensions)
