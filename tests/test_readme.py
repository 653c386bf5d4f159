"""The README's Python runs as it stands, on a part of the packaged concepts."""

import json
import pathlib
import re

import expertlens_jax as el

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 24
    whole = el.load_concepts("facts")
    part = whole.subset([c for c, d in zip(whole.concepts, whole.domains, strict=True) if d in ("animal", "family")])
    monkeypatch.setattr(el, "load_concepts", lambda name: part)
    names = {}
    exec(code, names)
    assert names["overlap"].shape == (22, 22)
    assert float(names["cat"].max()) > 0.8
    assert names["logits"].shape == (1, 3, 8192)
    assert "rated words are not concepts" in capsys.readouterr().out


def test_the_example_of_reading_experts_runs(capsys):
    (code,) = re.findall(r"```python3\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 10
    whole = el.load_concepts("facts")
    concepts = whole.subset([c for c, d in zip(whole.concepts, whole.domains, strict=True) if d == "animal"])
    model = el.load_model("lenslet-2m")
    responses = el.record_responses(model, concepts.sentences)
    expertise = el.measure_expertise(responses, concepts)
    names = {"el": el, "model": model, "concepts": concepts, "responses": responses, "expertise": expertise}
    exec(code, names)
    assert len(names["best"]) == 5 and names["best"]["average_precision"].min() > 0.5
    assert "".join(names["seen"].tokens[0]) == "The cat sat on the mat."
    shown = capsys.readouterr().out
    assert "[cat " in shown and "raises" in shown and "lowers" in shown


def test_the_example_of_steering_at_some_tokens_runs(capsys):
    (code,) = re.findall(r"```py3\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 3
    model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(["cat", "rain"])
    responses = el.record_responses(model, concepts.sentences, sites="mlp.down")
    names = {"el": el, "model": model, "expertise": el.measure_expertise(responses, concepts)}
    exec(code, names)
    assert repr(names["later"]).endswith("50 units (50 at mlp.down), only in the continuation, from token 6 on")
    assert "They talked about the ▸" in capsys.readouterr().out


def test_the_example_of_an_intervention_runs():
    (code,) = re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) == 3
    model = el.load_model("lenslet-2m")
    steering = el.steer_units(model, model.units.iloc[:1], scale=1.0, shift=0.0)
    names = {"el": el, "model": model, "steering": steering}
    exec(code, names)
    direction = names["cut"].params
    token_ids = model.tokenizer(["It was a"])["input_ids"]
    left = model.capture(token_ids, sites="resid", interventions=[names["cut"]])["resid"]
    assert abs(left @ direction).max() < 1e-4 * abs(direction @ direction)
    assert abs(model.capture(token_ids, sites="resid")["resid"] @ direction).max() > 0.1


def test_the_notebooks_of_one_table_ask_for_the_same_one_so_that_it_is_made_once():
    tables = {}
    for notebook in (README.parent / "docs" / "notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).split("\n")]
        if kept := [line for line in lines if line.startswith(("model =", "concepts =", "folder =", "expertise ="))]:
            tables[notebook.stem] = [line.partition("  #")[0] for line in kept]
    assert {*tables} == {"find_experts", "steer", "your_concepts"}
    assert tables["find_experts"] == tables["steer"]
    assert tables["steer"][2:] == [
        'folder = tempfile.gettempdir() + "/facts-of-lenslet-5m"',
        "expertise = el.find_experts(model, concepts, workdir=folder, significant_bits=12, transport=False)",
    ]
