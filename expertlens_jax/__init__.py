"""ExpertLens in JAX and Flax: find the neurons of a language model that are experts on a concept."""

from expertlens_jax.models.loading import load_model as load_model
