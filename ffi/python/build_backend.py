"""Builds the wheel: the Python files of this folder, and the files that `cargo xtask dist` has built, as data.

A backend of PEP 517. `pip wheel --no-deps --config-settings tree=FOLDER ffi/python` runs it in an environment with
cffi; FOLDER holds bin, lib and include. The wheel suits every CPython from 3.9 on and every Linux whose glibc has the
symbols that the packed files need.
"""

import base64
import hashlib
import re
import tempfile
import zipfile
from pathlib import Path

import cdef
import elf

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAME = "galley_engine"
LIBRARY = "libgalley.so.0"

METADATA = """\
Metadata-Version: 2.1
Name: galley-engine
Version: {version}
Summary: LLM inference with paged attention and lossless speculative decoding: the same bytes under any load
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.9
Requires-Dist: cffi>=1.15
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

{description}"""
WHEEL = """\
Wheel-Version: 1.0
Generator: galley build_backend
Root-Is-Purelib: false
Tag: {tag}
"""
ENTRY_POINTS = """\
[console_scripts]
galley = galley.__main__:main
"""


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Writes the wheel and returns its file name."""
    folder = (config_settings or {}).get("tree")
    if not folder:
        raise SystemExit("the setting \"tree\" is missing: `cargo xtask dist --wheel` builds the tree and calls this")
    tree = Path(folder)
    if not (tree / "lib" / LIBRARY).is_file():
        raise SystemExit(f"{tree}/lib/{LIBRARY} is not there: `cargo xtask dist --wheel` builds it and calls this")
    version = workspace_version((ROOT / "Cargo.toml").read_text())
    binaries = binary_files(tree)
    tag = platform_tag([elf.ElfFile(path) for path in binaries.values()])
    contents = {f"galley/{path.relative_to(HERE / 'galley')}": path.read_bytes() for path in sources()}
    contents["galley/_version.py"] = f'"""The version of this package."""\n\n__version__ = "{version}"\n'.encode()
    contents["galley/_cffi.py"] = bindings((tree / "include/galley.h").read_text())
    contents.update({f"galley/_tree/{name}": path.read_bytes() for name, path in binaries.items()})
    info = f"{NAME}-{version}.dist-info"
    contents[f"{info}/METADATA"] = metadata(version)
    contents[f"{info}/WHEEL"] = WHEEL.format(tag=tag).encode()
    contents[f"{info}/entry_points.txt"] = ENTRY_POINTS.encode()
    contents[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    contents[f"{info}/RECORD"] = record(contents, f"{info}/RECORD")
    name = f"{NAME}-{version}-{tag}.whl"
    write_zip(Path(wheel_directory) / name, contents)
    return name


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Writes METADATA alone, so that pip reads it without a second build of the wheel."""
    version = workspace_version((ROOT / "Cargo.toml").read_text())
    info = Path(metadata_directory) / f"{NAME}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_bytes(metadata(version))
    return info.name


def build_sdist(sdist_directory, config_settings=None):
    """There is none: the Rust sources of the library are not in this folder."""
    raise SystemExit("galley-engine has no source distribution: `cargo xtask dist --wheel` builds the wheel")


def metadata(version):
    """The file METADATA."""
    return METADATA.format(version=version, description=(HERE / "README.md").read_text()).encode()


def workspace_version(manifest):
    """The version in the workspace's Cargo.toml."""
    return re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', manifest, re.MULTILINE).group(1)


def sources():
    """The files of the package in this folder."""
    files = [path for path in sorted((HERE / "galley").rglob("*")) if path.is_file()]
    return [path for path in files if path.suffix == ".py" or path.name == "py.typed"]


def binary_files(tree):
    """The program, the shared library and the drafters, by their path in the tree."""
    drafters = sorted((tree / "lib/galley/drafters").glob("*.so"))
    paths = [tree / "bin/galley", tree / "lib" / LIBRARY, *drafters]
    return {str(path.relative_to(tree)): path for path in paths}


def platform_tag(files):
    """The tag of the oldest system that has all symbols of the files; an error if it cannot have them."""
    foreign = elf.foreign_libraries(files)
    if foreign:
        raise SystemExit(f"not every Linux has {', '.join(foreign)}: a wheel must not need it")
    machines = {file.machine() for file in files}
    if len(machines) != 1:
        raise SystemExit(f"files for several processors: {', '.join(sorted(machines))}")
    return "py3-none-manylinux_{}_{}_{}".format(*elf.glibc(files), machines.pop())


def bindings(header):
    """The cffi module (out-of-line, ABI mode) of a header: an import of it parses no C."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(cdef.declarations(header))
    ffi.set_source("_cffi", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "_cffi.py"
        ffi.emit_python_code(str(path))
        return path.read_bytes()


def record(contents, own_name):
    """The list of the wheel's files with their hashes and sizes."""
    lines = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()


def write_zip(path, contents):
    """Writes files in a fixed order with a fixed time, so that equal contents give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            mode = 0o755 if name.startswith("galley/_tree/") else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
