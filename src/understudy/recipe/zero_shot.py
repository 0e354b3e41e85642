"""How a recipe says what a teacher without any training goes by: the names of its classes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from understudy.recipe.parts import Part, Positive

_PLACE = "{}"


class ZeroShotSection(Part):
    """A classifier of texts that has seen no label: the class whose description a text is nearest.

    `encoder` is a sentence encoder. Each of `classes` is told by names and descriptions, which are
    written into `template`; its direction is the mean of their vectors. The answer is the cosine
    with each direction times `scale`, and an offset per class that makes the mean answer to the
    training texts that of `prior`.
    """

    encoder: str
    classes: Mapping[str, tuple[str, ...]]
    template: str = _PLACE
    scale: Positive | Literal["auto"] = "auto"
    prior: Literal["uniform"] | dict[str, Annotated[float, Field(gt=0, lt=1)]] | None = "uniform"

    @field_validator("classes", mode="before")
    @classmethod
    def _names_are_texts(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        # YAML reads `0:` as a number; one description needs no list.
        return {
            str(name): tuple(told) if isinstance(told, list | tuple) else (told,)
            for name, told in value.items()
        }

    @model_validator(mode="after")
    def _whole(self) -> "ZeroShotSection":
        if len(self.classes) < 2:
            raise ValueError(
                f"`classes` must be two or more, but got {len(self.classes)}: write one line of "
                "descriptions for each class of the rows"
            )
        bare = [name for name, told in self.classes.items() if not all(t.strip() for t in told)]
        bare += [name for name, told in self.classes.items() if not told]
        if bare:
            raise ValueError(
                f"every class must have a name or description in words, but `{bare[0]}` has an "
                f"empty one: write `{bare[0]}: [its name, what it is]`"
            )
        if self.template.count(_PLACE) != 1:
            raise ValueError(
                f"`template` must hold `{_PLACE}` once, where names and descriptions are written, "
                f"but got {self.template!r}: such as `This text is about {_PLACE}.`"
            )
        if isinstance(self.prior, dict):
            self._check_prior(self.prior)
        return self

    def _check_prior(self, prior: Mapping[str, float]) -> None:
        if set(prior) != set(self.classes):
            raise ValueError(
                f"`prior` must give a share for each of {', '.join(sorted(self.classes))}, but "
                f"gives {', '.join(sorted(prior))}"
            )
        if abs(sum(prior.values()) - 1) > 1e-3:
            raise ValueError(
                f"the shares of `prior` must sum to 1, but sum to {sum(prior.values()):g}"
            )
