"""The cache of converted parameters: what it is keyed by, and that nothing damaged is ever used."""

import hashlib
import json
import os
import pathlib
import shutil

import families
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import expertlens_jax as el
from expertlens_jax.cache_directory import cache_root
from expertlens_jax.errors import ExpertLensWarning
from expertlens_jax.models import cache, loading

pytestmark = pytest.mark.compiled_quickly

CASE = next(case for case in families.CASES if case.name == "gpt_neox")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> pathlib.Path:
    return families.save(families.make_hf_model(CASE), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def stored(directory, tmp_path_factory) -> pathlib.Path:
    """A cache with one good entry."""
    root = tmp_path_factory.mktemp("cache")
    el.load_model(directory, use_cache=True, cache_dir=root)
    return root


@pytest.fixture
def root(stored, tmp_path) -> pathlib.Path:
    """A cache of its own to damage."""
    return shutil.copytree(stored, tmp_path / "cache")


def entries(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in (root / "expertlens_jax").iterdir() if path.is_dir())


def same_parameters(model, reference) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, model.params, reference.params)))


def refuse_to_convert(monkeypatch):
    def refuse(*args):
        raise AssertionError("the checkpoint was read")

    monkeypatch.setattr(loading, "open_weights", refuse)


def test_an_entry_is_used(directory, root, monkeypatch):
    reference = el.load_model(directory)
    refuse_to_convert(monkeypatch)
    model = el.load_model(directory, use_cache=True, cache_dir=root)
    assert same_parameters(model, reference)
    assert len(entries(root)) == 1


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_an_entry_is_made_of_orbax_checkpoints(directory, stored):
    """Orbax itself reads the same out of it."""
    (entry,) = entries(stored)
    params = el.load_model(directory).params
    checkpointer = ocp.PyTreeCheckpointer()
    restored = {name: checkpointer.restore(entry / name)[name] for name in params if name != "layers"}
    layers = [checkpointer.restore(entry / f"layers_{layer}") for layer in range(3)]
    restored["layers"] = jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, restored, dict(params))))


def test_local_directories_are_not_cached_unless_asked(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPERTLENS_CACHE", str(tmp_path / "cache"))
    el.load_model(directory)
    assert not (tmp_path / "cache").exists()
    el.load_model(directory, use_cache=True)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_bfloat16_has_an_entry_of_its_own(directory, root):
    model = el.load_model(directory, dtype="bfloat16", use_cache=True, cache_dir=root)
    again = el.load_model(directory, dtype="bfloat16", use_cache=True, cache_dir=root)
    assert len(entries(root)) == 2
    assert again.params["embed"]["token"].dtype == "bfloat16"
    assert same_parameters(again, model)


def test_other_content_has_an_entry_of_its_own(root, tmp_path):
    other = families.save(families.make_hf_model(CASE, seed=1), tmp_path / "model")
    assert same_parameters(el.load_model(other, use_cache=True, cache_dir=root), el.load_model(other))
    assert len(entries(root)) == 2


def test_another_config_has_an_entry_of_its_own(directory, root, tmp_path):
    """The same weights read with other heads: q, k and v are other rows."""
    other = shutil.copytree(directory, tmp_path / "model")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    assert same_parameters(el.load_model(other, use_cache=True, cache_dir=root), el.load_model(other))
    assert len(entries(root)) == 2


def flip_a_bit(entry: pathlib.Path) -> None:
    path = max((path for path in entry.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_a_file(entry: pathlib.Path) -> None:
    path = max((path for path in entry.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)


def lose_a_file(entry: pathlib.Path) -> None:
    (entry / "layers_1" / "attn.q.kernel" / "zarr.json").unlink()


def lose_the_list(entry: pathlib.Path) -> None:
    (entry / cache.FILES).unlink()


def break_the_list(entry: pathlib.Path) -> None:
    (entry / cache.FILES).write_text('{"embed/_METADATA": [')


def empty_the_list(entry: pathlib.Path) -> None:
    (entry / cache.FILES).write_text("{}")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_a_file, lose_a_file, lose_the_list, break_the_list, empty_the_list])
def test_a_damaged_entry_is_converted_again(directory, root, damage, monkeypatch):
    (entry,) = entries(root)
    damage(entry)
    with pytest.warns(ExpertLensWarning, match=rf"{entry} are damaged .*; they are converted again"):
        model = el.load_model(directory, use_cache=True, cache_dir=root)
    reference = el.load_model(directory)
    assert same_parameters(model, reference)
    refuse_to_convert(monkeypatch)  # and the entry is good again
    assert same_parameters(el.load_model(directory, use_cache=True, cache_dir=root), reference)


def test_what_a_killed_process_left_is_not_used_and_is_cleared(directory, stored, tmp_path):
    (entry,) = entries(stored)
    left = tmp_path / "expertlens_jax" / f"{entry.name}.partial"
    shutil.copytree(entry, left)
    flip_a_bit(left)
    el.load_model(directory, use_cache=True, cache_dir=tmp_path)
    assert [path.name for path in entries(tmp_path)] == [entry.name]


def test_a_cache_that_cannot_be_written_is_a_warning(directory, tmp_path):
    (tmp_path / "expertlens_jax").write_text("in the way")
    with pytest.warns(ExpertLensWarning, match=r"couldn't be kept in .*EXPERTLENS_CACHE.*use_cache=False"):
        model = el.load_model(directory, use_cache=True, cache_dir=tmp_path)
    assert same_parameters(model, el.load_model(directory))


def test_where_the_cache_stands(tmp_path, monkeypatch):
    monkeypatch.delenv("EXPERTLENS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "expertlens_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "expertlens_jax"
    monkeypatch.setenv("EXPERTLENS_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"
    assert cache_root(tmp_path / "given") == tmp_path / "given" / "expertlens_jax"


def test_content_is_the_blob_of_a_download_and_else_a_hash(tmp_path):
    content = b"some weights"
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / ("a" * 64)
    blob.write_bytes(content)
    (tmp_path / "snapshots").mkdir()
    link = tmp_path / "snapshots" / "model.safetensors"
    link.symlink_to(os.path.relpath(blob, link.parent))
    assert cache.content_id(link) == "a" * 64
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(content)
    assert cache.content_id(plain) == hashlib.sha256(content).hexdigest()
    other_link = tmp_path / "other.safetensors"  # a user's own links name no content
    other_link.symlink_to(plain)
    assert cache.content_id(other_link) == hashlib.sha256(content).hexdigest()
