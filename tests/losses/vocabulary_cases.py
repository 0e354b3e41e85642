"""A student, teachers in every form, and the divergences from their definitions."""

import torch

from losses.lists import top
from understudy.losses.vocabulary import (
    Blend,
    DenseLabels,
    Forward,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    Pieces,
    Reverse,
    Skew,
)

TOKENS, OWN, THEIRS, VOCABULARY, K = 7, 5, 6, 23, 4


KINDS = (Forward(), Reverse(), Blend(beta=0.3), Skew(skew=0.2), Skew(skew=0.2, direction="reverse"))


FORMS = ("hidden", "dense", "listed")


PIECES = (
    Pieces(tokens=3, columns=5),
    Pieces(tokens=3, columns=5, keep=False),
    Pieces(tokens=64, columns=64),
)


def drawn(*shape, seed=0, scale=1.0):
    generator = torch.Generator("cpu").manual_seed(seed)
    numbers = torch.randn(*shape, dtype=torch.float64, generator=generator, device="cpu")
    return scale * numbers.to(torch.get_default_device())


def student(vocabulary=VOCABULARY, bias=True, scale=1.0, soft_cap=None, seed=0):
    """Hidden states and a head, all with a gradient."""
    hidden = drawn(TOKENS, OWN, seed=seed).requires_grad_()
    weight = drawn(vocabulary, OWN, seed=seed + 1).requires_grad_()
    offset = drawn(vocabulary, seed=seed + 2).requires_grad_() if bias else None
    return hidden, LinearHead(weight=weight, bias=offset, scale=scale, soft_cap=soft_cap)


def logits_of(hidden, head):
    """The whole matrix, from the definition."""
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = head.scale * logits
    return logits if head.soft_cap is None else head.soft_cap * (logits / head.soft_cap).tanh()


def told(form, vocabulary=VOCABULARY, k=K, seed=10):
    """The teacher's logits, and its labels in one form."""
    head = LinearHead(
        weight=drawn(vocabulary, THEIRS, seed=seed),
        bias=drawn(vocabulary, seed=seed + 1),
        scale=0.7,
        soft_cap=4.0,
    )
    hidden = drawn(TOKENS, THEIRS, seed=seed + 2)
    logits = logits_of(hidden, head)
    if form == "hidden":
        return logits, HiddenLabels(hidden=hidden, head=head)
    if form == "dense":
        return logits, DenseLabels(logits=logits.log_softmax(1))
    ids, log_mass, rest = top(logits, k)
    ids = torch.cat([ids, torch.full((TOKENS, 1), -1)], dim=1)
    log_mass = torch.cat([log_mass, torch.full((TOKENS, 1), -torch.inf).double()], dim=1)
    return logits, ListedLabels(ids=ids, log_mass=log_mass, rest=rest)


def divergence_of(kind, p, q):
    """Per token, of probabilities, as the papers write it."""

    def kl(a, b):
        return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(dim=1)

    if kind == Forward():
        return kl(p, q)
    if kind == Reverse():
        return kl(q, p)
    if isinstance(kind, Blend):
        middle = kind.beta * p + (1 - kind.beta) * q
        return kind.beta * kl(p, middle) + (1 - kind.beta) * kl(q, middle)
    first, second = (p, q) if kind.direction == "forward" else (q, p)
    return kl(first, kind.skew * first + (1 - kind.skew) * second)


def merged(chances, labels):
    """Probabilities of the listed outcomes and of all others together."""
    rows = []
    for row, ids in zip(chances, labels.ids, strict=True):
        listed = ids[ids >= 0]
        others = torch.ones(len(row), dtype=torch.bool)
        others[listed] = False
        rows.append(torch.cat([row[listed], row[others].sum()[None]]))
    return torch.stack(rows)


def softened_list(labels, vocabulary, temperature):
    rows = []
    for ids, log_mass, rest in zip(labels.ids, labels.log_mass, labels.rest, strict=True):
        others = vocabulary - int((ids >= 0).sum())
        bucket = others * (rest.exp() / max(others, 1)) ** (1 / temperature)
        mass = torch.cat([log_mass[ids >= 0].exp() ** (1 / temperature), bucket[None]])
        rows.append(mass / mass.sum())
    return torch.stack(rows)


def expected(hidden, head, labels, logits, kind, temperature, width=VOCABULARY):
    """The divergence of each token times T², by plain means."""
    q = (logits_of(hidden, head)[:, :width] / temperature).softmax(1)
    if isinstance(labels, ListedLabels):
        q = merged(q, labels)
        p = softened_list(labels, width, temperature)
    else:
        p = (logits[:, :width] / temperature).softmax(1)
    return temperature**2 * divergence_of(kind, p, q)


def gradients(loss, hidden, head):
    leaves = [x for x in (hidden, head.weight, head.bias) if x is not None]
    return torch.autograd.grad(loss, leaves, retain_graph=True)


def agree(got, wanted, hidden, head):
    """The same value, and the same gradients."""
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)
    for mine, reference in zip(
        gradients(got, hidden, head), gradients(wanted, hidden, head), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-10)
