"""What setup.cfg cannot say: the native engine, what was compiled into it, and the file that arms `_tornado_ws_finder`.

A build without the native engine has to be asked for, by ``TORNADO_WS_PURE=1`` in the environment: pip keeps the wheels
that it builds, and would install one without it on a machine that has got a compiler since.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import sysconfig
from glob import glob
from importlib.metadata import version
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

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
COMPILED_IN = [
    "BUSY",
    "CORK_SIZE",
    "ENOUGH_AHEAD",
    "LARGE",
    "MESSAGES_PER_TURN",
    "READ_SIZE",
    "SEND_SIZE",
    "SOCKETS_PER_TURN",
]


def constants_of(module: str) -> dict[str, int]:
    """Return `COMPILED_IN` as ``module`` says, without importing it: what it imports may not be installed yet."""
    with open(module) as file:
        assigned = [node for node in ast.parse(file.read()).body if isinstance(node, ast.Assign)]
    values = {ast.unparse(node.targets[0]): node.value for node in assigned}
    return {name: eval(ast.unparse(values[name]), {}) for name in COMPILED_IN}


def wants_native_engine() -> bool:
    """Return whether the native engine is to be built. Raises SystemExit for a ``TORNADO_WS_PURE`` of no meaning."""
    pure = os.environ.get("TORNADO_WS_PURE", "")
    if pure not in ("", "0", "1"):
        raise SystemExit(f"TORNADO_WS_PURE={pure!r} in the environment has no meaning; 1 has, and 0 or nothing")
    # It would have a free-threaded Python turn its GIL on.
    return pure != "1" and sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def native_engine() -> list[Extension]:
    is_windows = sys.platform == "win32"
    # Python's own flags may ask for symbols, which are most of a module. Who asks for them in CFLAGS gets them.
    with_symbols = "-g" in os.environ.get("CFLAGS", "").split()
    flags = [] if is_windows else ["-O3"] if with_symbols else ["-O3", "-g0"]
    engine = Extension(
        "tornado_ws.engine._native",
        ["tornado_ws/engine/_native.pyx"],
        depends=["tornado_ws/engine/contract.py", *glob("tornado_ws/engine/native/*")],
        extra_compile_args=flags,
        libraries=["ws2_32"] if is_windows else [],
    )
    engine.cython_compile_time_env = constants_of("tornado_ws/engine/contract.py")
    deflate = Extension(
        "tornado_ws.deflate._deflate",
        ["tornado_ws/deflate/_deflate.pyx"],
        depends=["tornado_ws/deflate/libz.h"],
        extra_compile_args=flags,
    )
    return [engine, deflate]


WITHOUT_COMPILER = """
tornado_ws: the native engine could not be built: {error}

It needs a C compiler, Python's headers and Cython. The wheels of a release need none of them; the one that ends in
-py3-none-any.whl is for every platform. TORNADO_WS_PURE=1 in the environment builds such a one here, of the pure Python
engine alone, which takes several times as long for each message; add --no-cache-dir, or pip installs it again later.
"""


class BuildEngine(build_ext):
    """Build the native engine, or say what to do."""

    def run(self) -> None:
        if not self.inplace and not self.editable_mode:
            for extension in self.extensions:
                extension.extra_link_args += self._without_symbols(extension)
        try:
            super().run()
        except Exception as error:
            raise SystemExit(WITHOUT_COMPILER.format(error=error)) from error

    def build_extension(self, extension: Extension) -> None:
        """Build it, unless the one that stands beside its sources, for an editable install, is newer than they are."""
        file = self.get_ext_fullpath(extension.name)
        known = os.path.join(*extension.name.split(".")[:-1], os.path.basename(file))
        sources = ["setup.py", *extension.sources, *extension.depends]
        is_known = self.editable_mode and os.path.exists(known)
        if is_known and os.path.getmtime(known) > max(map(os.path.getmtime, sources)):
            self.mkpath(os.path.dirname(file))
            self.copy_file(known, file)
        else:
            super().build_extension(extension)

    @staticmethod
    def _without_symbols(extension: Extension) -> list[str]:
        if "-g0" not in extension.extra_compile_args:
            return []
        return ["-Wl,-S,-x"] if sys.platform == "darwin" else ["-Wl,-s"]


class WheelWithSbom(bdist_wheel):
    """Put a list of what was compiled in into the wheel (PEP 770), by CycloneDX 1.6."""

    def write_wheelfile(self, folder: str, *arguments: str) -> None:
        super().write_wheelfile(folder, *arguments)
        self.mkpath(os.path.join(folder, "sboms"))
        with open(os.path.join(folder, "sboms", "tornado_ws.cdx.json"), "w") as file:
            json.dump(self._sbom(), file, indent=2)

    def _sbom(self) -> dict[str, object]:
        ours = self._component("tornado-ws", self.distribution.get_version())
        # Nothing is linked: OpenSSL and zlib are those that Python has loaded.
        others = [self._component("cython", version("Cython"))] if self.distribution.ext_modules else []
        return {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": ours},
            "components": others,
            "dependencies": [{"ref": ours["bom-ref"], "dependsOn": [each["bom-ref"] for each in others]}],
        }

    @staticmethod
    def _component(name: str, number: str) -> dict[str, object]:
        purl = f"pkg:pypi/{name}@{number}"
        license_ = [{"license": {"id": "Apache-2.0"}}]
        return {"type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": number, "licenses": license_}


def home() -> str:
    """Return the address of the repository whose workflow builds this, "" where it is built by hand."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}" if repository else ""


def long_description(home: str) -> str:
    """Return the README for the package's page at an index, where links from it to other files would lead nowhere."""
    with open("README.md", encoding="utf-8") as file:
        text = file.read()
    # For the tests.
    text = re.sub(r"^<!--.*?-->\n+", "", text, flags=re.DOTALL | re.MULTILINE)
    if not home:
        return text
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:|#)", rf"\1{home}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", rf"\1{home}/blob/main/", text)


def project_urls(home: str) -> dict[str, str]:
    if not home:
        return {}
    return {
        "Source": home,
        "Documentation": f"{home}/tree/main/docs",
        "Changelog": f"{home}/blob/main/CHANGELOG.md",
        "Issues": f"{home}/issues",
        "Security": f"{home}/security/policy",
    }


setup(
    long_description=long_description(home()),
    long_description_content_type="text/markdown",
    project_urls=project_urls(home()),
    ext_modules=native_engine() if wants_native_engine() else [],
    cmdclass={"bdist_wheel": WheelWithSbom, "build_ext": BuildEngine, "build_pth": BuildPth},
)
