"""Where numbers come from: which network, and how it was read. Responses, tables and steerings carry it along."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from expertlens_jax.models.config import ALiBi, QueryScale, TransformerConfig
from expertlens_jax.models.digests import default_options, digest_json, stated_options
from expertlens_jax.models.rotary import Rotary
from expertlens_jax.models.sae import SAE
from expertlens_jax.run_directory import differing_settings

NUMBERS_VERSION = 2
"""Raise it with every change by which the same files and settings give other numbers: a config or weights that are
read otherwise, a tokenizer or a word's mentions, a layer, a pooling, a ranking. Runs, and converted parameters, of
another version are then not taken for this one's. A default of `TransformerConfig` or `SAE` that changes is such a
change; an option that is added, with a default that does what was done before, is none.

1: up to 0.1.0. 2: config options, weights and tokenizers that 0.1.0 read wrongly are read right or refused.
"""

_OF_MODEL = ("weights", "config", "dtype", "numbers_version", "matmul_precision", "x64")
_READ_AS = ("sites", "pooling", "pool_over", "truncate", "chat", "significant_bits")
_OF_READING = (*_READ_AS, "sentences_sha256", "tokens_sha256", "steering", "saes")
_UNSAID = ("pool_over", "chat", "significant_bits", "steering", "saes", "matmul_precision", "x64")  # at their defaults


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What responses follow from; of a steering made by hand, the model alone.

    Equal provenances mean equal numbers, up to rounding: names, versions of packages, and the number and kind of
    devices and `tokens_per_batch` are no part of that. Texts that hold a structure are JSON, so that all fields are
    plain values: hashable, and attributes of any file format.
    """

    model: str = dataclasses.field(compare=False)
    """Its name, for people: any fine-tune may be called "checkpoint-500"."""
    weights: str
    """Digest of the parameters' values."""
    config: str
    """JSON of the options of `TransformerConfig` that differ from their defaults."""
    dtype: str
    """Of parameters and activations."""
    tokenizer: str = dataclasses.field(default="", compare=False)
    """Digest of the tokenizer's file; what it made of the sentences is in `tokens_sha256`, and that decides."""
    sites: tuple[str, ...] = ()
    pooling: str = ""
    """Over a sentence's tokens; "" where nothing was read."""
    pool_over: str = "all"
    truncate: bool = False
    chat: str = ""
    """JSON of the conversation that sentences stood in, see `settings.Chat`; "" for none."""
    significant_bits: int = 0
    """To how many responses were rounded; 0 for none."""
    tokens_per_batch: int = dataclasses.field(default=0, compare=False)
    sentences_sha256: str = ""
    tokens_sha256: str = ""
    """Of the sentences' token ids, and which of them were pooled over."""
    steering: str = ""
    """What was done to the model while it read, with a digest; "" for nothing."""
    saes: str = ""
    """JSON of the settings of each sparse autoencoder whose features were read, with a digest of its weights."""
    matmul_precision: str = ""
    """jax's `jax_default_matmul_precision`, if it was set."""
    x64: bool = False
    """jax's `jax_enable_x64`."""
    numbers_version: int = NUMBERS_VERSION
    package: str = dataclasses.field(default="", compare=False)
    """Version of this package."""

    @property
    def model_digest(self) -> str:
        """Tells the network from any other: a digest of its config and weights."""
        return digest_json([self.config, self.weights])

    def settings(self) -> dict[str, Any]:
        """Return all that a run is told by, nested, as its `config.json` has it."""
        fields = [field for field in dataclasses.fields(self) if field.name not in ("tokenizer", "package")]
        stated = [field for field in fields if field.name not in _UNSAID or getattr(self, field.name) != field.default]
        said = {field.name: getattr(self, field.name) for field in stated}
        nested = {name: json.loads(said[name]) for name in ("config", "saes") if name in said}
        return said | nested | {"sites": list(self.sites)}

    def attributes(self) -> dict[str, str | int | bool]:
        """Return all fields as flat attributes of a table, for zarr and netCDF; `read_provenance` reads them."""
        said = self.settings() | {"tokenizer": self.tokenizer, "package": self.package}
        texts = {name: getattr(self, name) for name in ("config", "saes") if name in said}
        return said | texts | {"sites": ", ".join(self.sites)}

    def same_model(self, other: "Provenance") -> bool:
        """Return whether both are of one network, whatever it is called, as one version of this package reads it."""
        return (self.model_digest, self.numbers_version) == (other.model_digest, other.numbers_version)

    def model_alone(self) -> "Provenance":
        """Return the provenance without what was read, and how."""
        return dataclasses.replace(
            Provenance(self.model, self.weights, self.config, self.dtype),
            **{name: getattr(self, name) for name in ("numbers_version", "matmul_precision", "x64", "package")},
        )


def provenance_of(model: str, weights: str, config: TransformerConfig, dtype: str) -> Provenance:
    """Return the provenance of a model as it is computed with now.

    Args:
      model: its name.
      weights: see `digest_arrays`.
      config: its options.
      dtype: of its parameters and activations.
    """
    return Provenance(
        model=model,
        weights=weights,
        config=json.dumps(stated_options(config), sort_keys=True),
        dtype=dtype,
        # jax adds the settings to its class as it is imported, where no type checker sees them
        matmul_precision=jax.config.jax_default_matmul_precision or "",  # ty: ignore[missing-attribute]
        x64=bool(jax.config.jax_enable_x64),  # ty: ignore[missing-attribute]
        package=importlib.metadata.version("expertlens-jax"),
    )


def read_provenance(attributes: Mapping[Any, Any]) -> Provenance | None:
    """Return the provenance among a table's attributes, or a saved steering's; None if it has none, or not all of it.

    Tables of hand-made responses have none, and those of 0.1.0 lack the config.
    """
    fields = {field.name: field for field in dataclasses.fields(Provenance)}
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING} | {"numbers_version"}
    if not needed <= set(attributes):
        return None
    known: dict[str, Any] = {name: attributes[name] for name in fields if name in attributes}
    plain = {name: type(fields[name].default)(value) for name, value in known.items() if name not in needed | {"sites"}}
    sites = tuple(filter(None, str(known.get("sites", "")).split(", ")))
    version = int(known["numbers_version"])
    stated: dict[str, Any] = known | plain | {"sites": sites, "numbers_version": version}
    return Provenance(**stated)


def differences(first: Provenance, second: Provenance, *, model_only: bool = False) -> str:
    """Return in which settings two provenances differ, as `name: one and other`, or "" if in none that changes numbers.

    Args:
      first, second: to compare.
      model_only: leave out what was read, and how.
    """
    names: Sequence[str] = _OF_MODEL if model_only else (*_OF_MODEL, *_OF_READING)
    sides = [{name: each.settings().get(name, getattr(each, name)) for name in names} for each in (first, second)]
    found = differing_settings(*sides, defaults=setting_defaults())
    return "; ".join(f"{name}: {one} and {other}" for name, (one, other) in found.items())


def setting_defaults() -> dict[str, Any]:
    """Return what a setting stands for that `Provenance.settings` leaves out; nested as they are."""
    plain = dict.fromkeys(_UNSAID)  # None, so that a run that left one out isn't taken for one that couldn't say it
    config = default_options(TransformerConfig) | dict.fromkeys(("rotary", "local_rotary"), default_options(Rotary))
    config |= {"alibi": default_options(ALiBi), "query_scale": default_options(QueryScale)}
    return plain | {"config": config, "saes": default_options(SAE)}
