"""The figures: each takes a table that can be read back from its CSV, and returns a matplotlib `Figure`.

Nothing is computed here that a claim could rest on: correlations, intervals and shares come in as columns.
Figures are built without pyplot, so they need no display and leave nothing behind.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from expertlens_jax.plot.alignment_figures import plot_alignment as alignment
    from expertlens_jax.plot.audit_figures import plot_audit as audit
    from expertlens_jax.plot.base_rates_figures import plot_base_rates as base_rates
    from expertlens_jax.plot.comparisons_figures import plot_comparisons as comparisons
    from expertlens_jax.plot.concept_graph_figures import plot_concept_graph as concept_graph
    from expertlens_jax.plot.detection_figures import plot_detection as detection
    from expertlens_jax.plot.detection_figures import plot_detection_examples as detection_examples
    from expertlens_jax.plot.enrichment_figures import plot_depth as depth
    from expertlens_jax.plot.enrichment_figures import plot_domain_enrichment as domain_enrichment
    from expertlens_jax.plot.enrichment_figures import plot_enrichment as enrichment
    from expertlens_jax.plot.files import save_figure
    from expertlens_jax.plot.lines_figures import plot_lines as lines
    from expertlens_jax.plot.localisation_figures import plot_localisation as localisation
    from expertlens_jax.plot.measures_figures import plot_measures as measures
    from expertlens_jax.plot.mixture_figures import plot_mixture as mixture
    from expertlens_jax.plot.mixture_figures import plot_together as together
    from expertlens_jax.plot.necessity_figures import plot_learned_units as learned_units
    from expertlens_jax.plot.necessity_figures import plot_necessity as necessity
    from expertlens_jax.plot.organisation_figures import plot_domain_graph as domain_graph
    from expertlens_jax.plot.organisation_figures import plot_map as map
    from expertlens_jax.plot.organisation_figures import plot_tree as tree
    from expertlens_jax.plot.overlap_figures import order_concepts
    from expertlens_jax.plot.overlap_figures import plot_overlap as overlap
    from expertlens_jax.plot.polysemanticity_figures import plot_matched as matched
    from expertlens_jax.plot.polysemanticity_figures import plot_services as services
    from expertlens_jax.plot.polysemanticity_figures import plot_shared as shared
    from expertlens_jax.plot.recovery_figures import plot_hierarchy as hierarchy
    from expertlens_jax.plot.recovery_figures import plot_recovery as recovery
    from expertlens_jax.plot.runs_figures import plot_runs as runs
    from expertlens_jax.plot.senses_figures import plot_senses as senses
    from expertlens_jax.plot.significance_figures import plot_significance as significance
    from expertlens_jax.plot.sparse_features_figures import plot_sparse_features as sparse_features
    from expertlens_jax.plot.stability_figures import plot_fewer as fewer
    from expertlens_jax.plot.stability_figures import plot_grid as grid
    from expertlens_jax.plot.stability_figures import plot_stability as stability
    from expertlens_jax.plot.stability_figures import plot_stability_thresholds as stability_thresholds
    from expertlens_jax.plot.steering_figures import plot_steered_away as steered_away
    from expertlens_jax.plot.steering_figures import plot_steering as steering
    from expertlens_jax.plot.steering_figures import plot_steering_choice as steering_choice
    from expertlens_jax.plot.steering_figures import plot_steering_cost as steering_cost
    from expertlens_jax.plot.training_figures import plot_training as training
    from expertlens_jax.plot.typicality_figures import plot_typicality as typicality

__all__ = [
    "alignment",
    "audit",
    "base_rates",
    "comparisons",
    "concept_graph",
    "depth",
    "detection",
    "detection_examples",
    "domain_enrichment",
    "domain_graph",
    "enrichment",
    "fewer",
    "grid",
    "hierarchy",
    "learned_units",
    "lines",
    "localisation",
    "map",
    "matched",
    "measures",
    "mixture",
    "necessity",
    "order_concepts",
    "overlap",
    "recovery",
    "runs",
    "save_figure",
    "senses",
    "services",
    "shared",
    "significance",
    "sparse_features",
    "stability",
    "stability_thresholds",
    "steered_away",
    "steering",
    "steering_choice",
    "steering_cost",
    "together",
    "training",
    "tree",
    "typicality",
]
