"""A package of somebody else's, which adds one ranker, one stitch layer, one strategy and one export format."""
