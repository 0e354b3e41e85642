"""How a recipe says what becomes of texts."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.recipe.parts import Part

# Tasks that ask a model once per token instead of once per row.
EACH_TOKEN = frozenset({"token_classification", "language_model"})


class TokenizerSection(Part):
    """How texts become tokens: by a tokenizer that there is, or by one trained on training rows.

    `file` is a `tokenizer.json`, the folder of a Hugging Face model or its name on the hub. Without
    it one is trained, as `train`, `size` and `lower` say. `max_length` is where texts are cut.
    """

    file: str | None = None
    train: Literal["wordpiece", "bpe"] = "wordpiece"
    size: int = Field(default=8000, ge=32)
    lower: bool = True
    max_length: Annotated[int, Field(ge=4)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_path_is_a_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _read_or_trained(self) -> "TokenizerSection":
        given = sorted(self.model_fields_set & {"train", "size", "lower"})
        defaults = type(self).model_fields
        changed = [name for name in given if getattr(self, name) != defaults[name].default]
        if self.file is not None and changed:
            raise ValueError(
                f"`{changed[0]}` is for a tokenizer that is trained here, but `file` names one "
                "that there is: remove one of them"
            )
        return self
