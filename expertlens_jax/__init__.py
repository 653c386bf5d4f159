"""ExpertLens in JAX and Flax: find the neurons of a language model that are experts on a concept.

import expertlens_jax as el

model     = el.load_model("path/to/model")
concepts  = el.load_concepts("facts")
responses = el.record_responses(model, concepts.sentences)
expertise = el.measure_expertise(responses, concepts)
experts   = el.select_experts(expertise, threshold=0.5)
overlap   = el.jaccard(experts)
print(el.align(overlap, el.load_ratings("wordsim353")))
"""

import importlib.metadata

from etils import epy

__version__ = importlib.metadata.version("expertlens-jax")

# Each name is imported when it is first used: `import expertlens_jax` takes a tenth of a second, not four.
with epy.lazy_api_imports(globals()):
    # The rooms: el.analysis.NAME and so on.
    from expertlens_jax import analysis as analysis
    from expertlens_jax import plot as plot
    from expertlens_jax import sentences as sentences
    from expertlens_jax import training as training
    from expertlens_jax.analysis.detecting.detectors import DETECTORS as DETECTORS
    from expertlens_jax.analysis.detecting.detectors import Detector
    from expertlens_jax.analysis.similarity.alignment import Alignment, align
    from expertlens_jax.analysis.similarity.comparison import compare_alignments, partial_alignments
    from expertlens_jax.analysis.similarity.odd_one_out import OddOneOut, odd_one_out_accuracy
    from expertlens_jax.analysis.steering.choosing import choose_steering
    from expertlens_jax.data.concepts import ConceptDataset, load_concepts
    from expertlens_jax.data.contrast import Contrast, contrast_concepts
    from expertlens_jax.data.ratings import Ratings, load_ratings
    from expertlens_jax.data.things import Things, load_things
    from expertlens_jax.data.typicality import Typicality, load_typicality
    from expertlens_jax.errors import ExpertLensError, ExpertLensWarning
    from expertlens_jax.experts.attribution import attribute
    from expertlens_jax.experts.budget import Budget
    from expertlens_jax.experts.directions import find_directions, mask_directions
    from expertlens_jax.experts.distributions import measure_distributions
    from expertlens_jax.experts.expertise import measure_expertise
    from expertlens_jax.experts.inspection import top_experts, top_sentences, top_tokens
    from expertlens_jax.experts.labelled_responses import Responses
    from expertlens_jax.experts.learned_steering import Learning, learn_steering
    from expertlens_jax.experts.overlap import OVERLAPS as OVERLAPS
    from expertlens_jax.experts.overlap import (
        Overlap,
        cosine,
        jaccard,
        js,
        kl,
        overlap,
        overlap_coefficient,
        weighted_jaccard,
    )
    from expertlens_jax.experts.pipeline import find_experts
    from expertlens_jax.experts.response_store import ResponseStore
    from expertlens_jax.experts.responses import record_responses
    from expertlens_jax.experts.scores import SCORES as SCORES
    from expertlens_jax.experts.scores import Score, score_units
    from expertlens_jax.experts.selection import select_experts, select_negatives
    from expertlens_jax.experts.steering import share_expertise, steer
    from expertlens_jax.experts.table import open_expertise
    from expertlens_jax.experts.tracing import Trace, trace
    from expertlens_jax.explorer.comparing import compare_runs
    from expertlens_jax.explorer.site import explore
    from expertlens_jax.models.generation import Generations, generate
    from expertlens_jax.models.interventions import (
        At,
        Intervention,
        ablate_heads,
        cap,
        intervene,
        patch_tokens,
        remove_direction,
    )
    from expertlens_jax.models.loading import load_model, randomize_weights
    from expertlens_jax.models.logit_effect import logit_effect
    from expertlens_jax.models.model import Model
    from expertlens_jax.models.sae import SAE
    from expertlens_jax.models.sae_files import load_sae
    from expertlens_jax.models.steering import Steering, steer_units
    from expertlens_jax.models.steering_files import load_steering
    from expertlens_jax.models.when import When
    from expertlens_jax.parallel import connect_hosts, make_mesh
    from expertlens_jax.report.pushing import push
    from expertlens_jax.settings import Chat, Negatives, Recording, Resampling, Statistics

__all__ = [
    "SAE",
    "Alignment",
    "At",
    "Budget",
    "Chat",
    "ConceptDataset",
    "Contrast",
    "Detector",
    "ExpertLensError",
    "ExpertLensWarning",
    "Generations",
    "Intervention",
    "Learning",
    "Model",
    "Negatives",
    "OddOneOut",
    "Overlap",
    "Ratings",
    "Recording",
    "Resampling",
    "ResponseStore",
    "Responses",
    "Score",
    "Statistics",
    "Steering",
    "Things",
    "Trace",
    "Typicality",
    "When",
    "ablate_heads",
    "align",
    "attribute",
    "cap",
    "choose_steering",
    "compare_alignments",
    "compare_runs",
    "connect_hosts",
    "contrast_concepts",
    "cosine",
    "explore",
    "find_directions",
    "find_experts",
    "generate",
    "intervene",
    "jaccard",
    "js",
    "kl",
    "learn_steering",
    "load_concepts",
    "load_model",
    "load_ratings",
    "load_sae",
    "load_steering",
    "load_things",
    "load_typicality",
    "logit_effect",
    "make_mesh",
    "mask_directions",
    "measure_distributions",
    "measure_expertise",
    "odd_one_out_accuracy",
    "open_expertise",
    "overlap",
    "overlap_coefficient",
    "partial_alignments",
    "patch_tokens",
    "push",
    "randomize_weights",
    "record_responses",
    "remove_direction",
    "score_units",
    "select_experts",
    "select_negatives",
    "share_expertise",
    "steer",
    "steer_units",
    "top_experts",
    "top_sentences",
    "top_tokens",
    "trace",
    "weighted_jaccard",
]
