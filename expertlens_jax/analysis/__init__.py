"""What experts say: questions to tables of expertise, each answered by a `Result`.

`el.analysis.alignment(expertise, "wordsim353", threshold=0.5)` and its like give a table, a summary and figures. Behind
them stand `similarity/`, `structure/`, `conditions/`, `steering/`, `detecting/` and `statistics/`, a file a question.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from expertlens_jax.analysis.conditions.questions import settling, stability
    from expertlens_jax.analysis.detecting.question import detection
    from expertlens_jax.analysis.result import Result
    from expertlens_jax.analysis.similarity.questions import alignment, baselines, controls, typicality
    from expertlens_jax.analysis.similarity.rdms import from_rsatoolbox, to_rsatoolbox
    from expertlens_jax.analysis.steering.learned import learned_units
    from expertlens_jax.analysis.steering.questions import necessity
    from expertlens_jax.analysis.structure.questions import (
        hierarchy,
        localisation,
        matched_controls,
        mixture,
        organisation,
        polysemanticity,
        senses,
    )

__all__ = [
    "Result",
    "alignment",
    "baselines",
    "controls",
    "detection",
    "from_rsatoolbox",
    "hierarchy",
    "learned_units",
    "localisation",
    "matched_controls",
    "mixture",
    "necessity",
    "organisation",
    "polysemanticity",
    "senses",
    "settling",
    "stability",
    "to_rsatoolbox",
    "typicality",
]
