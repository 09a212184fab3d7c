"""The search space: schema, reading and writing, and where it is found."""

from restnet_search.space.discovery import FoundSpace, builtin_spaces, find_space
from restnet_search.space.loading import admit_extensions, dump_space, load_space, parse_space
from restnet_search.space.schema import SearchSpace

__all__ = [
    "FoundSpace",
    "SearchSpace",
    "admit_extensions",
    "builtin_spaces",
    "dump_space",
    "find_space",
    "load_space",
    "parse_space",
]
