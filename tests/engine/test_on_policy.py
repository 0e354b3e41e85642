"""On-policy batches: seeded, live, only what was written counts, and bit for bit after a stop."""

import numpy as np
import pytest
import torch

from understudy.contracts import Batch, Knowledge
from understudy.data.loaders import MemoryLoader
from understudy.data.packing import Encoded, pack
from understudy.deployed.sampling import Sampling
from understudy.engine import OnPolicy, Writing, fit
from understudy.engine.keeper import CHECKPOINT
from understudy.errors import ModelError, TrainingError
from understudy.losses import HardLabel, ReverseKL
from understudy.models import GPT
from understudy.objective import Term
from understudy.objective.vocabulary import VocabularyObjective
from understudy.recipe import Schedule, Training
from understudy.tasks.language_model import LanguageModel

END, VOCABULARY, CONTEXT = 0, 17, 12
TASK = LanguageModel(vocabulary=VOCABULARY, end=END, special=(END,))
NOW = {"epoch": 0.0, "epochs": 4}


def gpt(seed=0, dropout=0.2, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = {"dim": 16, "depth": 2, "heads": 2} | sizes
        return GPT(vocabulary=VOCABULARY, context=CONTEXT, end=END, dropout=dropout, **shape)


def packed():
    """Documents with a prompt that is not learned."""
    draw = np.random.default_rng(3)
    documents = []
    for _ in range(16):
        tokens = draw.integers(1, VOCABULARY, 9).astype(np.int32)
        learned = np.arange(9) >= 3
        documents.append(Encoded(tokens=tokens, bytes=np.ones(9, np.int32), learned=learned))
    return pack(documents, context=CONTEXT, end=END, whole=True)


ROWS = packed()


def loader():
    labels = torch.from_numpy(ROWS.labels).long()
    return MemoryLoader(
        inputs=torch.from_numpy(ROWS.tokens).long(), labels=labels, counted=labels >= 0,
        ids=torch.arange(len(ROWS)), positions=np.arange(len(ROWS)), batch_size=4, seed=2,
    )  # fmt: skip


class Live:
    """A teacher that is asked for whatever there is, and remembers it."""

    def __init__(self):
        self.model, self.asked = gpt(seed=9, dropout=0.0).eval(), []

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"logits"})

    def __call__(self, batch: Batch) -> Knowledge:
        self.asked.append(batch)
        with torch.no_grad():
            return Knowledge(fields={"logits": self.model(batch.inputs)})


def objective():
    terms = [
        Term(name="reverse_kl", loss=ReverseKL(), reads="logits", needs=("logits",)),
        Term(name="hard_label", loss=HardLabel(), reads="logits", labels=True),
    ]
    return VocabularyObjective(terms, task=TASK, offers=frozenset({"logits"}))


def taught(settings=None, *, folder=None, seed=5, epochs=3, stop=None):
    student, teacher = gpt(), Live()
    writing = None if settings is None else Writing(settings, seed=seed)

    def on_step(done):
        if done == stop:
            raise KeyboardInterrupt

    training = Training(epochs=epochs, batch_size=4, choose="last", checkpoint_seconds=0.0)
    fitted = None
    try:
        fitted = fit(
            student=student, objective=objective(), teacher=teacher, training=training,
            loader=loader(), validation=None, validate=None, seed=seed, writing=writing,
            folder=folder, on_step=on_step,
        )  # fmt: skip
    except KeyboardInterrupt:
        assert stop is not None
    return student.state_dict(), teacher, writing, fitted


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def batch():
    return next(iter(loader()))


def test_a_share_of_nothing_is_plain_training_exactly_and_all_is_none_of_it():
    plain, teacher, _, _ = taught()
    none, _, writing, _ = taught(OnPolicy(share=0.0))
    assert equal(plain, none)
    assert writing.counts == {"given": 12, "written": 0, "replayed": 0}
    every, asked, writing, _ = taught(OnPolicy(share=1.0, most=4))
    assert not equal(plain, every)
    assert writing.counts == {"given": 0, "written": 12, "replayed": 0}
    assert len(teacher.asked) == len(asked.asked) == 12
    assert all(one.ids is None for one in asked.asked)
    _, _, writing, _ = taught(OnPolicy(share=0.5, most=4), epochs=10)
    assert 10 < writing.counts["written"] < 30
    assert sum(writing.counts.values()) == 40


def test_a_buffer_of_one_that_is_always_refreshed_is_no_buffer():
    fresh, *_ = taught(OnPolicy(share=1.0, most=4))
    kept, _, writing, _ = taught(OnPolicy(share=1.0, most=4, buffer=1, refresh=1.0))
    assert equal(fresh, kept)
    assert writing.counts["replayed"] == 0
    assert len(writing.state()["tokens"]) == 1


def test_what_is_written_is_a_function_of_seed_and_step_and_disturbs_nothing(batch):
    student = gpt()
    student.train()
    student.blocks[0].eval()
    modes = [module.training for module in student.modules()]
    state = torch.get_rng_state()
    settings = OnPolicy(share=1.0, most=5)
    texts = Writing(settings, seed=1).write(student, batch, step=7)
    again = Writing(settings, seed=1).write(student, batch, step=7)
    assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(texts, again, strict=True))
    others = [
        Writing(settings, seed=seed).write(student, batch, step=step)
        for seed, step in ((1, 8), (2, 7))
    ]
    for other in others:
        assert any(
            len(a.tokens) != len(b.tokens) or not torch.equal(a.tokens, b.tokens)
            for a, b in zip(texts, other, strict=True)
        )
    assert [module.training for module in student.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    # Dropout does not write along: a student in evaluation mode writes the same.
    resting = Writing(settings, seed=1).write(gpt().eval(), batch, step=7)
    assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(texts, resting, strict=True))
    assert all(parameter.grad is None for parameter in student.parameters())


def test_it_begins_with_the_rows_prompts_and_only_what_follows_counts(batch):
    likeliest = OnPolicy(share=1.0, most=5, sampling=Sampling(temperature=1e-4))
    student = gpt(dropout=0.0)
    made = Writing(likeliest, seed=1).batch(student, batch, step=0, **NOW)
    assert made.ids is None
    assert int(made.labels.max()) == -1
    for row, (tokens, counts) in enumerate(zip(made.inputs, made.positions, strict=True)):
        # Three tokens are a prompt, of which the last says the first that is learned.
        assert torch.equal(tokens[:3], batch.inputs[row, :3])
        places = counts.nonzero()[:, 0]
        assert int(places[0]) == 2
        length = int(places[-1]) + 2
        assert length == 8 or int(tokens[length - 1]) == END
        with torch.no_grad():
            likely = student(tokens[None, : length - 1])[0].argmax(dim=1)
        assert torch.equal(likely[2:], tokens[3:length])
        assert int(counts[length - 1 :].sum()) == 0


def test_what_was_the_prompt_and_what_fills_up_does_not_matter(batch):
    made = Writing(OnPolicy(share=1.0, most=5), seed=1).batch(gpt(), batch, step=0, **NOW)
    student, teacher = gpt(dropout=0.0).double(), gpt(seed=9, dropout=0.0).double()
    from understudy.objective.vocabulary import spoken

    loss = objective()(
        spoken(student, made.inputs), Knowledge(fields={"logits": teacher(made.inputs).detach()}),
        made, **NOW,
    ).loss  # fmt: skip
    own, goal = (model(made.inputs)[made.positions].log_softmax(-1) for model in (student, teacher))
    torch.testing.assert_close(loss, (own.exp() * (own - goal)).sum(-1).mean())


def test_a_longer_prompt_goes_on_from_more_of_the_row(batch):
    made = Writing(OnPolicy(share=1.0, most=3, prompt=6), seed=1).batch(gpt(), batch, step=0, **NOW)
    assert torch.equal(made.inputs[:, :6], batch.inputs[:, :6])
    assert made.positions[:, :5].sum() == 0
    assert bool(made.positions[:, 5].all())


def rows_of(*rows):
    """A batch of rows that learn every token but the first of another text, as they are packed."""
    tokens = torch.tensor(rows)
    labels = tokens.roll(-1, dims=1)
    labels[:, -1] = -1
    return Batch(inputs=tokens, labels=labels.masked_fill(tokens == END, -1))


def prompts_of(batch, *, student=None, **settings):
    writing = Writing(OnPolicy(share=1.0, most=2, **settings), seed=1)
    texts = writing.write(student or gpt(), batch, step=0)
    return [text.tokens[: text.prompt].tolist() for text in texts]


def test_no_text_goes_on_behind_the_end_of_another():
    batch = rows_of(
        [3, 4, 5, END, 6, 7, 8, 9],  # lengthened over the end of the first text
        [END, 6, 7, 8, 9, 10, 11, 12],  # the end of a text of the row before
        [END, END, 6, 7, END, 8, 9, END],
        [3, 4, 5, 6, 7, 8, 9, END],
        [3, END, END, END, END, END, END, END],
        [END, END, END, END, END, END, END, END],  # nothing to go on from
    )
    long = [[3, 4, 5], [6, 7, 8, 9, 10], [6, 7], [3, 4, 5, 6, 7], [3]]
    assert prompts_of(batch, prompt=5) == long
    assert prompts_of(batch) == [[3], [6], [6], [3], [3]]
    # A prompt and its completion behind the end of another text, of which nothing is learned.
    batch = Batch(inputs=batch.inputs[:1], labels=torch.full((1, 8), -1))
    batch.labels[0, 5:7] = torch.tensor([8, 9])
    assert prompts_of(batch) == [[6, 7]]
    # Where only the beginning of a text divides, its end may stand in a conversation's prompt.
    student = gpt()
    student.begin, student.end, student.stop = 2, None, (END, 2)
    labels = torch.full((2, 8), -1)
    labels[0, 5:7], labels[1, 2:7] = 1, 1
    batch = Batch(
        inputs=torch.tensor([[2, 4, END, 5, 6, 7, 8, 9], [END, 2, 6, 7, END, 2, 8, 9]]),
        labels=labels,
    )
    assert prompts_of(batch, student=student) == [[2, 4, END, 5, 6, 7], [2, 6]]
    assert prompts_of(batch, student=student, prompt=6)[1] == [2, 6, 7]


def test_a_batch_without_any_beginning_stays_as_it_is():
    nothing = rows_of([END] * 6, [END] * 6)
    writing = Writing(OnPolicy(share=1.0, most=2, buffer=4, refresh=0.5), seed=1)
    assert writing.batch(gpt(), nothing, step=0, **NOW) is nothing
    assert writing.counts == {"given": 1, "written": 0, "replayed": 0}


def test_a_buffer_with_less_room_than_a_batch_is_replayed_as_it_is(batch):
    writing = Writing(OnPolicy(share=1.0, most=4, buffer=2, refresh=0.0), seed=3)
    student = gpt()
    first = writing.batch(student, batch, step=0, **NOW)
    again = writing.batch(student, batch, step=1, **NOW)
    assert writing.counts == {"given": 0, "written": 1, "replayed": 1}
    assert len(again) == 2
    texts = [row[: int(c.nonzero()[-1]) + 2].tolist() for row, c in zip(
        first.inputs, first.positions, strict=True)]  # fmt: skip
    kept = [text.tolist() for text in writing.state()["tokens"]]
    assert kept == texts[-2:]
    for row, counts in zip(again.inputs, again.positions, strict=True):
        assert row[: int(counts.nonzero()[-1]) + 2].tolist() in kept


def test_the_buffer_gives_what_was_written_before_and_forgets_the_oldest(batch):
    writing = Writing(OnPolicy(share=1.0, most=4, buffer=6, refresh=0.5), seed=3)
    written, student = [], gpt()
    for step in range(30):
        before = writing.counts["replayed"]
        made = writing.batch(student, batch, step=step, **NOW)
        texts = [row[: int(c.nonzero()[-1]) + 2].tolist() for row, c in zip(
            made.inputs, made.positions, strict=True)]  # fmt: skip
        if writing.counts["replayed"] > before:
            assert all(text in written[-6:] for text in texts)
        else:
            written += texts
    assert len(writing.state()["tokens"]) == 6
    assert 8 < writing.counts["replayed"] < 22


def test_a_schedule_moves_the_share_over_the_training(batch):
    rising = OnPolicy(share=Schedule(start=0.0, end=1.0), most=1)
    writing = Writing(rising, seed=0)
    for step in range(40):
        writing.batch(gpt(), batch, step=step, epoch=0.0, epochs=4)
    assert writing.counts["written"] == 0
    for step in range(40):
        writing.batch(gpt(), batch, step=step, epoch=4.0, epochs=4)
    assert writing.counts["written"] == 40


def test_a_training_that_was_stopped_goes_on_with_its_buffer_bit_for_bit(tmp_path):
    settings = OnPolicy(share=0.7, most=4, buffer=8, refresh=0.4)
    whole, _, one, _ = taught(settings, folder=tmp_path / "whole", epochs=4)
    taught(settings, folder=tmp_path / "stopped", epochs=4, stop=10)
    assert (tmp_path / "stopped" / CHECKPOINT).is_file()
    again, _, two, _ = taught(settings, folder=tmp_path / "stopped", epochs=4)
    assert equal(whole, again)
    assert one.counts == two.counts
    assert one.counts["replayed"] > 0
    for mine, other in zip(one.state()["tokens"], two.state()["tokens"], strict=True):
        assert torch.equal(mine, other)


def test_numbers_out_of_range_and_models_that_do_not_write_are_refused(batch):
    for wrong, law in (
        ({"share": 1.2}, "probability must be 0 to 1, but got 1.2"),
        ({"share": Schedule(start=0.0, end=3.0)}, "but got 3"),
        ({"share": 0.5, "most": 0}, "`most >= 1`"),
        ({"share": 0.5, "refresh": 0.5}, "give `buffer`"),
    ):
        with pytest.raises(ValueError, match=law):
            OnPolicy(**wrong)
    writing = Writing(OnPolicy(share=1.0), seed=0)
    with pytest.raises(ModelError, match="written by a causal language model, but the student is"):
        writing.batch(torch.nn.Linear(2, 2), batch, step=0, **NOW)
    with pytest.raises(ModelError, match="a label per position"):
        writing.batch(gpt(), Batch(inputs=batch.inputs), step=0, **NOW)


def test_several_processes_do_not_write_together(monkeypatch):
    import lightning.pytorch as lightning

    monkeypatch.setattr(lightning.Trainer, "world_size", property(lambda self: 2))
    with pytest.raises(TrainingError, match="written by one process, but there are 2"):
        taught(OnPolicy(share=0.5))
    taught(epochs=1, stop=1)
