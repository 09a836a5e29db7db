"""For the reference: docstrings as they read in the source, brought into a form for Markdown."""

import re

import griffe


class Readable(griffe.Extension):
    """Fence doctests, and make lists of the fields that a tuple's docstring describes."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite the docstring of one object."""
        del kwargs
        if obj.docstring is None:
            return
        names = set(obj.members) if obj.is_class else set()
        paragraphs = re.split(r"\n\n+", obj.docstring.value)
        obj.docstring.value = "\n\n".join(_paragraph(text, names) for text in paragraphs)


def _paragraph(text: str, fields: set[str]) -> str:
    if text.startswith(">>>"):  # otherwise three nested quotations
        return f"```pycon\n{text}\n```"
    lines = text.removesuffix("::").split("\n")
    starts = [_is_field(line, fields) for line in lines]
    if starts[0]:  # otherwise one run of words
        marked = zip(lines, starts, strict=True)
        lines = [f"- {line}" if start else f"    {line.strip()}" for line, start in marked]
    elif text.endswith("::"):
        lines[-1] += ":"
    return "\n".join(lines)


def _is_field(line: str, fields: set[str]) -> bool:
    found = re.match(r"(\w+)[^:]*: ", line)
    return found is not None and found[1] in fields
