"""Output of the commands other than the search: plain frozen data, its JSON twin, and a rich renderer each."""
