"""From a model and sentences to every unit's expertise: against apple/ml-selfcond, and against PyTorch with hooks.

    python benchmarks/end_to_end.py [--selfcond PATH_TO_A_CHECKOUT] [--concepts 176] [--sentences_per_concept 40]

The model has GPT-2's shape (124 million parameters, 82,944 units) and random weights; the sentences are the packaged
`facts`, under a byte-level BPE tokenizer trained on the packaged sentences. In one run:

- expertlens_jax: `find_experts` without halves or permutations, which no other side has: with compilation, and again.
- apple/ml-selfcond, its own code from a checkout (github.com/apple/ml-selfcond, written with commit c5e0921), on the
  same units, as its scripts call it: for each concept the model is loaded, `ConceptDataset` reads 40 positives and
  100 negatives drawn for them, `cache_responses` writes pickles, `read_responses_from_cached` reads them, and
  `ExpertiseResult.build` ranks unit by unit. Some concepts are timed and multiplied up to all. Batches of 30 and
  sentences padded to 128 tokens are its scripts' defaults (`--selfcond_tokens`). Nothing of it had to be patched
  for transformers 5. Its maximum takes in the padding and its negatives are another sample, so its AP differs from
  ours; what is compared is our ranking of its responses, and how many of these padding has raised.
- PyTorch: one pass over all sentences as in `recording.py`, then scikit-learn's `average_precision_score` unit by
  unit and concept by concept with our weights, timed on a sample and multiplied up, and divided by the number of
  cores, as if it were spread over them without loss.

PyTorch's protocol is ours, so AP should be the same. Two sentences whose responses differ by less than float32's noise
may change places; so where AP differs by more than 1e-5, it is also told whether moving the positives by the noise,
up and down, brackets ours.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from recording import add_model_arguments, load_pytorch, num_cores, record_with_hooks, save_gpt2, save_tokenizer
from recording import tokenize as tokenize_with

NOISE_SENTENCES = 256  # on which the two frameworks' responses are compared


def main() -> None:
    """Runs the sides one after the other, and prints seconds, ratios and differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=176, help="the first so many")
    parser.add_argument("--sentences_per_concept", type=int, default=40)
    parser.add_argument("--sampled_pairs", type=int, default=300, help="(concept, unit) pairs for scikit-learn")
    parser.add_argument("--tokens_per_batch", type=int, default=4096, help="ours and PyTorch's, padding included")
    parser.add_argument("--selfcond", type=pathlib.Path, help="a checkout of apple/ml-selfcond")
    parser.add_argument("--selfcond_concepts", type=int, default=1, help="how many to time")
    parser.add_argument("--selfcond_tokens", type=int, default=128, help="to which it pads sentences")
    add_model_arguments(parser)
    parser.add_argument("--directory", type=pathlib.Path, help=argparse.SUPPRESS)  # given to selfcond's process
    arguments = parser.parse_args()
    if arguments.directory:
        be_selfcond(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        arguments.directory = pathlib.Path(name)
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """All sides, on a model made in the directory."""
    import jax

    import expertlens_jax as el

    directory = arguments.directory
    facts = el.load_concepts("facts")
    save_tokenizer(directory / "model", [*facts.sentences, *el.load_concepts("stories").sentences])
    save_gpt2(directory / "model", layers=arguments.layers, width=arguments.width, heads=arguments.heads)
    concepts = first_concepts(facts, arguments.concepts, arguments.sentences_per_concept)
    selfcond = run_selfcond(arguments, concepts) if arguments.selfcond else None
    model = el.load_model(str(directory / "model"))
    num_concepts, num_sentences = concepts.labels.shape
    num_tokens = sum(map(len, tokenize_with(directory / "model", concepts.sentences)))
    print(f"{num_concepts} concepts, {num_sentences} sentences, {num_tokens} tokens, {len(model.units)} units,")
    print(f"{num_cores()} cores; jax {jax.__version__} on {jax.local_device_count()} {jax.default_backend()}")

    expertise, cold = find(model, concepts, directory / "first", arguments)
    _, warm = find(model, concepts, directory / "second", arguments)
    show("expertlens_jax, compiled", warm)
    show("expertlens_jax, from cold", cold, "with compilation")
    if selfcond:
        show_selfcond(selfcond, warm, cold, num_concepts)
        check_selfcond(selfcond, model, concepts)
    else:
        print("apple/ml-selfcond was left out: give --selfcond PATH_TO_A_CHECKOUT")
    compare_pytorch(arguments, model, concepts, expertise, (warm, cold))


def first_concepts(concepts: Any, number: int, sentences_each: int) -> Any:
    """The first concepts, with the first of their sentences."""
    labels = concepts.labels[:number]
    kept = np.unique(np.concatenate([np.flatnonzero(row)[:sentences_each] for row in labels]))
    return dataclasses.replace(
        concepts,
        sentences=tuple(concepts.sentences[i] for i in kept),
        concepts=concepts.concepts[:number],
        domains=concepts.domains[:number],
        labels=labels[:, kept],
        negative_pool=concepts.negative_pool[kept],
    )


def find(model: Any, concepts: Any, workdir: pathlib.Path, arguments: argparse.Namespace) -> tuple[Any, float]:
    """Our side: the table, and the seconds it took."""
    import expertlens_jax as el

    options = {"permutations": 0, "halves": False, "tokens_per_batch": arguments.tokens_per_batch}
    return timed(lambda: el.find_experts(model, concepts, workdir, **options))


def compare_pytorch(
    arguments: argparse.Namespace, model: Any, concepts: Any, expertise: Any, ours: tuple[float, float]
) -> None:
    """PyTorch's and scikit-learn's side, and how far AP is from ours."""
    import torch

    import expertlens_jax as el

    reference = load_pytorch(arguments.directory / "model")
    with torch.inference_mode():
        reference(input_ids=torch.zeros((2, 8), dtype=torch.long))  # starts its threads

    def record() -> np.ndarray:
        ids = tokenize_with(arguments.directory / "model", concepts.sentences)
        return record_with_hooks(reference, ids, arguments.tokens_per_batch)

    values, recording = timed(record)
    weights = el.contrast_concepts(concepts).weights()
    pairs = np.random.default_rng(0).integers([len(concepts.concepts), len(model.units)], size=(sampled(arguments), 2))
    columns = values[:, pairs[:, 1]].T.copy()

    def rank() -> np.ndarray:
        return np.array([precision(column, concepts.labels[c], weights[c]) for column, (c, _) in zip_pairs(columns)])

    def zip_pairs(rows: np.ndarray) -> Any:
        return zip(rows, pairs, strict=True)

    theirs, seconds = timed(rank)
    ranking = seconds / len(pairs) * len(concepts.concepts) * len(model.units) / num_cores()
    total = recording + ranking
    parts = f"pass {recording:.1f} s, scikit-learn {ranking:,.0f} s from {len(pairs)} pairs, over {num_cores()} cores"
    show(f"PyTorch {torch.__version__} hooks", total, ratios(total, *ours))
    print(f"    {parts}")

    found = expertise["average_precision"].to_numpy()[tuple(pairs.T)]
    few = concepts.sentences[:NOISE_SENTENCES]
    noise = np.abs(el.record_responses(model, few).values - values[: len(few)]).max()
    off = np.flatnonzero(np.abs(found - theirs) > 1e-5)
    bracketed = 0
    for i in off:
        labels, own_weights = concepts.labels[pairs[i, 0]], weights[pairs[i, 0]]
        # Either side's responses may be off by the noise, so two of them may be apart by twice that.
        low, high = (precision(columns[i] + 2 * noise * side * labels, labels, own_weights) for side in (-1.0, 1.0))
        bracketed += low - 1e-6 <= found[i] <= high + 1e-6
    print(f"largest difference in AP, ours from PyTorch's: {np.abs(found - theirs).max():.1e}, {len(pairs)} pairs")
    print(f"    {len(off)} differ by more than 1e-5, {bracketed} of them within float noise (responses: {noise:.1e})")


def sampled(arguments: argparse.Namespace) -> int:
    """How many pairs to time."""
    return arguments.sampled_pairs


def precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """scikit-learn's average precision."""
    from sklearn.metrics import average_precision_score

    return average_precision_score(labels, scores, sample_weight=weights)


def run_selfcond(arguments: argparse.Namespace, concepts: Any) -> dict[str, Any]:
    """Runs apple/ml-selfcond in a process of its own, since it forks; seconds by part, and its last concept's numbers.

    Its data are a JSON file for each concept.
    """
    import expertlens_jax as el

    contrast = el.contrast_concepts(concepts, sampled=True)
    folder = arguments.directory / "selfcond"
    folder.mkdir()
    for c in range(arguments.selfcond_concepts):
        drawn = contrast.corrected[c][contrast.corrections[c] > 0]
        rows = {"positive": np.flatnonzero(concepts.labels[c]), "negative": drawn}
        sentences = {label: [concepts.sentences[i] for i in each] for label, each in rows.items()}
        data = {"concept": concepts.concepts[c], "group": concepts.domains[c], "sentences": sentences}
        (folder / f"{c}.json").write_text(json.dumps(data))
    command = [sys.executable, __file__, "--directory", str(arguments.directory)]
    command += ["--selfcond", str(arguments.selfcond), "--selfcond_tokens", str(arguments.selfcond_tokens)]
    subprocess.run([*command, "--selfcond_concepts", str(arguments.selfcond_concepts)], check=True)
    return json.loads((folder / "seconds.json").read_text()) | dict(np.load(folder / "last.npz"))


def be_selfcond(arguments: argparse.Namespace) -> None:
    """What its scripts `compute_responses.py` and `compute_expertise.py` call, timed by part."""
    sys.path.insert(0, str(arguments.selfcond))
    from selfcond.data import ConceptDataset, PytorchTransformersTokenizer
    from selfcond.expertise import ExpertiseResult
    from selfcond.models import PytorchTransformersModel, collect_responses_info
    from selfcond.responses import cache_responses, read_responses_from_cached

    folder, name = arguments.directory / "selfcond", str(arguments.directory / "model")
    parts: dict[str, float] = {}

    def part(label: str, work: Callable[[], Any]) -> Any:
        result, seconds = timed(work)
        parts[label] = parts.get(label, 0) + seconds
        return result

    tokens = arguments.selfcond_tokens
    with contextlib.redirect_stdout(sys.stderr):  # it prints much
        tokenizer = PytorchTransformersTokenizer(name, None)
        for c in range(arguments.selfcond_concepts):
            file, pickles = folder / f"{c}.json", folder / f"{c}"
            options = {"seq_len": tokens, "num_per_concept": 1000, "random_seed": 1234, "tokenizer": tokenizer}
            data = part("data", lambda: ConceptDataset(file, **options))  # noqa: B023
            model = part("load", lambda: PytorchTransformersModel(name, None, seq_len=tokens, device="cpu"))
            infos = collect_responses_info("gpt2", model)
            part("responses", lambda: cache_responses(model, data, infos, 30, pickles))  # noqa: B023
            responses, labels, _ = part("read", lambda: read_responses_from_cached(pickles, data.concept))  # noqa: B023
            result = ExpertiseResult()
            part("ranking", lambda: result.build(data.concept, data.concept_group, responses, labels))  # noqa: B023
    names = list(responses)
    sizes = {name: len(responses[name]) for name in names}
    (folder / "seconds.json").write_text(json.dumps({"parts": parts, "modules": sizes}))
    precision = np.concatenate([result.ap[name] for name in names])
    values = np.concatenate([responses[name] for name in names]).T  # [sentences, units]
    np.savez(folder / "last.npz", values=values, labels=labels, precision=precision, texts=data.data["data"])


def show_selfcond(theirs: dict[str, Any], warm: float, cold: float, num_concepts: int) -> None:
    """Its seconds, multiplied up from those of the concepts timed."""
    number = theirs["number"]
    total = sum(theirs["parts"].values()) / number * num_concepts
    each = ", ".join(f"{part} {seconds / number:.1f} s" for part, seconds in theirs["parts"].items())
    show("apple/ml-selfcond", total, ratios(total, warm, cold))
    print(f"    from {number} of {num_concepts} concepts, each: {each}")


def check_selfcond(theirs: dict[str, Any], model: Any, concepts: Any) -> None:
    """Our ranking of its responses, and its responses beside ours."""
    raise NotImplementedError


def ratios(seconds: float, warm: float, cold: float) -> str:
    """How many times as long as ours."""
    return f"ours is {seconds / warm:,.1f} x as fast, {seconds / cold:,.1f} x with compilation"


def show(name: str, seconds: float, note: str = "") -> None:
    """A line of the table."""
    print(f"{name:26} {seconds:12,.1f} s   {note}", flush=True)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work()` returns, and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
