"""What the report tabulates: results, comparisons, class scores, localization, cost, hyper-parameters."""
