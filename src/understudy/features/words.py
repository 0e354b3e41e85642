"""The adapter `words`: features of two tokenizers, averaged over each word that both see whole.

Student and teacher read the same text in different tokens, so no token of the one is a token of the
other. Words are what both have: a side's features of a word are the mean of those of its tokens.
"""

from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError, TrainingError
from understudy.features.form import Adapted, Shape, check_pairs


def pool_words(
    states: Float[Tensor, " batch tokens width"], words: Int64[Tensor, " batch tokens"], count: int
) -> Float[Tensor, " batch count width"]:
    """One vector per word: the mean of those of its tokens; zeros behind a row's last word.

    As a matrix product, so that its gradient is the same on every run of a GPU.

    Args:
        states: of every token.
        words: the number of each token's word in its row, -1 for none.
        count: words of the row with most.
    """
    numbers = torch.arange(count, device=words.device)
    member = (words.unsqueeze(1) == numbers[:, None]).to(states.dtype)
    shares = member / member.sum(dim=2, keepdim=True).clamp(min=1)
    # Whatever a token of no word holds, NaN included, must not be multiplied by 0.
    return shares @ torch.where((words >= 0).unsqueeze(2), states, 0.0)


class Words(nn.Module):
    """Both sides with one vector per shared word, and a mask of the words that each row has.

    The student's are brought to the teacher's width by a linear layer where widths differ. Rows are
    found by their ids, so every row must be as it was when the words were counted: views that move
    tokens do not go with it.

    Args:
        student: shapes of the student's layers, `[tokens, width]` each.
        teacher: shapes of the teacher's, `[its tokens, width]` each.
        ids: int64 `[rows]`, the rows that were counted.
        student_words: int64 `[rows, tokens]`, as `shared_words` gives them.
        teacher_words: int64 `[rows, its tokens]`.

    Raises:
        ModelError: a layer holds no tokens, or there is not one line of words per id.

    Paper:
        None: averaging the pieces of a word is what Devlin et al. 2019, "BERT", section 5.3, do
        with the first piece alone; here no piece is left out.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        ids: Tensor,
        student_words: Tensor,
        teacher_words: Tensor,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        for shape in (*student, *teacher):
            if len(shape) != 2:
                raise ModelError(
                    f"words need features [tokens, width], but got a layer of {list(shape)}: name "
                    "layers of the encoder before its pooling"
                )
        if not len(ids) == len(student_words) == len(teacher_words):
            raise ModelError(
                f"every row must have its words on both sides, but got {len(ids)} ids, "
                f"{len(student_words)} rows of the student and {len(teacher_words)} of the teacher"
            )
        order = ids.argsort()
        self.register_buffer("ids", ids[order], persistent=False)
        for name, words in (("student", student_words), ("teacher", teacher_words)):
            self.register_buffer(f"{name}_words", words[order].to(torch.int32), persistent=False)
        self.bridges = nn.ModuleList(
            nn.Identity() if own[1] == goal[1] else nn.Linear(own[1], goal[1])
            for own, goal in zip(student, teacher, strict=True)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Both sides, `[batch, words, width]`, and which of these words there are.

        Raises:
            TrainingError: rows have no ids, or their words were not counted.
        """
        at = self._found(batch)
        sides = (student[0].shape[1], teacher[0].shape[1])
        own, goal = (
            _cut(cast(Tensor, getattr(self, f"{name}_words"))[at].long(), length)
            for name, length in zip(("student", "teacher"), sides, strict=True)
        )
        most = int(max(own.max(), goal.max())) + 1 if own.numel() and goal.numel() else 0
        # One word at least, and masked: a batch without any is no batch of another shape.
        count = max(1, most)
        numbers = torch.arange(count, device=own.device)
        there = [(words.unsqueeze(1) == numbers[:, None]).any(dim=2) for words in (own, goal)]
        return Adapted(
            student=[
                bridge(pool_words(states, own, count))
                for bridge, states in zip(self.bridges, student, strict=True)
            ],
            teacher=[pool_words(states.detach(), goal, count) for states in teacher],
            mask=there[0] & there[1],
        )

    def _found(self, batch: Batch) -> Tensor:
        known = cast(Tensor, self.ids)
        if batch.ids is None:
            raise TrainingError("words are found by the ids of rows, but these rows have none")
        at = torch.searchsorted(known, batch.ids).clamp(max=len(known) - 1)
        missing = batch.ids[known[at] != batch.ids]
        if len(missing):
            raise TrainingError(
                f"the words of every row must have been counted, but those of row "
                f"{int(missing[0])} were not ({len(missing)} of {len(batch)} rows)"
            )
        return at


def _cut(words: Tensor, length: int) -> Tensor:
    """As many tokens as the batch has: -1 behind the last counted one, none behind its end."""
    short = length - words.shape[1]
    return nn.functional.pad(words, (0, short), value=-1) if short > 0 else words[:, :length]
