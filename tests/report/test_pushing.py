"""Tables of expertise and steerings in repositories of a hub: what is pushed, what its card says, what comes back."""

import json
import pathlib
import re
import shutil
import zipfile

import huggingface_hub
import numpy as np
import pytest
import xarray as xr
import yaml
from hub_server import Hub, serve
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax import command
from expertlens_jax.errors import ExpertLensWarning, HubError, RunDirectoryError, SelectionError
from expertlens_jax.experts.steering import METHODS
from expertlens_jax.experts.table import PACKED, pack_table
from expertlens_jax.models.steering_files import STEERING
from expertlens_jax.report.hub_card import METHOD_TEXTS, write_expertise_card, write_steering_card
from expertlens_jax.report.pushing import write_folder

pytestmark = pytest.mark.compiled_quickly

REPO = "me/cat-experts"
CONCEPTS = ["cat", "dog", "rain"]
TAU = 0.9


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def sentences():
    return el.load_concepts("facts").subset(CONCEPTS)


@pytest.fixture(scope="module")
def responses(model, sentences):
    return el.record_responses(model, sentences.sentences, sites=["attn.v", "mlp.down"])


@pytest.fixture(scope="module")
def expertise(responses, sentences):
    return el.measure_expertise(responses, sentences)


@pytest.fixture(scope="module")
def steering(expertise):
    return el.steer(expertise, "cat", top=7, strength=0.5)


@pytest.fixture(scope="module")
def run(model, sentences, tmp_path_factory):
    """The directory of a finished run, with two kinds of negatives."""
    folder = tmp_path_factory.mktemp("runs") / "facts"
    quick = {"sites": "attn.v", "permutations": 0, "halves": False, "transport": False}
    el.find_experts(model, sentences, folder, negatives_per_positive=[2.5, 1], **quick)
    return folder


def made_up(**coordinates) -> xr.Dataset:
    """A table of a model that isn't there, of 2 concepts and 3 units."""
    precision = np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32)
    return xr.Dataset(
        {"average_precision": (("concept", "unit"), precision)},
        {"concept": ["cat", "dog"], "unit": [0, 1, 2], **coordinates},
        {"model": "tiny"},
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A fresh hub, on which one may write to `me`, and a fresh download cache."""
    with serve() as hub:
        hub.folder, hub.writers = tmp_path / "repositories", {"right": "me", "other": "someone"}
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "downloads"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the hub's other store, which isn't this one's
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "right")
        monkeypatch.chdir(tmp_path)
        yield hub


def files_of(hub: Hub, repo: str = REPO, branch: str = "main") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in hub.repos[repo].head(branch)[1].iterdir()}


def card_of(hub: Hub, repo: str = REPO, branch: str = "main") -> str:
    return files_of(hub, repo, branch)["README.md"].decode()


def facts_of(card: str) -> dict[str, str]:
    """Rows of two cells, by the first."""
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", card, re.MULTILINE))


def run_example(card: str) -> dict:
    """Runs the card's block of Python as a reader would paste it."""
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict = {}
    exec(block, names)
    return names


def written(hub: Hub) -> list[str]:
    """What changed something on the hub."""
    return [path for method, path in hub.requests if method in ("POST", "PUT")]


def test_a_table_comes_back_as_it_was(hub, expertise):
    commit = el.push(expertise, REPO)
    assert set(files_of(hub)) == {".gitattributes", "README.md", PACKED, "experts.png"}
    found = el.open_expertise(REPO)
    xr.testing.assert_identical(found.load(), expertise)
    for name, variable in expertise.data_vars.items():
        assert found[name].values.tobytes() == variable.values.tobytes() and found[name].dtype == np.float32
    xr.testing.assert_identical(el.open_expertise(REPO, revision=commit.oid).load(), expertise)
    assert el.steer(found, "cat", top=7).digest == el.steer(expertise, "cat", top=7).digest


def test_a_table_of_the_hub_is_read_when_it_is_needed(hub):
    el.push(made_up(), REPO)
    assert not el.open_expertise(REPO)["average_precision"].variable._in_memory


def test_a_steering_comes_back_as_it_was(hub, steering):
    el.push(steering, "me/cat")
    assert set(files_of(hub, "me/cat")) == {".gitattributes", "README.md", STEERING}
    found = el.load_steering("me/cat")
    assert found.digest == steering.digest and found.units == steering.units
    assert (found.label, found.model, found.channels) == (steering.label, steering.model, steering.channels)
    assert found.provenance == steering.provenance


def test_all_comes_in_one_commit(hub):
    commit = el.push(made_up(), REPO, message="First of all")
    assert hub.repos[REPO].messages == ["First of all"]
    assert commit.oid == hub.repos[REPO].head("main")[0] and commit.commit_url.startswith(f"{hub.url}/{REPO}/commit/")
    assert all(token is None for token in hub.store_tokens)  # the store is another host


def test_the_card_of_a_table_says_what_it_is_of(hub, model, sentences, responses, expertise):
    some = slice(None, None, 8)
    el.push(expertise.isel(unit=some), REPO, threshold=0.6, license="cc-by-4.0", about="Made on a *Sunday*.")
    card = card_of(hub)
    matter = yaml.safe_load(card.split("---")[1])
    assert matter["library_name"] == "expertlens_jax" and matter["license"] == "cc-by-4.0"
    assert "expertise" in matter["tags"] and "base_model" not in matter  # it ships with the package
    assert "\n\nMade on a *Sunday*.\n\n" in card
    facts = facts_of(card)
    assert facts["Name"] == "lenslet-2m, which ships with expertlens_jax"
    assert facts["Digest (`model.digest`)"] == f"`{model.digest}`"
    assert facts["Concepts"] == "3: cat, dog, rain" and facts["Sentence set"] == "`facts`"
    assert facts["Positive sentences of a concept"] == "40"
    assert facts["Sites"] == "attn.v, mlp.down" and facts["Units"] == "128"
    assert facts["Base rate"] == f"{1 / 3.5:.3g}" and "2.5 for each positive" in facts["Negatives"]
    assert facts["Response of a unit"] == "max of its activation over all of a sentence's own tokens"

    # the figures, from the responses themselves
    weights = el.contrast_concepts(sentences).weights()
    values = responses.values[:, some]
    scores = np.array(
        [
            [average_precision_score(labels, unit, sample_weight=weight) for unit in values.T]
            for labels, weight in zip(sentences.labels, weights, strict=True)
        ]
    )
    experts = scores >= 0.6
    each = experts.sum(axis=1)
    assert each.min() != each.max() and not np.isclose(scores, 0.6, atol=1e-6).any()
    assert (
        f"At the threshold τ = 0.6, {experts.any(axis=0).sum():,} of 128 units are experts on one or more of the "
        f"concepts. A concept has {each.mean():,.1f} experts on average (median {np.median(each):g}, {each.min()} to "
        f"{each.max()})."
    ) in card
    units = model.units[model.units["site"].isin(["attn.v", "mlp.down"])].iloc[some]
    for row, concept in enumerate(CONCEPTS):
        best = units.iloc[int(scores[row].argmax())]
        negatives = int((weights[row] > 0).sum() - 40)
        assert (
            f"| {concept} | 40 | {negatives} | 0.286 | {each[row]} | {best.site}, layer {best.layer}, channel "
            f"{best.channel} | {scores[row].max():.3f} |"
        ) in card
    assert not any(sentence in card for sentence in sentences.sentences)


def test_the_card_of_a_steering_says_what_it_does(hub, model, expertise, steering):
    el.push(steering, "me/cat")
    card = card_of(hub, "me/cat")
    facts = facts_of(card)
    assert facts["Label"] == "0.5 of cat, set\\_median" or facts["Label"] == "0.5 of cat, set_median"
    assert facts["Concept"] == "cat" and facts["Strength"] == "0.5" and facts["Method"].startswith("`set_median`: ")
    assert "7 units are changed" in card and "0 set a unit to a value, 0 shift it, and 7 scale it." in card
    assert facts["Digest (`model.digest`)"] == f"`{model.digest}`"
    assert facts["Digest of the sentences"] == f"`{expertise.attrs['sentences_sha256']}`"
    (table,) = re.findall(r"\| Layer \|.*?\n\n", card, re.DOTALL)
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines())
    counted = {(int(row[0]), site): int(count) for row in rows for site, count in zip(head[1:], row[1:], strict=True)}
    wanted = steering.table.groupby(["layer", "site"]).size()
    assert {place: count for place, count in counted.items() if count} == wanted.to_dict()


def test_the_example_of_each_card_runs(hub, expertise, steering, capsys):
    el.push(expertise, REPO, threshold=TAU)
    el.push(steering, "me/cat")
    names = run_example(card_of(hub))
    xr.testing.assert_identical(names["expertise"].load(), expertise)
    assert names["experts"].identical(el.select_experts(expertise, TAU)) and len(names["steering"]) == 5
    assert run_example(card_of(hub, "me/cat"))["steering"].digest == steering.digest
    assert capsys.readouterr().out.count("Once upon a time") == 2


def test_pushed_again_the_same_makes_no_commit_and_another_keeps_the_old_one(hub, expertise):
    first = el.push(expertise, REPO)
    again = el.push(expertise, REPO, overwrite=True)
    assert again.oid == first.oid and len(hub.repos[REPO].messages) == 1
    el.push(made_up(), REPO, overwrite=True)
    assert len(hub.repos[REPO].messages) == 2 and "2: cat, dog" in card_of(hub)
    xr.testing.assert_identical(el.open_expertise(REPO).load(), made_up())
    xr.testing.assert_identical(el.open_expertise(REPO, revision=first.oid).load(), expertise)


def test_a_figure_that_is_outdated_goes(hub, expertise):
    el.push(expertise, REPO)
    el.push(made_up(), REPO, overwrite=True)  # of units of no known place
    assert set(files_of(hub)) == {".gitattributes", "README.md", PACKED} and "experts.png" not in card_of(hub)
    assert "| cat | ? | ? | ? | 2 | unit 0 | 0.900 |" in card_of(hub)


def test_what_is_there_already_is_not_overwritten_unless_told(hub, expertise, steering):
    el.push(expertise, REPO)  # with a figure
    before = files_of(hub)
    with pytest.raises(HubError, match=rf"{REPO} holds README.md, {PACKED}, experts.png already.* overwrite=True"):
        el.push(expertise, REPO)
    for overwrite in (False, True):
        with pytest.raises(
            HubError, match=rf"{REPO} holds {PACKED}.*, which is not for this push.* another repository"
        ):
            el.push(steering, REPO, overwrite=overwrite)
    assert files_of(hub) == before and len(hub.repos[REPO].messages) == 1


def test_a_repository_with_a_model_is_left_alone(hub, steering):
    el.push(steering, "me/cat")
    repo = hub.repos["me/cat"]
    repo.commit("main", {"config.json": b"{}", "model.safetensors": b"", STEERING: None, "README.md": None}, "a model")
    with pytest.raises(HubError, match=r"me/cat holds config.json, model.safetensors, which is not"):
        el.push(steering, "me/cat", overwrite=True)


def test_a_branch_is_made_and_starts_empty(hub):
    el.push(made_up(), REPO)
    fewer = made_up().sel(concept=["cat"])
    el.push(fewer, REPO, revision="step512")
    xr.testing.assert_identical(el.open_expertise(REPO, revision="step512").load(), fewer)
    xr.testing.assert_identical(el.open_expertise(REPO).load(), made_up())
    assert f'el.open_expertise("{REPO}", revision="step512")' in card_of(hub, branch="step512")
    run_example(card_of(hub, branch="step512"))


def test_a_branch_of_a_new_repository(hub, steering):
    el.push(steering, "me/cat", revision="v2")
    assert set(files_of(hub, "me/cat")) == {".gitattributes"}
    assert el.load_steering("me/cat", revision="v2").digest == steering.digest


def test_a_tag_stays(hub, steering):
    hub_commit = el.push(steering, "me/cat").oid
    hub.repos["me/cat"].tags["v1"] = hub_commit
    with pytest.raises(HubError, match="revision='v1' is a tag of me/cat"):
        el.push(steering, "me/cat", revision="v1", overwrite=True)
    assert el.load_steering("me/cat", revision="v1").digest == steering.digest


def test_a_private_repository_is_seen_with_a_token_only(hub, steering, monkeypatch):
    el.push(steering, "me/cat", private=True)
    assert hub.repos["me/cat"].private and el.load_steering("me/cat").digest == steering.digest
    with pytest.raises(
        HubError, match=r"private=False was given, and me/cat is there and private. Nothing was written"
    ):
        el.push(steering, "me/cat", private=False, overwrite=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SelectionError, match=r"no steering me/cat on http\S+ that you may see.* pass token="):
        el.load_steering("me/cat", cache_dir="fresh")
    assert el.load_steering("me/cat", token="right", cache_dir="fresh").digest == steering.digest


def test_of_a_finished_run_its_directory_is_enough(hub, run, tmp_path):
    el.push(run, REPO)
    xr.testing.assert_identical(el.open_expertise(REPO).load(), el.open_expertise(run).load())
    assert facts_of(card_of(hub))["Measured with other negatives too"] == "1 for each positive"
    shutil.copytree(run, tmp_path / "run")
    progress = tmp_path / "run" / "progress.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"complete": False}))
    with pytest.raises(HubError, match=r"the run in .*run isn't done.* Launch it again"):
        el.push(tmp_path / "run", REPO, overwrite=True)


def test_the_command_pushes(hub, steering, tmp_path, capsys):
    steering.save(tmp_path / "cat.json")
    command.dispatch(["push", str(tmp_path / "cat.json"), "me/cat", "--private", "--license=mit", "--message=Cats"])
    assert re.fullmatch(rf"It is at {hub.url}/me/cat/commit/\w+\n", capsys.readouterr().out)
    repo = hub.repos["me/cat"]
    assert repo.private and repo.messages == ["Cats"] and "license: mit" in card_of(hub, "me/cat")
    with pytest.raises(SystemExit):
        command.dispatch(["push", str(tmp_path / "dog.json"), "me/dog"])
    assert "dog.json was given to be pushed, and doesn't exist" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "thing, message",
    [
        (lambda case: case["model"], r"a Model was given to be pushed; wanted a table .*hf_model.push_to_hub"),
        (
            lambda case: case["responses"],
            r"a[n]? \w+.* was given to be pushed; wanted a table of expertise \(el.measure",
        ),
        (lambda case: {"cat": 1}, r"a dict was given .* a steering \(el.steer, .*path of a run's directory"),
        (lambda case: None, r"a NoneType was given"),
        (lambda case: el.select_experts(case["expertise"], 0.5), r"an array of bool .* selected from: el.push\(exp"),
        (
            lambda case: case["expertise"].drop_vars("average_precision"),
            r"a dataset of positive_median.* wanted a table",
        ),
        (lambda case: case["expertise"].isel(concept=[]), r"a table of no concepts or no units"),
        (lambda case: "no/such/run", r"no/such/run was given to be pushed, and doesn't exist"),
        (lambda case: pathlib.Path(__file__), r"test_pushing.py was given .* neither a steering that was saved"),
        (lambda case: pathlib.Path(__file__).parent, r"holds no expertise.zarr, so it is no run"),
    ],
)
def test_what_can_not_be_pushed_is_named(hub, model, responses, expertise, thing, message):
    with pytest.raises(HubError, match=message):
        el.push(thing({"model": model, "responses": responses, "expertise": expertise}), REPO)
    assert not hub.requests


def test_directions_are_pushed_as_a_steering(hub):
    directions = made_up().assign(direction=("unit", [0.0] * 3), step=("unit", [0.0] * 3))
    with pytest.raises(HubError, match=r"el.push\(el.steer\(directions, concept, layers="):
        el.push(directions, REPO)


@pytest.mark.parametrize("repo", ["cat-experts", "me/", "a/b/c", "./out", "me/cat experts", "me/a--b", "", 3, "/tmp/x"])
def test_a_malformed_id_is_refused_before_anything(hub, repo):
    with pytest.raises(HubError, match=r"was given as the repository to push to; wanted its id, as in 'your-name/"):
        el.push(made_up(), repo)
    assert not hub.requests


@pytest.mark.parametrize(
    "given, message",
    [
        ({"revision": ""}, "wanted the name of a branch"),
        ({"revision": "a" * 40}, "wanted the name of a branch"),
        ({"license": 3}, "license=3 was given; wanted a text"),
        ({"about": None}, "about=None was given; wanted a text"),
        ({"datasets": "me/sentences"}, "datasets='me/sentences' was given; wanted a list"),
    ],
)
def test_settings_that_can_not_be_are_refused_before_anything(hub, given, message):
    with pytest.raises(HubError, match=message):
        el.push(made_up(), REPO, **given)
    assert not hub.requests


def test_a_threshold_is_of_tables(hub, steering):
    with pytest.raises(SelectionError, match="threshold=0.5 is of a table of expertise, and a steering was given"):
        el.push(steering, "me/cat", threshold=0.5)
    with pytest.raises(SelectionError, match="threshold=2; wanted an average precision"):
        el.push(made_up(), REPO, threshold=2)


def test_without_a_token(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match=r"needs a token .* `hf auth login`, set HF_TOKEN, or pass token="):
        el.push(made_up(), REPO)
    with pytest.raises(HubError, match="needs a token"):
        el.push(made_up(), REPO, token=False)
    assert not hub.requests


@pytest.mark.parametrize("token", ["other", "wrong"])
def test_a_token_that_may_not_write(hub, token):
    with pytest.raises(
        HubError, match=r"doesn't let this token write to me/cat-experts \(HTTP 40[13]\)\. .*of me or a mem"
    ):
        el.push(made_up(), REPO, token=token)
    assert not hub.repos


def test_offline(hub, steering, monkeypatch):
    el.push(steering, "me/cat")
    online = el.load_steering("me/cat")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert el.load_steering("me/cat").digest == online.digest
    with pytest.raises(
        RunDirectoryError,
        match=r"no path me/others here, .*HF_HUB_OFFLINE is set.*expertise.zarr.zip of me/others .*downloads",
    ):
        el.open_expertise("me/others")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and pushing to me/cat needs"):
        el.push(steering, "me/cat")


def test_a_license_that_the_hub_does_not_know_is_refused_and_said(hub):
    with pytest.raises(HubError, match=r'doesn\'t take what was given .*"license" must be .* The repository was made'):
        el.push(made_up(), REPO, license="mine")
    el.push(made_up(), REPO, license="mit")  # the empty repository is taken


@pytest.mark.parametrize("method, path", [("POST", "commit/main"), ("PUT", "/")])
def test_a_hub_that_fails_midway_leaves_nothing_behind(hub, method, path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.trouble += [(method, path, "down")] * 20
    with pytest.raises(HubError, match=r"HTTP 503 .* The repository was made, and is empty.* push again"):
        el.push(made_up(), REPO)
    assert set(files_of(hub)) == {".gitattributes"}
    hub.trouble.clear()
    el.push(made_up(), REPO)


def test_a_hub_that_is_not_there(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 can't be reached, or broke off: .* Nothing was written"):
        el.push(made_up(), REPO)


def test_a_hub_without_the_other_store_is_told_with_what_to_set(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match=r"has no Xet store, .* Set HF_HUB_DISABLE_XET=1, .* push again"):
        el.push(made_up(), REPO)


def test_another_push_meanwhile_is_not_overwritten(hub):
    el.push(made_up(), REPO)
    hub.trouble.append(("COMMIT", "", "other"))
    with pytest.raises(HubError, match=rf"{REPO} has changed on .* since it was looked at"):
        el.push(made_up().isel(concept=[0]), REPO, overwrite=True)
    assert files_of(hub)["other.txt"] == b"first" and "2: cat, dog" in card_of(hub)


def test_what_the_repository_holds_instead_is_told(hub, steering):
    el.push(steering, "me/cat")
    el.push(made_up(), REPO)
    with pytest.raises(
        RunDirectoryError, match=rf"me/cat on http\S+ holds no table .* has .*{STEERING}.* loaded by el.load_steering"
    ):
        el.open_expertise("me/cat")
    with pytest.raises(SelectionError, match=rf"{REPO} on http\S+ holds no steering.* opened by el.open_expertise"):
        el.load_steering(REPO)
    with pytest.raises(RunDirectoryError, match=r"no table of expertise me/none on http.* no directory of that name"):
        el.open_expertise("me/none")
    with pytest.raises(SelectionError, match="me/cat has no revision 'v9'"):
        el.load_steering("me/cat", revision="v9")


def other_zip(path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "a")


def damaged(path: pathlib.Path) -> None:
    pack_table(made_up(), path)
    content = bytearray(path.read_bytes())
    content[content.index(b"average_precision/c/0/0") + 50] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: path.write_text("not a zip"), "is no table of expertise that el.push wrote, or is damaged"),
        (other_zip, "is no table of expertise that el.push wrote"),
        (damaged, "is damaged: average_precision/c/0/0 in it isn't as it was written"),
        (lambda path: pack_table(made_up().rename(concept="word"), path), r"average_precision over \(word, unit\)"),
    ],
)
def test_a_table_that_is_none_is_refused(hub, tmp_path, write, message):
    el.push(made_up(), REPO)
    write(tmp_path / PACKED)
    hub.repos[REPO].commit("main", {PACKED: (tmp_path / PACKED).read_bytes()}, "by hand")
    with pytest.raises(RunDirectoryError, match=message):
        el.open_expertise(REPO)
    with pytest.raises(RunDirectoryError, match=message):
        el.open_expertise(tmp_path / PACKED)


@pytest.mark.parametrize("change", [{"layer": [0.5]}, {"channel": [-1]}, {"scale": [float("nan")]}, {"site": 3}])
def test_a_steering_that_is_none_is_refused(hub, steering, change):
    el.push(steering, "me/cat")
    stored = json.loads(files_of(hub, "me/cat")[STEERING])
    ones = {name: stored[name][:1] for name in ("layer", "site", "channel", "scale", "shift")}
    hub.repos["me/cat"].commit("main", {STEERING: json.dumps(stored | ones | change).encode()}, "by hand")
    with pytest.raises(SelectionError, match=r"is no steering that steering.save wrote"):
        el.load_steering("me/cat")


def test_a_steering_of_another_model_tells_when_it_is_used(hub, steering):
    el.push(steering, "me/cat")
    sibling = el.load_model("lenslet-2m-seed1")
    with pytest.warns(ExpertLensWarning, match="is of lenslet-2m and is applied to lenslet-2m-seed1"):
        sibling(np.ones((1, 3), int), steering=el.load_steering("me/cat"))


def test_a_path_here_goes_first(hub, steering, tmp_path):
    made = _made(tmp_path / REPO)
    write_folder(made_up(), made, REPO, None, 0.5)
    el.push(made_up().isel(concept=[0]), REPO)
    asked = len(hub.requests)
    with pytest.warns(
        ExpertLensWarning, match=rf"'{REPO}' is a path here, and the table of expertise is loaded from it"
    ):
        xr.testing.assert_identical(el.open_expertise(REPO).load(), made_up())
    xr.testing.assert_identical(el.open_expertise(f"./{REPO}").load(), made_up())
    xr.testing.assert_identical(el.open_expertise(made / PACKED).load(), made_up())
    with pytest.raises(RunDirectoryError, match=r"is a path here, .*, and revision='main' is of the hub. Leave it out"):
        el.open_expertise(REPO, revision="main")
    with pytest.raises(RunDirectoryError, match=r"and token=\.\.\. is of the hub") as told:
        el.open_expertise(REPO, token="secret")
    assert "secret" not in str(told.value)
    write_folder(steering, _made(tmp_path / "me" / "cat"), "me/cat", None, 0.5)
    with pytest.warns(ExpertLensWarning, match=r"'me/cat' is a path here, and the steering is loaded from it"):
        assert el.load_steering("me/cat").digest == steering.digest
    shutil.rmtree(made)
    made.mkdir()
    with pytest.raises(
        RunDirectoryError, match=r"holds no expertise.zarr.*for a repository of the hub of that name, run"
    ):
        el.open_expertise(REPO)
    with pytest.raises(SelectionError, match=rf"is a directory here that has no {STEERING}.* another directory"):
        el.load_steering(REPO)
    assert len(hub.requests) == asked


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True)
    return folder


def test_a_run_here_is_opened_silently_and_a_file_that_is_not_there_is_no_repository(hub, run, tmp_path):
    shutil.copytree(run, tmp_path / "runs" / "facts")
    assert el.open_expertise("runs/facts").identical(el.open_expertise(run))
    for name in ("steerings/cat.json", "../cat", "/nowhere/cat"):
        with pytest.raises(SelectionError, match="there is no steering"):
            el.load_steering(name)
    assert not hub.requests


def test_a_table_in_a_file_has_the_same_bytes_each_time(expertise, tmp_path):
    for name in "ab":
        pack_table(expertise, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_of_all_kinds_stand_in_a_card_as_they_are():
    names = ["a|b", "<script>x</script>", "*bold* `code` [link](x)", "two\nlines"]
    table = made_up().isel(concept=[0, 1, 0, 1]).assign_coords(concept=names).assign_attrs(sentences="my|set`")
    card = write_expertise_card(table, "me/x", None, threshold=0.5)
    rows = [line for line in card.splitlines() if line.startswith(("| a", "| &lt;", "| \\*", "| two"))]
    assert [row.rpartition(" | unit 0")[0].rpartition(" | ? | ?")[0] for row in rows] == [
        "| a\\|b | ?",
        "| &lt;script&gt;x&lt;/script&gt; | ?",
        "| \\*bold\\* \\`code\\` \\[link\\](x) | ?",
        "| two lines | ?",
    ]
    assert facts_of(card.replace("\\|", "/"))["Sentence set"] == "`my/set'`"
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "expertlens_jax"


def test_examples_do_only_what_the_table_allows(expertise):
    """Units that no steering changes, units of no known place, and fewer than the example would take."""
    asked = {"repo": "me/x", "revision": None, "threshold": 0.5}
    assert "top=5)" in write_expertise_card(expertise, **asked)
    assert "top=3)" in write_expertise_card(expertise.isel(unit=[0, 1, 2]), **asked)
    heads = expertise.assign_coords(site=("unit", ["attn.head"] * expertise.sizes["unit"]))
    card = write_expertise_card(heads, **asked)
    assert "el.steer(" not in card and "el.top_experts(" in card
    elsewhere = write_expertise_card(expertise.assign_attrs(model="checkpoint-500"), **asked)
    assert "el.load_model(" not in elsewhere and "el.open_expertise(" in elsewhere
    assert "el.top_experts(" not in write_expertise_card(made_up(), **asked)


def test_many_concepts_are_shown_in_part():
    table = made_up().isel(concept=[0] * 30).assign_coords(concept=[f"c{number:02}" for number in range(30)])
    card = write_expertise_card(table, "me/x", None, threshold=0.5)
    assert card.count("| unit 0 | 0.900 |") == 20 and "The first 20 of 30 concepts." in card
    assert "30: c00, c01, " in card and "and 18 more" in card


def test_a_models_id_is_its_base_model():
    named = made_up().assign_attrs(model="EleutherAI/pythia-70m@step512")
    matter = yaml.safe_load(write_expertise_card(named, "me/x", None, threshold=0.5).split("---")[1])
    assert matter["base_model"] == "EleutherAI/pythia-70m"
    given = write_expertise_card(made_up(), "me/x", None, threshold=0.5, base_model="a/b", datasets=["me/sentences"])
    matter = yaml.safe_load(given.split("---")[1])
    assert matter["base_model"] == "a/b" and matter["datasets"] == ["me/sentences"]


def test_the_card_of_a_steering_reads_labels_of_every_method(expertise):
    assert {*METHOD_TEXTS} == {*METHODS}
    for method in METHODS:
        made = el.steer(expertise, ["cat", "dog"], top=3, method=method)
        facts = facts_of(write_steering_card(made, "me/x", None))
        assert facts["Concepts"] == "cat; dog" and facts["Method"].startswith(f"`{method}`: ")
        assert facts["Strength"] == "1"
    turned = el.steer(expertise, "cat", top=3, method="mean_shift", strength=-1)
    card = write_steering_card(turned, "me/x", None)
    assert facts_of(card)["Strength"] == "-1" and "0 set a unit to a value, 3 shift it, and 0 scale it" in card


def test_a_steering_by_hand_says_that(model):
    card = write_steering_card(el.steer_units(model, model.units.head(1), label="my; own, way"), "me/x", None)
    assert "Concept" not in facts_of(card) and facts_of(card)["Label"] == "my; own, way"
    assert "1 unit is changed, at attn.q" in card and "made by hand" in card
