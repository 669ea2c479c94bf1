"""
Programs that begin at one moment in several processes.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PATIENCE = 100.0


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """
    Start a program, which says "ready" and waits for a line before it does its work.
    """
    begin = "import sys; print('ready', flush=True); sys.stdin.readline()\n"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", begin + program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=PATIENCE)
    return process


@contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """
    Start a program and let it begin; end it at the end of the block if it is still there.
    """
    process = start(program, *arguments)
    try:
        begin(process)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


FORK = """
import os, traceback
import stillroom.data, tests.data.library, tests.data.shop
gate, open_gate = os.pipe()
children = []
for _ in range({count}):
    child = os.fork()
    if not child:
        os.close(open_gate)
        os.read(gate, 1)
        try:
            exec({program!r}, {{"sys": sys}})
        except BaseException as error:
            sys.stdout.write(f"{{type(error).__name__}}: {{error}}\\n")
        finally:
            sys.stdout.flush()
            os._exit(0)
    children.append(child)
os.close(open_gate)
for child in children:
    os.waitpid(child, 0)
"""


def together(count: int, program: str, *arguments: str) -> subprocess.Popen[str]:
    """
    Start a program that, when it begins, runs another one in so many processes, all at one moment.

    They are forked, for an interpreter takes longer to start than all the rest; each prints a line.
    """
    return start(FORK.format(count=count, program=program), *arguments)


def begin(process: subprocess.Popen[str]) -> None:
    """
    Let a process begin.
    """
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def lines(process: subprocess.Popen[str]) -> list[str]:
    """
    Wait for the end, which must be a good one, and return what was printed, sorted.
    """
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return sorted(output.splitlines())


def at_once(count: int, program: str, *arguments: str) -> list[str]:
    """
    Run a program in several processes at one moment, and return the line of each, sorted.
    """
    process = together(count, program, *arguments)
    begin(process)
    return lines(process)
