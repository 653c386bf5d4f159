"""Sparse autoencoders: trained and written as SAELens does, read back bit for bit; killed runs end with equal bytes."""

import dataclasses
import json

import families
import numpy as np
import pytest
import safetensors.numpy
from launched import run_script

import expertlens_jax as el
from expertlens_jax.errors import (
    CheckpointError,
    CorpusError,
    ExpertLensWarning,
    RunDirectoryError,
    SelectionError,
    SettingError,
    UnsupportedSAEError,
)
from expertlens_jax.models.families import family_of
from expertlens_jax.models.sae import READABLE
from expertlens_jax.models.sae_saving import hook_name
from expertlens_jax.models.scoring import score_continuations
from expertlens_jax.training import activations, sae_training
from expertlens_jax.training.activations import tokenize_pieces
from expertlens_jax.training.sae_quality import losses_on
from expertlens_jax.training.sae_step import SAESettings

SMALL = dict(features=48, steps=12, batch=64, buffer=3, context=16)
SETTINGS = SAESettings(k=4, **SMALL)


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def texts():
    return el.load_concepts("facts").sentences[:60]


@pytest.fixture(scope="module")
def trained(model, texts, tmp_path_factory):
    return el.training.train_sae(model, texts, tmp_path_factory.mktemp("sae"), layer=1, settings=SETTINGS)


def tensors_of(trained):
    return safetensors.numpy.load_file(trained.directory / "sae_weights.safetensors")


@pytest.mark.long
def test_the_files_are_those_of_sae_lens(trained):
    config, tensors = json.loads((trained.directory / "cfg.json").read_text()), tensors_of(trained)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes == {"W_enc": (128, 48), "b_enc": (48,), "W_dec": (48, 128), "b_dec": (128,)}
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}
    wanted = {
        **{"architecture": "topk", "k": 4, "d_in": 128, "d_sae": 48, "dtype": "float32"},
        **{"apply_b_dec_to_input": True, "normalize_activations": "none", "rescale_acts_by_decoder_norm": False},
    }
    assert {name: config[name] for name in wanted} == wanted
    wanted = {"hook_name": "blocks.1.hook_resid_post", "model_name": "lenslet-2m", "prepend_bos": False}
    assert {name: config["metadata"][name] for name in wanted} == wanted
    np.testing.assert_allclose(np.linalg.norm(tensors["W_dec"], axis=1), 1, atol=1e-6)


def test_it_is_read_back_bit_for_bit(trained):
    sae, tensors = el.load_sae(trained.directory), tensors_of(trained)
    assert (sae.layer, sae.site, sae.k, sae.threshold, sae.normalize, sae.centred) == (
        *(1, "resid", 4, None, "none", False),
    )
    for ours, name in ((sae.encoder, "W_enc"), (sae.bias, "b_enc"), (sae.offset, "b_dec")):
        np.testing.assert_array_equal(ours, tensors[name])
    np.testing.assert_array_equal(el.training.load_decoder(trained.directory), tensors["W_dec"])
    np.testing.assert_array_equal(trained.decoder, tensors["W_dec"])


def numpy_features(x, tensors, config):
    """SAELens's formulas, `encode` of its topk, jumprelu and standard autoencoders."""
    before = (x.astype(np.float64) - tensors["b_dec"]) @ tensors["W_enc"].astype(np.float64) + tensors["b_enc"]
    match config["architecture"]:
        case "topk":
            least = np.sort(before, axis=-1)[..., [-config["k"]]]
            return np.where(before >= least, before, 0).clip(0)
        case "jumprelu":
            return np.where(before > tensors["threshold"], before, 0).clip(0)
    return before.clip(0)


def test_its_features_are_sae_lens_formula_of_what_the_site_holds(model, texts, trained):
    tensors, config = tensors_of(trained), json.loads((trained.directory / "cfg.json").read_text())
    rows = [np.asarray(model.tokenizer(text)["input_ids"]) for text in texts[:4]]
    held = np.asarray(model.capture(rows, sites="resid")["resid"])[1]
    wanted = [numpy_features(row[: len(ids)], tensors, config).max(0) for row, ids in zip(held, rows, strict=True)]
    found = el.record_responses(model.with_sae(trained.sae), texts[:4], sites="sae").values
    np.testing.assert_allclose(found, np.stack(wanted), atol=2e-4)


def test_what_is_reported_is_what_numpy_finds(model, texts, trained):
    tensors, config = tensors_of(trained), json.loads((trained.directory / "cfg.json").read_text())
    short = [text for text in texts if len(model.tokenizer(text)["input_ids"]) <= 16]
    rows = [np.asarray(model.tokenizer(text)["input_ids"]) for text in short]
    held = np.asarray(model.capture(rows, sites="resid")["resid"])[1]
    x = np.concatenate([row[: len(ids)] for row, ids in zip(held, rows, strict=True)]).astype(np.float64)
    features = numpy_features(x, tensors, config)
    missed = ((x - features @ tensors["W_dec"] - tensors["b_dec"]) ** 2).sum()
    found = el.training.measure_sae(model, trained.sae, trained.decoder, short, context=16)
    assert found.explained_variance == pytest.approx(1 - missed / ((x - x.mean(0)) ** 2).sum(), abs=1e-4)
    assert found.l0 == pytest.approx((features > 0).sum(1).mean(), abs=0.01)
    assert found.silent_share == pytest.approx((features.max(0) == 0).mean(), abs=0.03)
    scored = score_continuations(model, [""] * len(short), short)
    assert found.loss == pytest.approx(-np.concatenate(scored).mean(), abs=1e-4)
    assert found.loss_zero > found.loss_spliced > found.loss
    recovered = (found.loss_zero - found.loss_spliced) / (found.loss_zero - found.loss)
    assert found.loss_recovered == pytest.approx(recovered) and trained.quality.loss_recovered < 1


@pytest.mark.long
def test_a_perfect_dictionary_recovers_all_of_the_loss(model, texts):
    eye = np.concatenate([np.eye(128), -np.eye(128)], axis=1).astype(np.float32)
    both = el.SAE(eye, np.zeros(256, np.float32), layer=2, site="resid")
    found = el.training.measure_sae(model, both, eye.T.copy(), texts[:8])
    assert found.loss_recovered == pytest.approx(1, abs=1e-5) and found.explained_variance == pytest.approx(1, abs=1e-5)
    assert found.l0 == pytest.approx(128, abs=0.5) and found.silent_share < 0.1


@pytest.mark.long
@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_killed_run_ends_with_the_same_bytes(model, texts, trained, tmp_path, stop_at):
    checkpoints = []

    def stop():
        checkpoints.append(0)
        if len(checkpoints) == stop_at:
            raise KeyboardInterrupt

    given = dict(layer=1, settings=SETTINGS, checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        el.training.train_sae(model, texts, tmp_path, **given, after_checkpoint=stop)
    assert not (tmp_path / "layer1_resid").exists()
    again = el.training.train_sae(model, texts, tmp_path, **given)
    for file in FILES:
        assert (tmp_path / file).read_bytes() == (trained.directory.parent / file).read_bytes(), file
    read = el.training.train_sae(model, texts, tmp_path, **given)  # finished: nothing is trained
    np.testing.assert_array_equal(read.decoder, again.decoder)
    assert read.training.equals(again.training) and read.training["step"].tolist() == list(range(1, 13))


FILES = ("layer1_resid/sae_weights.safetensors", "layer1_resid/cfg.json", "training.csv", "quality.json")


def test_what_is_trained_together_is_what_is_trained_alone_and_read_once(model, texts, trained, tmp_path, monkeypatch):
    shorter = dataclasses.replace(SETTINGS, k=2, features=32, steps=7)
    frozen = dataclasses.replace(SETTINGS, frozen="decoder")
    asked = {tmp_path / "as_it_was": SETTINGS, tmp_path / "shorter": shorter, tmp_path / "frozen": frozen}
    alone = {
        each.name: el.training.train_sae(model, texts, tmp_path / f"{each.name}_alone", layer=1, settings=how)
        for each, how in asked.items()
        if how is not SETTINGS
    } | {"as_it_was": trained}
    read, buffers = activations.SiteReader.read, []
    monkeypatch.setattr(activations.SiteReader, "read", lambda *args: buffers.append(1) or read(*args))
    written = []

    def stop():
        written.append(0)
        if len(written) == 5:  # the third of them ends a checkpoint behind the first two
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        el.training.train_saes(model, texts, asked, layer=1, checkpoint_every=5, after_checkpoint=stop)
    buffers.clear()
    again = el.training.train_saes(model, texts, asked, layer=1, checkpoint_every=5)
    assert len(buffers) == 3 + 3  # steps 5 to 12, of three in a buffer, for all; and held-out texts for each
    for done, workdir in zip(again, asked, strict=True):
        assert done.directory.parent == workdir and len(done.training) == asked[workdir].steps
        for file in FILES:
            assert (workdir / file).read_bytes() == (alone[workdir.name].directory.parent / file).read_bytes(), file
    buffers.clear()
    monkeypatch.setattr(sae_training, "measure_on_pieces", None)  # would be called
    read_again = el.training.train_saes(model, texts, asked, layer=1)
    assert not buffers and [each.quality for each in read_again] == [each.quality for each in again]


def test_what_reads_other_activations_is_not_trained_together(model, texts, tmp_path):
    for changes in (dict(batch=32), dict(seed=1), dict(buffer=2), dict(context=8), dict(held_out=0.2)):
        other = dataclasses.replace(SETTINGS, **changes)
        ((name, value),) = changes.items()
        message = rf"{name}={getattr(SETTINGS, name)} is set for .*/a, and {value} for .*/b. What is trained together"
        with pytest.raises(SettingError, match=message):
            el.training.train_saes(model, texts, {tmp_path / "a": SETTINGS, tmp_path / "b": other}, layer=1)
    with pytest.raises(SettingError, match="no settings were given"):
        el.training.train_saes(model, texts, {}, layer=1)
    with pytest.raises(SettingError, match="wanted a directory for each training"):
        el.training.train_saes(model, texts, {f"{tmp_path}/a": SETTINGS, f"{tmp_path}/a/": SETTINGS}, layer=1)
    longer = dataclasses.replace(SETTINGS, steps=2000)
    with pytest.raises(CorpusError, match=r"2,000 steps of 64 ask for 128000: .* passes, of at most 10"):
        el.training.train_saes(model, texts, {tmp_path / "a": SETTINGS, tmp_path / "b": longer}, layer=1)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.long
def test_eight_devices_train_the_same_autoencoder(texts, trained, tmp_path):
    script = f"""
import jax, numpy as np, expertlens_jax as el
from expertlens_jax.training.sae_step import SAESettings
assert len(jax.devices()) == 8
settings = SAESettings(k=4, **{SMALL!r})
model = el.load_model("lenslet-2m")
el.training.train_sae(model, {list(texts)!r}, {str(tmp_path)!r}, layer=1, settings=settings)
"""
    run_script(script)
    eight = safetensors.numpy.load_file(tmp_path / "layer1_resid" / "sae_weights.safetensors")
    for name, tensor in tensors_of(trained).items():
        np.testing.assert_allclose(eight[name], tensor, atol=2e-3 * np.abs(tensor).max(), err_msg=name)


CASES = [
    ("gemma2", dict(kind="topk", k=4), ("mlp.act", "attn.z", "attn.out", "resid")),
    ("gpt2", dict(kind="jumprelu"), ("attn.q", "mlp.up", "mlp.act")),
    ("bert", dict(kind="relu"), ("resid", "mlp.down", "attn.z")),
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "own", "sites"), CASES, ids=[case[0] for case in CASES])
def test_any_site_of_any_family_is_learned_and_read(name, own, sites, tmp_path):
    case = next(case for case in families.CASES if case.name == name)
    model = el.load_model(families.save(families.make_hf_model(case), tmp_path / "model"))
    texts = ["ba be bi bo bu da", "1 2 3 ba fo", "k l m no", "pa pe p o me", "fa f e d i do du", "a b c d e f g"]
    settings = SAESettings(features=20, steps=3, batch=16, buffer=1, **own)
    ids = [np.asarray(model.tokenizer(text)["input_ids"]) for text in texts]
    for site in sites:
        done = el.training.train_sae(model, texts, tmp_path / site, layer=1, site=site, settings=settings)
        assert (done.sae.layer, done.sae.site) == (1, site)
        tensors, config = tensors_of(done), json.loads((done.directory / "cfg.json").read_text())
        held = np.asarray(model.capture(ids, sites=site)[site])[1]
        features = [numpy_features(row[1 : len(own) - 1], tensors, config) for row, own in zip(held, ids, strict=True)]
        found = el.record_responses(model.with_sae(done.sae), texts, sites="sae")
        np.testing.assert_allclose(found.values, np.stack([each.max(0) for each in features]), atol=2e-4)
        assert (found.values > 0).any()
        assert (done.quality.loss_recovered is None) == (name == "bert")


def test_where_it_reads_is_told_in_the_words_of_others():
    def hook(name, site):
        case = next(case for case in families.CASES if case.name == name)
        config = families.make_config(case)
        family = family_of(config)
        return hook_name(site, 1, family, family.translate(config))

    assert hook("gpt2", "resid") == "blocks.1.hook_resid_post"
    assert hook("gpt2", "mlp.up") == "blocks.1.mlp.hook_pre"
    assert hook("llama", "mlp.up") == "blocks.1.mlp.hook_pre_linear"
    assert hook("llama", "mlp.act") == "blocks.1.mlp.hook_post"
    assert hook("gemma2", "mlp.down") == "model.layers.1.mlp.down_proj"  # a norm follows, before TransformerLens's
    assert hook("bert", "resid") == "blocks.1.hook_normalized_resid_post"
    assert {"mlp.act", "attn.z", "attn.q", "resid.pre", "resid"} <= set(READABLE) and "attn.head" not in READABLE


def test_settings_of_its_own_are_held_against_each_other(trained, tmp_path):
    for number, (changes, message) in enumerate(
        [
            (dict(expertlens_site="resids"), "expertlens_site='resids' and expertlens_layer=1; wanted one of"),
            (dict(expertlens_layer=-1), "expertlens_layer=-1; wanted"),
            (dict(expertlens_layer="1"), "expertlens_layer='1', a str; wanted int"),
        ]
    ):
        config = json.loads((trained.directory / "cfg.json").read_text())
        config["metadata"] |= changes
        copy = tmp_path / str(number)
        copy.mkdir()
        (copy / "cfg.json").write_text(json.dumps(config))
        (copy / "sae_weights.safetensors").write_bytes((trained.directory / "sae_weights.safetensors").read_bytes())
        with pytest.raises(CheckpointError, match=message):
            el.load_sae(copy)
    with pytest.raises(CheckpointError, match="layer=2, site=None were given, and .* reads resid in layer 1"):
        el.load_sae(trained.directory, layer=2)


@pytest.mark.long
def test_dead_features_are_told(model, texts, tmp_path):
    settings = SAESettings(features=300, k=1, steps=6, batch=32, buffer=2, dead_after=3, auxiliary=0.0)
    with pytest.warns(
        ExpertLensWarning, match=r"\d+ of 300 features of layer0_mlp.act are dead: .* last 96 activations"
    ):
        done = el.training.train_sae(model, texts, tmp_path, layer=0, site="mlp.act", settings=settings)
    assert 0 < done.dead_share < 1 and f"{done.dead_share:.1%} of the features dead" in repr(done)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(layer=9), SelectionError, "layer=9 was given; lenslet-2m has layers 0 to 3"),
        (dict(site="attn.zz"), SelectionError, "the site 'attn.zz' is to be read; .* Did you mean attn.z"),
        (dict(checkpoint_every=0), SettingError, "checkpoint_every=0 was given"),
        (dict(texts=["The cat sat."]), CorpusError, r"1 text gives 0 tokens to train on \(beside 1 of 1"),
        (
            dict(settings=SAESettings(k=4, features=48, steps=200)),
            CorpusError,
            r"60 texts give \d+ tokens to train on .* 200 steps of 1024 ask for 204800: .* passes, of at most 10. Give",
        ),
        (dict(workdir="blocks.3.hook_mlp_out"), UnsupportedSAEError, "layer=1, site='resid' were given, and the dir"),
    ],
)
def test_bad_input_is_explained_before_anything_is_written(model, texts, tmp_path, changes, error, message):
    given = dict(texts=texts, workdir="run", layer=1, settings=SETTINGS) | changes
    with pytest.raises(error, match=message):
        el.training.train_sae(model, given.pop("texts"), tmp_path / given.pop("workdir"), **given)
    assert not list(tmp_path.rglob("*"))


def test_a_directory_of_another_training_is_left_alone(model, texts, trained):
    workdir = trained.directory.parent
    for changes, message in (
        (dict(settings=SAESettings(k=5, **SMALL)), "settings.k: 4 there, 5 asked for"),
        (dict(layer=2), "layer: 1 there, 2 asked for"),
        (dict(site="mlp.down"), "site: 'resid' there, 'mlp.down' asked for"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            el.training.train_sae(model, texts, workdir, **dict(layer=1, settings=SETTINGS) | changes)


def test_decoders_that_do_not_fit_are_explained(model, texts, trained, tmp_path):
    with pytest.raises(UnsupportedSAEError, match=r"decoder has the shape \[128, 48\]; .* should be \[48, 128\]"):
        el.training.measure_sae(model, trained.sae, trained.decoder.T, texts)
    with pytest.raises(UnsupportedSAEError, match="normalizes or centres activations"):
        el.training.measure_sae(model, trained.sae.replace(normalize="layer_norm"), trained.decoder, texts)
    with pytest.raises(CheckpointError, match="has no sae_weights.safetensors"):
        el.training.load_decoder(tmp_path)


@pytest.mark.long
def test_filler_rows_change_no_loss(model, texts, trained):
    pieces = tokenize_pieces(model.tokenizer, texts[:3], 64)
    once = losses_on(model, pieces, trained.sae, trained.decoder)
    doubled = tokenize_pieces(model.tokenizer, list(texts[:3]) * 2, 64)
    np.testing.assert_allclose(losses_on(model, doubled, trained.sae, trained.decoder), once, rtol=1e-5)
