"""The search space: schema, reading and writing, and where it is found."""

from restnet_search.space.discovery import FoundSpace, builtin_spaces, find_space
from restnet_search.space.schema import SearchSpace
from restnet_search.space.space_files import admit_extensions, dump_space, load_space, parse_space

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
