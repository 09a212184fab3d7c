"""Sections of a search space about the data: which images, how they are split, how many are drawn."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from restnet_search.space.published_data import with_published_splits
from restnet_search.space.sections.checks import a_number
from restnet_search.space.sections.fields import Fraction, Positive, Section, Seed, Text


def _names(value: object) -> object:
    """YAML reads folders that are called 0, 1, 2 as numbers."""
    if not isinstance(value, list):
        return value
    if wrong := [name for name in value if isinstance(name, bool) or not isinstance(name, str | int)]:
        raise ValueError(f"{wrong[0]!r} is no name: put names that YAML takes for something else in quotes")
    return [str(name) for name in value]


ClassNames = Annotated[list[Text] | Text, BeforeValidator(_names)]

__all__ = ["DataSpec", "SplitSpec", "SubsetSpec"]


class SubsetSpec(Section):
    """Numbers of images of each split that are used (null: all), drawn by the seed, classes kept in proportion."""

    train: Positive | None = None
    val: Positive | None = None
    test: Positive | None = None


class SplitSpec(Section):
    """Places of the splits: a folder or tar below the root, or a split name that timm's data set knows."""

    train: Text = "train"
    val: Text = "val"
    test: Text | None = Field(default=None, description="null: cut from val, disjoint, stratified, by the seed.")


class DataSpec(Section):
    """A data set of the literature, anything else that timm.data.create_dataset reads, or the embedded `digits`."""

    dataset: str = Field(
        default="",
        description="'' for folders and tars, a preset (`restnet-search spaces data`), a timm name such as "
        "torch/mnist, or digits.",
    )
    root: Text | None = Field(default=None, description="Folder of the data; --data DIR on the command line wins.")
    splits: SplitSpec = SplitSpec()
    subset: SubsetSpec = SubsetSpec()
    classes: ClassNames | None = Field(
        default=None,
        description="All classes that anchors answer for, in that order: a list, or a file of names. A split may lack"
        " some.",
    )
    class_order: ClassNames | None = Field(
        default=None,
        description="lexicographic (as torchvision sorts folders), natural (as timm does), a list or a file. null:"
        " where the two differ, the answers of anchors that stay as they are decide.",
    )
    class_map: Text | None = Field(
        default=None,
        description="File of class names in the order of the anchors' answers (timm's class_map.txt, or JSON); images"
        " of other classes are left out.",
    )
    allow_overlap: bool = Field(
        default=False, description="true: go on where splits have more than 1 % of their images in common."
    )
    test_fraction: Annotated[float, BeforeValidator(a_number), Field(gt=0.0, lt=1.0)] = Field(
        default=0.5, description="Share of val that becomes test when there is no test split."
    )
    seed: Seed = 0
    max_unreadable: Fraction | None = Field(
        default=0.01,
        description="Share of a split's images that may be unreadable; they are left out. null: none is looked for.",
    )

    @model_validator(mode="after")
    def _one_list_of_classes(self) -> DataSpec:
        """Two keys that name the classes could contradict each other."""
        given = [key for key in ("classes", "class_order", "class_map") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say which classes there are: give one of them")
        return self

    @model_validator(mode="before")
    @classmethod
    def _published_splits(cls, value: object) -> object:
        """A preset's own splits stand in for those that are not named."""
        return with_published_splits(value)
