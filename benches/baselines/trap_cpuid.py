#!/usr/bin/env python3
"""Copy a program or library with its CPUID instructions replaced by breakpoints, for avx2only.c.

    trap_cpuid.py FROM TO

objdump finds the instructions. The first byte of each becomes `int3`; the second one is kept.
"""

import re
import subprocess
import sys
from pathlib import Path

CPUID = b"\x0f\xa2"


def sections(path):
    """[(address, offset, size)] of the code sections."""
    lines = subprocess.run(["objdump", "-h", "-w", path], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = (re.match(r"\s*\d+\s+\S+\s+(\w+)\s+(\w+)\s+\w+\s+(\w+)\s.*CODE", line) for line in lines)
    return [(int(row[2], 16), int(row[3], 16), int(row[1], 16)) for row in rows if row]


def addresses(path):
    with subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", "-M", "intel", path], stdout=subprocess.PIPE, text=True) as dump:
        for line in dump.stdout:
            if found := re.match(r"\s*([0-9a-f]+):\s+cpuid\b", line):
                yield int(found[1], 16)


def main():
    source, target = sys.argv[1:]
    data, code_sections, count = bytearray(Path(source).read_bytes()), sections(source), 0
    for address in addresses(source):
        position = next(offset + address - start for start, offset, size in code_sections if start <= address < start + size)
        assert data[position:position + 2] == CPUID, hex(address)
        data[position], count = 0xCC, count + 1
    if not count:
        sys.exit(f"{source} has no CPUID instruction")
    Path(target).write_bytes(data)
    Path(target).chmod(Path(source).stat().st_mode)
    print(f"{count} CPUID instructions replaced in {source}", file=sys.stderr)


if __name__ == "__main__":
    main()
