"""How the tokens of one picture sequence are spread over ranks; the model asks a group and knows no ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Attention(Protocol):
    """A kernel for softmax attention of q [tokens, heads, head_dim] to k, v [keys, heads, head_dim], without a mask."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[tokens, heads, head_dim]."""
        ...

    def with_lse(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the log-sum-exp [tokens, heads] of the logits in float32 or wider."""
        ...


class SequenceGroup(Protocol):
    """The ranks that share one sequence of tokens. Every rank calls the same methods in the same order."""

    @property
    def rank(self) -> int:
        """This rank's number, 0 to size - 1."""
        ...

    @property
    def size(self) -> int:
        """How many ranks there are."""
        ...

    @property
    def is_capturable(self) -> bool:
        """Whether a CUDA graph can hold this group's collectives."""
        ...

    def token_range(self, tokens: int) -> tuple[int, int]:
        """First and one past the last of this rank's rows, of `tokens` in all; padding at the end reaches beyond."""
        ...

    def shard(self, x: Tensor) -> Tensor:
        """This rank's rows of `x` [tokens, ...], zeros where they are padding."""
        ...

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        """All rows [tokens, ...] from every rank's [its tokens, ...], on every rank."""
        ...

    def share(self, owner: int, make: Callable[[], tuple[Tensor, ...]], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What rank `owner` makes, on every rank; `like` has its shapes and dtypes and may be overwritten."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attention: Attention) -> Tensor:
        """Attention of this rank's queries [its tokens, heads, head_dim] to the keys of all ranks."""
        ...


class LocalGroup:
    """The group of one: everything is here already."""

    rank = 0
    size = 1
    is_capturable = True

    def token_range(self, tokens: int) -> tuple[int, int]:
        """All of them."""
        return 0, tokens

    def shard(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        """`x` itself."""
        return x

    def share(self, owner: int, make: Callable[[], tuple[Tensor, ...]], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Made here."""
        return make()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attention: Attention) -> Tensor:
        """Plain attention."""
        return attention(q, k, v)
