#!/usr/bin/env python3
"""Libraries and glibc version that ELF files need: `elf.py FILE...` prints the version, such as 2.34.

Linux alone has manylinux tags and Debian packages, and ELF files of 64 bits alone are built for them.
"""

import struct
import sys
from pathlib import Path

SECTION_DYNAMIC = 6
SECTION_VERSIONS_NEEDED = 0x6FFFFFFE
TAG_NEEDED = 1

MACHINES = {62: "x86_64", 183: "aarch64"}

#: The libraries that PEP 600 lets a wheel take from the system, of the libraries that Rust programs link. Builds for tests
#: alone need libstdc++: the emulated GPU is C++.
SYSTEM_LIBRARIES = {
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
}


class ElfFile:
    """The sections of a little-endian ELF file of 64 bits."""

    def __init__(self, path):
        self.path = Path(path)
        self.bytes = self.path.read_bytes()
        if self.bytes[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: no little-endian ELF file of 64 bits")
        (offset,) = struct.unpack_from("<Q", self.bytes, 0x28)
        size, count = struct.unpack_from("<HH", self.bytes, 0x3A)
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", self.bytes, offset + i * size) for i in range(count)]

    def machine(self):
        """The processor, by its name in wheel tags."""
        (number,) = struct.unpack_from("<H", self.bytes, 0x12)
        if number not in MACHINES:
            raise ValueError(f"{self.path}: processor {number} has no known wheel tag")
        return MACHINES[number]

    def _sections(self, kind):
        """Offset, size and text section of each section of this kind."""
        for section in self.sections:
            if section[1] == kind:
                yield section[4], section[5], self.sections[section[6]]

    def _text(self, strings, at):
        start = strings[4] + at
        return self.bytes[start : self.bytes.index(b"\0", start)].decode()

    def libraries(self):
        """Names of the libraries that the loader must find."""
        names = set()
        for offset, size, strings in self._sections(SECTION_DYNAMIC):
            for tag, value in struct.iter_unpack("<QQ", self.bytes[offset : offset + size]):
                if tag == TAG_NEEDED:
                    names.add(self._text(strings, value))
        return names

    def versions(self):
        """Names of the symbol versions that the libraries must have, such as GLIBC_2.34."""
        names = set()
        for offset, _, strings in self._sections(SECTION_VERSIONS_NEEDED):
            following = 1
            while following:
                _, count, _, first, following = struct.unpack_from("<HHIII", self.bytes, offset)
                at = offset + first
                for _ in range(count):
                    _, _, _, name, next_version = struct.unpack_from("<IHHII", self.bytes, at)
                    names.add(self._text(strings, name))
                    at += next_version
                offset += following
        return names


def glibc(files):
    """The highest glibc version, as (major, minor), that a symbol of the files needs."""
    needed = [version for file in files for version in file.versions() if version.startswith("GLIBC_2")]
    if not needed:
        raise ValueError(f"no symbol of glibc in {', '.join(str(file.path) for file in files)}")
    return max(tuple(map(int, version[len("GLIBC_") :].split(".")[:2])) for version in needed)


def foreign_libraries(files):
    """Libraries that the files need and that a wheel may not take from the system."""
    return sorted(set().union(*(file.libraries() for file in files)) - SYSTEM_LIBRARIES)


if __name__ == "__main__":
    print("{}.{}".format(*glibc([ElfFile(path) for path in sys.argv[1:]])))
