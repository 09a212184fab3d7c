"""What commands other than the search print: plain frozen data, its JSON twin, and a rich renderer each."""
