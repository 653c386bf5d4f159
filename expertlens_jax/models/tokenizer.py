"""Reads a model's tokenizer: it splits and maps text as its `tokenizer.json` says, whatever its class would do.

transformers builds some tokenizers anew from their class, with a vocabulary out of the file, and so loses what else the
file says: another pre-tokenizer, a normalizer. Here the file is loaded as it stands; of the other files only what it
can't say is taken: which tokens begin, end and pad a text, and the chat template. What they say against it is told.
"""

import base64
import binascii
import importlib.util
import inspect
import json
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
import transformers

from expertlens_jax.errors import ExpertLensWarning, TokenizationError
from expertlens_jax.models.hub import SLOW_TOKENIZER
from expertlens_jax.models.tokens import padding_id

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
GENERATION = "generation_config.json"
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
KEPT = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "model_input_names",
    "clean_up_tokenization_spaces",
    "split_special_tokens",
)
"""Settings that change no token of a text, and are handed on; the others either repeat the file or don't act."""
MODEL_FILES = ("tokenizer.model", "spiece.model")


def read_tokenizer(directory: pathlib.Path) -> transformers.PreTrainedTokenizerFast:
    """Read the tokenizer of a Hugging Face directory, able to tell what it adds and to pad.

    With a `tokenizer.json` its ids are those of `tokenizers.Tokenizer.from_file`, to the token, except for truncation
    and padding that such a file may store, which don't act. Which of the special tokens is BOS, and the like, comes
    from `tokenizer_config.json` and `special_tokens_map.json`; what isn't stated there, from the defaults of the class
    that they, or `config.json`, name. Without a `tokenizer.json` transformers converts what there is.

    Args:
      directory: holds the files that `tokenizer.save_pretrained` writes.

    Raises:
      TokenizationError: there is no tokenizer; its files can't be read, or disagree on a token's id; a package that
        they need isn't installed; or there is nothing it could pad with.

    Warns:
      ExpertLensWarning: `tokenizer_config.json` says otherwise than `tokenizer.json`, which stands.
    """
    wanted = (FILE, *SLOW_TOKENIZER)
    # Without any of these transformers would make an empty tokenizer, and every word unknown.
    if not any((directory / name).exists() for name in wanted):
        raise TokenizationError(
            f"there is no tokenizer in {directory}: looked for {', '.join(wanted)}. "
            "Save it beside the model with tokenizer.save_pretrained."
        )
    settings = _read_settings(directory)
    tokenizer = _from_file(directory, settings) if (directory / FILE).exists() else _converted(directory, settings)
    try:
        padding_id(tokenizer)
    except TokenizationError as error:
        raise TokenizationError(f"{directory}: {error}") from None
    return tokenizer


# With a tokenizer.json.


def _from_file(directory: pathlib.Path, settings: Mapping[str, Any]) -> transformers.PreTrainedTokenizerFast:
    """Return the tokenizer that `tokenizer.json` describes, in transformers' clothes."""
    path = directory / FILE
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise TokenizationError(
            f"the tokenizer in {directory} can't be read: {path} is damaged, or of a newer kind than tokenizers "
            f"{tokenizers.__version__} knows: {error}. Get it again, update tokenizers, or save it beside the model "
            "again, with tokenizer.save_pretrained."
        ) from error
    inner.no_truncation()
    inner.no_padding()
    inner.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    _tell_contradictions(directory, settings, inner)
    special = _special_tokens(directory, settings, inner)
    try:
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=inner,
            name_or_path=str(directory),
            chat_template=_chat_template(directory, settings),
            **special,
            **{name: settings[name] for name in KEPT if settings.get(name) is not None},
        )
    except Exception as error:  # a setting of the wrong type
        raise TokenizationError(
            f"the tokenizer in {directory} can't be read: {type(error).__name__}: {error}. "
            f"Is a setting in {SETTINGS} of the wrong type? Save it beside the model again, with "
            "tokenizer.save_pretrained."
        ) from error
    # The class matches special tokens in texts too, even those that are words to the file, and in some versions puts
    # the post-processor anew: back to the file's own.
    tokenizer._tokenizer = inner
    return tokenizer


def _special_tokens(
    directory: pathlib.Path, settings: Mapping[str, Any], inner: tokenizers.Tokenizer
) -> dict[str, str | list[str]]:
    """Return special tokens by name, as transformers takes them; those the file lacks are added to `inner`."""
    stated = {name: text for name in SPECIAL if (text := _text(settings.get(name)))}
    extra = [text for token in _extra_tokens(settings) if (text := _text(token))]
    _add_tokens(directory, settings, inner, {*stated.values(), *extra})
    known = inner.get_vocab(with_added_tokens=True)
    left = {name: text for name, text in stated.items() if text in known}
    if missing := sorted(stated.items() - left.items()):
        _warn(
            f"{directory / SETTINGS} names {', '.join(f'{name} {text!r}' for name, text in missing)}, which "
            f"{FILE} doesn't have. There is none, then. Save the tokenizer again, with tokenizer.save_pretrained."
        )
    for name, text in _class_defaults(directory, settings).items():
        if name not in settings and text in known:
            left[name] = text
    return left | {"additional_special_tokens": [text for text in dict.fromkeys(extra) if text in known]}


def _add_tokens(
    directory: pathlib.Path, settings: Mapping[str, Any], inner: tokenizers.Tokenizer, special: set[str]
) -> None:
    """Add the tokens that the other files have beyond `tokenizer.json`, at the ids that they state.

    A token whose id they don't state comes after all others, as in transformers. One whose id isn't free stays out.
    """
    stated = dict(sorted(_stated_tokens(directory, settings).items()))
    known = inner.get_vocab(with_added_tokens=True)
    elsewhere = []
    for place, token in stated.items():
        if token.content in known:
            if known[token.content] != place:
                elsewhere.append(f"{token.content!r} {place} ({FILE}: {known[token.content]})")
        elif inner.id_to_token(place) is not None or place != inner.get_vocab_size(with_added_tokens=True):
            elsewhere.append(f"{token.content!r} {place} ({FILE}: {inner.id_to_token(place)!r} has this id)")
        else:
            inner.add_tokens([token])
    if elsewhere:
        _warn(
            f"the files beside {directory / FILE} give tokens other ids than it: {_some(elsewhere)}. {FILE} stands, "
            "and what it lacks is no token. Save the tokenizer again, with tokenizer.save_pretrained."
        )
    known = inner.get_vocab(with_added_tokens=True)
    placed = {token.content for token in stated.values()}
    for text in sorted(special - placed - known.keys()):
        inner.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False)])


def _stated_tokens(directory: pathlib.Path, settings: Mapping[str, Any]) -> dict[int, tokenizers.AddedToken]:
    """By id, the added tokens of `tokenizer_config.json` or, of old, `added_tokens.json`."""
    tokens = {
        int(place): tokenizers.AddedToken(**{key: value for key, value in token.items() if key != "__type"})
        for place, token in (settings.get("added_tokens_decoder") or {}).items()
    }
    if not tokens:
        special = {_text(settings.get(name)) for name in SPECIAL} | {_text(token) for token in _extra_tokens(settings)}
        for text, place in _read_json(directory / "added_tokens.json").items():
            tokens[int(place)] = tokenizers.AddedToken(text, special=text in special, normalized=text not in special)
    return tokens


def _extra_tokens(settings: Mapping[str, Any]) -> list[Any]:
    """Return special tokens without a name among `SPECIAL`."""
    extra = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
    return list(extra.values()) if isinstance(extra, dict) else list(extra)


def _class_defaults(directory: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a tokenizer's class has where no file states any; {} for an unknown class.

    Files of old rely on them: GPT-2's and BERT's own state no special token.
    """
    named = settings.get("tokenizer_class")
    if not isinstance(named, str):
        from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

        named = TOKENIZER_MAPPING_NAMES.get(_read_json(directory / "config.json").get("model_type"))
        named = named[-1] if isinstance(named, tuple) else named
    kind = (
        getattr(transformers, named, None) or getattr(transformers, named.removesuffix("Fast"), None) if named else None
    )
    if kind is None:
        return {}
    parameters = inspect.signature(kind.__init__).parameters
    return {
        name: parameters[name].default
        for name in SPECIAL
        if name in parameters and isinstance(parameters[name].default, str)
    }


def _tell_contradictions(directory: pathlib.Path, settings: Mapping[str, Any], inner: tokenizers.Tokenizer) -> None:
    """Warns of each setting that says otherwise than the file does."""
    told = []
    file = json.loads(inner.to_str(pretty=False))
    around = _puts_around(file)
    for setting, name, added in zip(
        ("add_bos_token", "add_eos_token"), ("bos_token", "eos_token"), around, strict=True
    ):
        token, stated = _text(settings.get(name)), settings.get(setting)
        adds = token in added
        if token and isinstance(stated, bool) and stated != adds:
            told.append(f"{setting} is {json.dumps(stated)}, and {FILE} puts {'' if adds else 'no '}{token!r} there")
    lowered = inner.normalizer is not None and "a" in inner.normalizer.normalize_str("A")
    if isinstance(stated := settings.get("do_lower_case"), bool) and stated != lowered:
        told.append(f"do_lower_case is {json.dumps(stated)}, and {FILE} {'lowers' if lowered else 'keeps'} case")
    prefixes = _puts_space_before(file)
    stated = settings.get("add_prefix_space")
    if isinstance(stated, bool) and prefixes is not None and stated != prefixes:
        told.append(
            f"add_prefix_space is {json.dumps(stated)}, and {FILE} puts {'a' if prefixes else 'no'} space before a text"
        )
    own = inner.get_added_tokens_decoder()
    for place, token in _stated_tokens(directory, settings).items():
        other = own.get(place)
        if other is not None and other.content == token.content and _matching(other) != _matching(token):
            told.append(f"it matches {token.content!r} with {_matching(token)}, and {FILE} with {_matching(other)}")
    if told:
        _warn(
            f"{directory / SETTINGS} says otherwise than {FILE} beside it: {_some(told, '; ')}. {FILE} stands, as in "
            "transformers 5 (some classes of transformers 4 went by the settings). If it is wrong, change it: "
            "model.tokenizer.backend_tokenizer has its parts, such as post_processor and normalizer."
        )


def _puts_around(stated: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the tokens that a `tokenizer.json` puts before a text, and those that it puts after one."""
    before, after = set(), set()
    for part in _parts(stated.get("post_processor")):
        if part.get("type") == "TemplateProcessing":
            side = before
            for piece in part["single"]:
                if "Sequence" in piece:
                    side = after
                else:
                    side.add(piece["SpecialToken"]["id"])
        elif "cls" in part:  # BERT's and RoBERTa's: a pair of token and id each
            before.add(part["cls"][0])
            after.add(part["sep"][0])
    return before, after


def _puts_space_before(stated: Mapping[str, Any]) -> bool | None:
    """Return whether a `tokenizer.json` puts a space before a text's first word; None where none of its parts could."""
    found = []
    for part in _parts(stated.get("pre_tokenizer")) + _parts(stated.get("normalizer")):
        match part.get("type"):
            case "ByteLevel":
                found.append(bool(part.get("add_prefix_space")))
            case "Metaspace":
                found.append(part.get("prepend_scheme", "always") != "never")
            case "Prepend":
                found.append(True)
    return any(found) if found else None


def _parts(stated: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the parts of a sequence of normalizers, pre-tokenizers or processors, however deep.

    Without a sequence, it is the one there is.
    """
    if stated is None:
        return []
    inside = stated.get("pretokenizers") or stated.get("normalizers") or stated.get("processors")
    return [part for each in inside for part in _parts(each)] if inside else [stated]


def _matching(token: tokenizers.AddedToken) -> dict[str, bool]:
    """Return how an added token is found in a text."""
    return {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized")}


# Without one.


def _converted(directory: pathlib.Path, settings: Mapping[str, Any]) -> transformers.PreTrainedTokenizerFast:
    """Return what transformers makes of the vocabulary's older forms, compared with these."""
    _require_packages(directory)
    unset = {name: None for name in SPECIAL if name in settings and not _text(settings[name])}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, **unset
        )
    except (Exception, RecursionError) as error:  # transformers raises many kinds for a broken tokenizer
        raise TokenizationError(
            f"the tokenizer in {directory} can't be read: {error} "
            "Save it beside the model again, with tokenizer.save_pretrained."
        ) from error
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise TokenizationError(
            f"the tokenizer in {directory} has no {FILE}, which is needed to tell the tokens that "
            "it adds from those of the sentence. Convert it to a fast tokenizer and save it again."
        )
    got = tokenizer.get_vocab()
    wrong = [
        f"{text!r} {got.get(text)} instead of {place}"
        for text, place in _old_vocabulary(directory)
        if got.get(text) != place
    ]
    if wrong:
        raise TokenizationError(
            f"transformers {transformers.__version__} converts the tokenizer in {directory} to other ids than "
            f"its files state: {_some(wrong)}. Convert it with the version of transformers that the model was made "
            f"with, and save its {FILE} beside the model, with tokenizer.save_pretrained."
        )
    _compare_with_sentencepiece(directory, tokenizer)
    return tokenizer


def _require_packages(directory: pathlib.Path) -> None:
    """Refuses a vocabulary of SentencePiece or tiktoken whose library isn't installed.

    Raises:
      TokenizationError: it isn't; the message names it.
    """
    for name in MODEL_FILES:
        path = directory / name
        if not path.exists():
            continue
        if _is_tiktoken(path):
            kind, needed = "tiktoken's", {"tiktoken": "tiktoken"}
        else:
            kind, needed = "SentencePiece's", {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
        missing = [package for module, package in needed.items() if not _installed(module)]
        if missing:
            raise TokenizationError(
                f"the tokenizer in {directory} is {kind} {name}, without a {FILE}, and converting it takes "
                f"{' and '.join(missing)}, not installed here: pip install {' '.join(missing)}. Or save the {FILE} "
                "beside the model from a machine that has it: "
                "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(...)."
            )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def _is_tiktoken(path: pathlib.Path) -> bool:
    """Return whether a vocabulary is tiktoken's (lines of a base64 token and its rank), rather than SentencePiece's."""
    with path.open("rb") as file:
        first = file.readline(4096).split()
    try:
        return len(first) == 2 and first[1].isdigit() and bool(base64.b64decode(first[0], validate=True))
    except binascii.Error:
        return False


def _old_vocabulary(directory: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Return the tokens of `vocab.json` or `vocab.txt`, and the ids that these state."""
    if (directory / "vocab.json").exists():
        yield from _read_json(directory / "vocab.json").items()
    elif (directory / "vocab.txt").exists():
        lines = (directory / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        yield from {text.rstrip("\r"): place for place, text in enumerate(lines) if text.strip()}.items()


PROBES = ("Hello world", "The cat's mat, in 2023!", "an old house  by the sea", "naïve café")


def _compare_with_sentencepiece(directory: pathlib.Path, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    """Hold a conversion against the library whose file it is."""
    path = next((directory / name for name in MODEL_FILES if (directory / name).exists()), None)
    if path is None or _is_tiktoken(path):
        return
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in PROBES:
        theirs, ours = own.encode(text), tokenizer(text, add_special_tokens=False)["input_ids"]
        if theirs != ours:
            raise TokenizationError(
                f"transformers {transformers.__version__} converts {path} to a tokenizer that splits otherwise than "
                f"SentencePiece does: {text!r} is {theirs} to the one and {ours} to the other. Convert it with the "
                f"version of transformers that the model was made with, and save its {FILE} beside the model, with "
                "tokenizer.save_pretrained."
            )


# The other files.


def read_end_ids(directory: pathlib.Path) -> tuple[int, ...] | None:
    """Read which token ids end a generated text, any of them: instruct models end a turn by another than a document.

    `generation_config.json` says so or, where it is absent or silent, `config.json`; a number or a list.

    Returns:
      The ids, ascending; None where neither file states any, and only the tokenizer's end-of-text token is left.

    Raises:
      TokenizationError: what a file states is no token id, or it isn't JSON.
    """
    for name in (GENERATION, "config.json"):
        stated = _read_json(directory / name).get("eos_token_id")
        ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
        if any(isinstance(each, bool) or not isinstance(each, int) or each < 0 for each in ids):
            raise TokenizationError(
                f"{directory / name} states eos_token_id {stated!r}; it should be a token id, or a list of them."
            )
        if ids:
            return tuple(sorted(set(ids)))
    return None


def _read_settings(directory: pathlib.Path) -> dict[str, Any]:
    """`tokenizer_config.json`, and what only `special_tokens_map.json` has; of old, that one's word counts more."""
    settings = _read_json(directory / SETTINGS)
    special = _read_json(directory / "special_tokens_map.json")
    return special | settings if "added_tokens_decoder" in settings else settings | special


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Return a JSON object; {} where there is no such file."""
    if not path.exists():
        return {}
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise TokenizationError(f"{path} is not JSON: {error}. Get it again.") from error
    if not isinstance(stated, dict):
        raise TokenizationError(f"{path} holds a {type(stated).__name__}, where an object was expected. Get it again.")
    return stated


def _text(token: Any) -> str | None:
    """Return a special token's text, stated as such or as an object; None for an empty one, or none."""
    text = token.get("content") if isinstance(token, dict) else token
    return str(text) if text else None


def _chat_template(directory: pathlib.Path, settings: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Return one template, or several by name: a file of its own counts more than the settings."""
    alone = {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))
    }
    if (path := directory / "chat_template.jinja").exists():
        alone["default"] = path.read_text(encoding="utf-8")
    if alone:
        return alone["default"] if alone.keys() == {"default"} else alone
    stated = settings.get("chat_template") or _read_json(directory / "chat_template.json").get("chat_template")
    if isinstance(stated, list):
        return {each["name"]: each["template"] for each in stated}
    return stated or None


def _some(of: list[str], mark: str = ", ") -> str:
    """Return the first few of a list, and how many there are besides."""
    return mark.join(of[:5]) + (f"{mark}and {len(of) - 5} more" if len(of) > 5 else "")


def _warn(message: str) -> None:
    warnings.warn(ExpertLensWarning(message), stacklevel=2)
