"""Train and score stitch layers."""
