"""Tables of expertise by a config: found once, kept in a run directory, and shared between experiments."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.errors import ConceptDataError, SettingError
from expertlens_jax.experts.budget import GB
from expertlens_jax.experts.token_masks import PoolOver
from expertlens_jax.models.digests import digest_json
from expertlens_jax.run_directory import is_local


def find_experts(
    model: el.Model,
    concepts: el.ConceptDataset,
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    *,
    recording: el.Recording | None = None,
    negatives: el.Negatives | Sequence[el.Negatives] | None = None,
    statistics: el.Statistics | None = None,
    store: el.ResponseStore | None = None,
) -> xr.Dataset:
    """Return `el.find_experts` with all that a config says of it.

    Every launcher finds its experts here.

    Args:
      model: with its revision in its name.
      concepts: the sentences.
      workdir: the table's run directory.
      config: has all of `configs.common.measuring_settings`.
      recording, negatives: others than the config's own.
      statistics: what is measured beside average precision.
      store: where responses are kept.
    """
    return el.find_experts(
        model,
        concepts,
        workdir,
        recording=recording or read_recording(config),
        negatives=negatives or read_negatives(config),
        statistics=statistics,
        budget=dataclasses.replace(read_budget(config), store=store),
        progress=True,
    )


def saved_expertise(
    model: el.Model,
    concepts: el.ConceptDataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    *,
    halves: bool = False,
    pool_over: PoolOver = "all",
    sae: str = "",
    keep: bool = False,
    own: bool = True,
    beside: tuple[tuple[str, str], ...] = (),
    also_over: tuple[PoolOver, ...] = (),
    **changes: object,
) -> xr.Dataset:
    """Return the table of expertise of a model and a sentence set; measure what of it isn't there yet.

    Tables lie in the run directory, or in `config.expertise`, where several experiments can share them. Responses lie
    in `responses` beside them, for further tables of the same sentences. What the config asks with other negatives is
    measured together, by one sort: see `asked_together`.

    Args:
      model: with its revision in its name.
      concepts: the sentences.
      config: of the experiment.
      workdir: of the run.
      halves: also average precision in each half of the sentences.
      pool_over: which of a sentence's tokens, as in `el.find_experts`; part of the table's name, unless it is all.
      sae: what to call the sparse autoencoder that the model carries, to rank its features instead of units.
      keep: whether the model and the sentences are the config's own, of which further tables are made: the responses
        are kept for these, and slopes of the transport measured. Responses that are there are read in any case.
      own: whether the sentences are the config's own, of which stability asks samples; others are measured without.
      beside: with `keep`, what else to keep of the same pass over the sentences, see `el.ResponseStore`.
      also_over: with `keep`, over which other tokens to keep responses of the same pass, for tables of `pool_over`.
      **changes: other negatives than the config's, by the plain names of `el.Negatives`; they become part of the
        table's name.

    Raises:
      RunDirectoryError: a table of that name is there, of another model or other sentences that are called the same.
    """
    usual = read_negatives(config)
    asked = changed(usual, **changes)
    together, halves = asked_together(config, concepts, asked, halves=halves, own=own)
    plain = table_name(model, concepts)
    name = plain
    if len(together) > 1:
        name += f"_negatives-{digest_json([each.attributes() for each in together])[:8]}"
    else:
        name += "".join(f"_{key}-{value}" for key, value in sorted(changes.items()) if value != usual.attributes()[key])
    name += f"_pool_over-{pool_over}" if pool_over != "all" else ""
    name += f"_{sae}" if sae else ""
    name += "_halves" if halves else ""
    print(f"Finding the experts of {model.name}{f', {sae},' if sae else ''} in {concepts.name}")
    root = tables_root(config, workdir)
    recording = dataclasses.replace(read_recording(config), pool_over=pool_over)
    table = find_experts(
        model,
        concepts,
        root / name,
        config,
        recording=dataclasses.replace(recording, sites=("sae",)) if sae else recording,
        negatives=together if len(together) > 1 else asked,
        statistics=el.Statistics(
            halves=halves,
            # Only steering reads the slopes of the transport, half of ranking: of the own model's plain table.
            transport=keep and name == plain and wants_transport(config),
            permutations=el.Resampling(0, together[0].seed),
        ),
        store=read_store(config, root, read_only=not keep, beside=beside, pool_over=also_over),
    )
    return (el.select_negatives(table, asked) if len(together) > 1 else table).load()


def asked_together(
    config: ml_collections.ConfigDict,
    concepts: el.ConceptDataset,
    asked: el.Negatives,
    *,
    halves: bool,
    own: bool = True,
) -> tuple[list[el.Negatives], bool]:
    """Return the negatives that one sort answers together, and whether halves with them.

    Those are the ones asked for, and what the config asks beside them, as far as the sentences allow. Base rates go
    together, those of alignment and of negatives; so do the halves and the samples of stability, of the config's own
    sentences (`own`). All begin with the config's own negatives.
    """
    usual = read_negatives(config)
    ratios = [*_of_section(config, "base_rates", "negatives_per_positive"), *_of_section(config, "negatives", "ratios")]
    rates = [dataclasses.replace(usual, per_positive=ratio) for ratio in sorted({*map(float, ratios)})]
    samples = [
        dataclasses.replace(usual, sampled=True, seed=seed) for seed in _of_section(config, "stability", "seeds")
    ]
    if asked in samples or (own and halves and asked == usual):
        return [usual, *_that_can_be(samples, usual, concepts)], True
    if asked != usual and asked in rates and not halves:
        return [usual, *_that_can_be(rates, usual, concepts)], False
    return [asked], halves


def _that_can_be(
    settings: Sequence[el.Negatives], first: el.Negatives, concepts: el.ConceptDataset
) -> list[el.Negatives]:
    """Return each of the negatives beside the first that these sentences have enough of.

    What others ask is their affair.
    """
    found: list[el.Negatives] = []
    for negatives in settings:
        try:
            el.contrast_concepts(concepts, negatives)
        except ConceptDataError:
            continue
        if negatives not in (first, *found):
            found.append(negatives)
    return found


def _of_section(config: ml_collections.ConfigDict, section: str, name: str) -> tuple:
    """Return a setting of an experiment's section; () in a config without it."""
    found = config.get(section)
    return tuple(found.get(name, ())) if isinstance(found, ml_collections.ConfigDict) else ()


def tables_root(config: ml_collections.ConfigDict, workdir: epath.Path) -> epath.Path:
    """Return the directory of a run's tables of expertise, which several runs may share."""
    return epath.Path(config.expertise) if config.expertise else workdir / "expertise"


def read_store(
    config: ml_collections.ConfigDict,
    root: epath.Path,
    *,
    read_only: bool,
    beside: tuple[tuple[str, str], ...] = (),
    pool_over: tuple[PoolOver, ...] = (),
) -> el.ResponseStore | None:
    """Return where responses are kept, beside the tables; None where the config keeps none, or in a bucket."""
    limit = int(config.get("kept_gigabytes", 0) * GB)
    if limit <= 0 or not is_local(root):
        return None
    return el.ResponseStore(root / "responses", limit, read_only, beside, pool_over)


def wants_transport(config: ml_collections.ConfigDict) -> bool:
    """Return whether the own model's tables have slopes of the linear transport, as where the config steers by them."""
    methods = [*_of_section(config, "steering", "methods"), *_of_section(config, "steering", "away_methods")]
    return bool(config.get("transport", True)) or "linear_ot" in methods


def read_recording(config: ml_collections.ConfigDict) -> el.Recording:
    """Return what the config says of how sentences are read."""
    return el.Recording(
        sites=tuple(config.sites) or None,
        pooling=config.pooling,
        tokens_per_batch=config.tokens_per_batch or None,
        truncate=config.truncate,
        chat=read_chat(config),
        significant_bits=config.significant_bits or None,
    )


def read_chat(config: ml_collections.ConfigDict) -> el.Chat | None:
    """Return the conversation that the config has sentences stand in; None for plain text.

    Raises:
      SettingError: it says what a chat is without one, or a turn that there isn't.
    """
    if config.chat:
        return el.Chat(config.chat, config.chat_system, config.chat_asked)
    if config.chat_system or config.chat_asked:
        raise SettingError(
            f"chat_system={config.chat_system!r} and chat_asked={config.chat_asked!r} are set, and chat isn't, so "
            'nothing would read them. Set chat="user" or chat="assistant", or leave them out.'
        )
    return None


def read_negatives(config: ml_collections.ConfigDict) -> el.Negatives:
    """Return what the config says of a concept's negatives, by their plain names."""
    return el.Negatives(config.negatives_per_positive, config.exclude_mentions, config.sampled, config.seed)


def changed(negatives: el.Negatives, **changes: object) -> el.Negatives:
    """Return negatives with other values of some fields, by their plain names."""
    return el.Negatives.of_attributes(negatives.attributes() | changes)


def read_budget(config: ml_collections.ConfigDict) -> el.Budget:
    """Return the config's budget, in gigabytes there; what is left to the machine is half of what is free."""
    stated = {place: config[f"{place}_gigabytes"] for place in ("device", "host", "disk")}
    sizes = {place: int(size * GB) for place, size in stated.items() if size >= 0}
    return el.Budget(**sizes, passes=config.passes or None)


def table_name(model: el.Model, concepts: el.ConceptDataset) -> str:
    """Return what a table of a model and a sentence set is called; a hub id holds a slash."""
    return f"{model.name.replace('/', '--')}_{concepts.name}"


def question_of(table: xr.Dataset) -> dict[str, object]:
    """Return all that a table's numbers follow from, and so what is measured of it."""
    return {name: value for name, value in table.attrs.items() if name not in ("tokenizer", "package")}
