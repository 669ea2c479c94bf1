"""Comments in a revision that allow what a rule is against, with the reason."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field

from .rules import RULES

__all__ = ["Waivers"]

_COMMENT = re.compile(r"#\s*stillroom:\s*(?P<rest>.*)$")
_FORM = re.compile(r"allow\s+(?P<rules>[\w-]+(?:\s*,\s*[\w-]+)*)\s*(?:--\s*(?P<reason>.*))?$")


@dataclass
class _Waiver:
    rule: str
    line: int
    lines: range | None
    used: bool = field(default=False)


class Waivers:
    """
    The waivers of one file.

    Inside a function, a waiver is for the statement on whose lines or right above which it stands; outside of
    functions it is for the whole revision.

    Args:
        source: The text of the file.
    """

    def __init__(self, source: str) -> None:
        self.problems: list[tuple[int, str]] = []
        self._waivers: list[_Waiver] = []
        tree = ast.parse(source)
        self._statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        self._functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        comments: dict[int, int] = {}  # those that stand alone, by line; how far they are indented
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                if not token.line[: token.start[1]].strip():
                    comments[token.start[0]] = token.start[1]
                if found := _COMMENT.search(token.string):
                    self._read(found["rest"].strip(), token.start[0])
        for waiver in self._waivers:
            waiver.lines = self._lines(waiver.line, comments)

    def allows(self, rule: str, line: int) -> bool:
        """
        Say whether a rule may be broken at a line, and remember that a waiver was of use.
        """
        fitting = [each for each in self._waivers if each.rule == rule and (each.lines is None or line in each.lines)]
        for each in fitting:
            each.used = True
        return bool(fitting)

    def all_problems(self) -> list[tuple[int, str]]:
        """
        List the lines of waivers that are not right, or were of no use, with what is wrong.
        """
        unused = [
            (each.line, f"nothing here breaks the rule {each.rule!r}, so its waiver is to go")
            for each in self._waivers
            if not each.used
        ]
        return sorted(self.problems + unused)

    def _read(self, text: str, line: int) -> None:
        found = _FORM.match(text)
        if found is None:
            self.problems.append((line, f"{text!r} is not a waiver"))
            return
        if not (found["reason"] or "").strip():
            self.problems.append((line, f"the waiver of {found['rules']!r} has no reason, so it does not count"))
            return
        for rule in re.split(r"\s*,\s*", found["rules"]):
            if rule in RULES:
                self._waivers.append(_Waiver(rule, line, None))
            else:
                self.problems.append((line, f"there is no rule {rule!r}"))

    def _lines(self, line: int, comments: dict[int, int]) -> range | None:
        """
        Return the lines that a waiver at a line is for; None for all.
        """
        inside = any(each.lineno <= line <= (each.end_lineno or 0) for each in self._functions)
        if not inside and not comments.get(line):
            return None
        while line in comments:  # a comment alone on its line is for the statement below it
            line += 1
        return self._at(line) or range(0)

    def _at(self, line: int) -> range | None:
        """
        Return the lines of the innermost statement at a line; of one with a body, only at its first line.
        """
        around = [each for each in self._statements if each.lineno <= line <= (each.end_lineno or 0)]
        if not around:
            return None
        inner = max(around, key=lambda each: each.lineno)
        if hasattr(inner, "body") and line != inner.lineno:
            return None
        return range(inner.lineno, (inner.end_lineno or 0) + 1)
