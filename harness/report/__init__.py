"""Tables from rows and confusion matrices; neither torch nor ray."""

from harness.report.tables import (
    census_tables,
    describe_tables,
    gap_tables,
    per_image_rows,
    replicates_summary,
    score_tables,
    scores_as_values,
    search_summary,
)

__all__ = [
    "census_tables", "describe_tables", "gap_tables", "per_image_rows", "replicates_summary", "score_tables",
    "scores_as_values", "search_summary",
]  # fmt: skip
