"""Docstrings of what can be called say what to do: their first word is a verb in the imperative."""

import ast
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).parents[1]
VERBS = frozenset(
    """
    Add Adjust Align Apply Ask Attend Attribute Average Break Check Choose Collect Compare Compute Continue Convert Copy
    Correlate Count Cut Declare Decorate Describe Do Draw Embed End Fetch Fill Find Follow Gather Give Group Have Import
    Keep Launch Lay Learn Let Load Look Make Map Measure Multiply Name Open Order Pack Pool Print Push Put Raise
    Rank Read Refuse Remove Replace Return Round Run Save Say See Select Serve Set Sharpen Sow Split Start Steer Step
    Take Tell Test Tokenize Train Turn Warn Write Yield
    """.split()
)
"""All that there are; a new one is added here."""


def public_functions(node: ast.AST, name: str):
    """Functions and methods without an underscore, but for properties, which are things."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.ClassDef) and not each.name.startswith("_"):
            yield from public_functions(each, f"{name}.{each.name}")
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_"):
            if not any("property" in ast.unparse(decorator) for decorator in each.decorator_list):
                yield f"{name}.{each.name}", ast.get_docstring(each)


@pytest.mark.parametrize("room", ["expertlens_jax", "experiments", "configs"])
def test_docstrings_begin_with_a_verb(room):
    found = {
        name: text
        for path in sorted((HERE / room).rglob("*.py"))
        for name, text in public_functions(ast.parse(path.read_text()), str(path.relative_to(HERE)))
        if text
    }
    assert len(found) > (500 if room == "expertlens_jax" else 10)
    other = {name: text.splitlines()[0] for name, text in found.items() if text.split()[0].strip(",") not in VERBS}
    assert not other


STIFF = {
    "held against": "compared with",
    "but for the": "except the",
    "can't be had": "isn't found, can't be made",
    "likewise": "say it again, or leave it out",
    ", nor ": "a sentence of its own",
    "is to be told": "say who tells it",
}
"""What readers whose mother tongue is another stumble over, and what to write."""


def test_texts_are_in_plain_english():
    files = [HERE / "README.md", *(HERE / "docs").glob("*.md"), *(HERE / "expertlens_jax").rglob("*.py")]
    files += [*(HERE / "experiments").glob("*.py"), *(HERE / "configs").glob("*.py")]
    assert len(files) > 250
    found = [
        f"{file.relative_to(HERE)}:{number}: {phrase!r}; write {better!r}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        for phrase, better in STIFF.items()
        if phrase in line
    ]
    assert not found, "\n".join(found)


VERBS_IN_S = {"is", "was", "has", "needs", "stands", "says", "as", "its"}


def counts_before_plurals(tree: ast.AST):
    """In what is told to users (errors, warnings), `{len(...)} units`: it would say "1 units".

    Not of "2 of {len(units)} units", which is of several.
    """
    told = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "Warning", "Untestable")))
    ]
    messages = {id(each): each for node in told for each in ast.walk(node) if isinstance(each, ast.JoinedStr)}
    for message in messages.values():
        before = [ast.Constant(""), ast.Constant(""), *message.values]
        for first, count, after in zip(before, before[1:], before[2:], strict=False):
            if isinstance(count, ast.FormattedValue) and ast.unparse(count.value).startswith("len("):
                of_several = isinstance(first, ast.Constant) and re.search(r"\b(of|all)( the| its)? $", first.value)
                noun = re.match(r" ([a-z-]+s)\b", getattr(after, "value", "")) if not of_several else None
                if noun and noun[1] not in VERBS_IN_S:
                    yield f"{ast.unparse(count.value)} {noun[1]}"


def test_one_thing_is_told_in_the_singular():
    assert list(counts_before_plurals(ast.parse('raise ValueError(f"{len(x)} units, 2 of {len(x)} units")'))) == [
        "len(x) units"
    ]
    rooms = [*(HERE / "expertlens_jax").rglob("*.py"), *(HERE / "experiments").glob("*.py")]
    found = [
        f"{file.relative_to(HERE)}: {each}; write {{counted(len(...), 'unit')}}"
        for file in rooms
        for each in counts_before_plurals(ast.parse(file.read_text()))
    ]
    assert len(rooms) > 200 and not found, "\n".join(found)
