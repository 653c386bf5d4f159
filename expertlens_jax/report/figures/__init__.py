"""The figures: each takes a table that can be read back from its CSV, and returns a matplotlib `Figure`.

Nothing is computed here that a claim could rest on: correlations, intervals and shares come in as columns.
Figures are built without pyplot, so they need no display and leave nothing behind.
"""

from expertlens_jax.report.figures.alignment import plot_alignment
from expertlens_jax.report.figures.base_rates import plot_base_rates
from expertlens_jax.report.figures.comparisons import plot_comparisons
from expertlens_jax.report.figures.enrichment import plot_depth, plot_domain_enrichment, plot_enrichment
from expertlens_jax.report.figures.files import save_figure
from expertlens_jax.report.figures.lines import plot_lines
from expertlens_jax.report.figures.localisation import plot_localisation
from expertlens_jax.report.figures.measures import plot_measures
from expertlens_jax.report.figures.organisation import plot_domain_graph, plot_map, plot_tree
from expertlens_jax.report.figures.overlap import order_concepts, plot_overlap
from expertlens_jax.report.figures.polysemanticity import plot_matched, plot_services, plot_shared
from expertlens_jax.report.figures.recovery import plot_hierarchy, plot_recovery
from expertlens_jax.report.figures.significance import plot_significance
from expertlens_jax.report.figures.stability import plot_fewer, plot_stability, plot_stability_thresholds
from expertlens_jax.report.figures.steering import plot_steered_away, plot_steering, plot_steering_cost
from expertlens_jax.report.figures.training import plot_training

__all__ = [
    "order_concepts",
    "plot_alignment",
    "plot_base_rates",
    "plot_comparisons",
    "plot_depth",
    "plot_domain_enrichment",
    "plot_domain_graph",
    "plot_enrichment",
    "plot_fewer",
    "plot_hierarchy",
    "plot_lines",
    "plot_localisation",
    "plot_map",
    "plot_matched",
    "plot_measures",
    "plot_overlap",
    "plot_recovery",
    "plot_services",
    "plot_shared",
    "plot_significance",
    "plot_stability",
    "plot_stability_thresholds",
    "plot_steered_away",
    "plot_steering",
    "plot_steering_cost",
    "plot_training",
    "plot_tree",
    "save_figure",
]
