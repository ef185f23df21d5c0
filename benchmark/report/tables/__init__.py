"""The tables of the report: results, comparisons, class scores, localization and cost."""
