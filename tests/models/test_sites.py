"""The table of sites: what it says of a model's units, and that all else goes by it."""

import pathlib
import re

import families
import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.errors import SelectionError
from expertlens_jax.models.families import family_of
from expertlens_jax.models.sites import SITES, block_sites, check_sites, in_block_order, sites_table
from expertlens_jax.models.units import units_table

README = pathlib.Path(__file__).parents[2] / "README.md"


def config_of(name):
    hf = families.make_config(next(case for case in families.CASES if case.name == name))
    family = family_of(hf)
    return family, family.translate(hf)


def test_the_readme_names_them_all():
    (table,) = re.findall(r"<!-- sites -->\n(.*?)\n<!-- /sites -->", README.read_text(), re.DOTALL)
    assert table == sites_table()
    assert all(f"| `{name}` |" in table for name in SITES)


def test_default_units_are_what_they_were():
    """Linear layers' outputs, by layer, then site, then channel, in the table's columns."""
    family, config = config_of("llama")
    units = units_table(family, config)
    assert list(units) == ["layer", "site", "channel", "hf_module", "hf_channel"]
    sizes = {"attn.q": 40, "attn.k": 20, "attn.v": 20, "attn.out": 24, "mlp.gate": 37, "mlp.up": 37, "mlp.down": 24}
    assert config.default_sites() == tuple(sizes)
    expected = [(layer, site, channel) for layer in range(3) for site, n in sizes.items() for channel in range(n)]
    assert list(zip(units["layer"], units["site"], units["channel"], strict=True)) == expected
    modules = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    assert list(units.loc[units["site"] == "attn.q", "hf_module"].unique()) == modules
    assert (units["hf_channel"] == units["channel"]).all()


def test_what_a_row_says_of_a_model():
    family, config = config_of("gpt2")
    assert list(block_sites(config)) == [
        name for name in SITES if name not in ("mlp.router", "mlp.gate", "sae") and "shared" not in name
    ]
    assert list(config.site_channels()) == [name for name in block_sites(config) if SITES[name].steered]
    units = units_table(family, config, ["resid", "attn.head", "attn.z"])
    assert list(units["site"].unique()) == ["attn.z", "attn.head", "resid"]  # in the order of a block
    first = units[units["layer"] == 1].groupby("site", observed=True).first()
    assert first.loc["attn.z", "hf_module"] == "transformer.h.1.attn.c_proj#input"
    assert first.loc["resid", "hf_module"] == "transformer.h.1"
    assert (first.loc["attn.head", "hf_module"], first.loc["attn.head", "hf_channel"]) == ("", -1)
    assert (units["site"] == "attn.head").sum() == 3 * 3
    before = units_table(family, config, ["resid.pre"])
    assert set(before["hf_module"]) == {f"transformer.h.{layer}#input" for layer in range(3)}


def test_figures_have_the_order_of_a_block():
    assert in_block_order(["resid", "mine", "mlp.up", "attn.q", "mlp.up"]) == ["attn.q", "mlp.up", "resid", "mine"]


def test_one_name_is_a_site_too():
    assert check_sites(config_of("gpt2")[1], "mlp.act") == ("mlp.act",)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["mlp.act", "mpl.up"], r"sites mpl.up were given; this model has resid.pre, .* Did you mean mlp.up\?"),
        ("attn", r"sites attn were given; this model has resid.pre, attn.q, .* attn.head"),
        (["mlp.gate"], "sites mlp.gate were given; this model has"),
        ([], r"sites \(none\) were given"),
        (["sae"], "carries no sparse autoencoder"),
    ],
)
def test_what_a_model_does_not_have_is_refused(sites, message):
    with pytest.raises(SelectionError, match=message):
        check_sites(config_of("gpt2")[1], sites)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    return el.load_model(families.save(families.make_hf_model(case), tmp_path_factory.mktemp("neox")))


SENTENCES = [f"{word} {other} {last}" for word in "abcd" for other in ("be", "di", "fo") for last in "xyz"]
CONCEPTS = el.ConceptDataset(
    name="letters",
    sentences=tuple(SENTENCES),
    concepts=tuple("abcd"),
    domains=("",) * 4,
    labels=np.repeat(np.eye(4, dtype=bool), 9, axis=1),
    negative_pool=np.ones(len(SENTENCES), bool),
)


def test_heads_can_be_experts_and_cannot_be_steered(model, tmp_path):
    """A head is a unit in `find_experts` as any is; to act on one, its channels of attn.z are there."""
    found = el.find_experts(model, CONCEPTS, tmp_path, sites=("attn.head", "attn.z"), permutations=3)
    responses = el.record_responses(model, SENTENCES, sites=("attn.head", "attn.z"))
    want = el.measure_expertise(responses, CONCEPTS)
    np.testing.assert_allclose(found["average_precision"].values, want["average_precision"].values, atol=2e-6)
    heads = responses.units["site"] == "attn.head"
    assert heads.sum() == model.config.num_layers * model.config.num_heads
    assert (responses.values[:, heads] > 0).all()
    with pytest.raises(
        SelectionError, match=r"units of the site attn.head can't be steered: .* Use channels of attn.z"
    ):
        el.steer_units(model, responses.units[heads])
    with pytest.raises(SelectionError, match=r"units of the site attn.head can't be steered"):
        el.steer(want, "a", top=3)
    z = el.steer(found.isel(unit=np.flatnonzero(found["site"].values == "attn.z")), "a", top=3)
    assert {site for _, site, _ in z.units} == {"attn.z"}
    assert np.abs(model([[5, 6, 7]], steering=z) - model([[5, 6, 7]])).max() > 1e-4
