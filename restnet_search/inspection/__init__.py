"""Models and spaces before a search: cut points, costs, similarity, rankings, fits, and whether a space will do."""
