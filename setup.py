"""What setup.cfg cannot say: the native engine, and the file that arms `_tornado_ws_finder` where Python starts.

The native engine is optional: without a compiler the pure Python one is installed, with a warning.
"""

from __future__ import annotations

import ast
import os
import sys
from glob import glob
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build import build

#: Python runs a line of a .pth file at every start, so it imports nothing where nobody has asked for it.
PTH_FILE = "tornado_ws.pth"
PTH_LINE = 'import os; os.environ.get("TORNADO_WS") and __import__("_tornado_ws_finder").arm_if_asked()\n'


class BuildPth(Command):
    """Put `PTH_FILE` into the root of a wheel, also of the one that an editable install is made of."""

    description = f"make {PTH_FILE}"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = []
    editable_mode = False
    build_lib: str | None

    def initialize_options(self) -> None:
        self.build_lib = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        # An editable wheel takes no modules out of the folder of the build.
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        self.mkpath(folder)
        with open(os.path.join(folder, PTH_FILE), "w") as file:
            file.write(PTH_LINE)

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return [] if self.editable_mode else [os.path.join(str(self.build_lib), PTH_FILE)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


build.sub_commands = [*build.sub_commands, ("build_pth", None)]


#: The sizes of arrays, and other constants, that the native engine's compiler has to know.
COMPILED_IN = ["BUSY", "CORK_SIZE", "LARGE", "MESSAGES_PER_TURN", "READ_SIZE", "SEND_SIZE", "SOCKETS_PER_TURN"]


def constants_of(module: str) -> dict[str, int]:
    """Return `COMPILED_IN` as ``module`` says, without importing it: what it imports may not be installed yet."""
    with open(module) as file:
        assigned = [node for node in ast.parse(file.read()).body if isinstance(node, ast.Assign)]
    values = {ast.unparse(node.targets[0]): node.value for node in assigned}
    return {name: eval(ast.unparse(values[name]), {}) for name in COMPILED_IN}


extensions = []
if sys.platform != "win32" and sys.implementation.name == "cpython":
    extensions = [
        Extension(
            "tornado_ws.engine._native",
            ["tornado_ws/engine/_native.pyx"],
            depends=["tornado_ws/engine/contract.py", *glob("tornado_ws/engine/native/*")],
            extra_compile_args=["-O3"],
            optional=True,
        ),
        Extension(
            "tornado_ws.deflate._deflate",
            ["tornado_ws/deflate/_deflate.pyx"],
            depends=["tornado_ws/deflate/libz.h"],
            extra_compile_args=["-O3"],
            optional=True,
        ),
    ]
    extensions[0].cython_compile_time_env = constants_of("tornado_ws/engine/contract.py")

setup(ext_modules=extensions, cmdclass={"build_pth": BuildPth})
