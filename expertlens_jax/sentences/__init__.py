"""Concept sentences: `mine` takes them out of text, `write` has a language model write them, `audit` checks them."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from expertlens_jax.sentences.auditing import PROBLEMS as PROBLEMS
    from expertlens_jax.sentences.auditing import Audit, audit
    from expertlens_jax.sentences.concept_list import Concept
    from expertlens_jax.sentences.sentence_sets import SentenceSet, mine, write

__all__ = ["Audit", "Concept", "SentenceSet", "audit", "mine", "write"]
