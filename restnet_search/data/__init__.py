"""Data sets: what is read, how it is split, how an anchor sees it."""

from restnet_search.data.augmentation import AugmentedImages
from restnet_search.data.inventory import DataInventory
from restnet_search.data.opening import load_data
from restnet_search.data.pixels import DEFAULT_PIXEL_BYTES, PixelCache
from restnet_search.data.preprocessing import Preprocessing, preprocessing_of
from restnet_search.data.splits import DataSplits, Split

__all__ = [
    "DEFAULT_PIXEL_BYTES",
    "AugmentedImages",
    "DataInventory",
    "DataSplits",
    "PixelCache",
    "Preprocessing",
    "Split",
    "load_data",
    "preprocessing_of",
]
