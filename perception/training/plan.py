"""Which batches a process of the training gets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plan:
    """Batches of `batch_size` samples, of which the ranks take turns: rank r gets samples r, r + world_size, ... of each.

    batch_size  of all ranks together, a multiple of world_size; so a batch is the same for any number of ranks
    seed        of all that is random
    first_step  the batch that will be asked for first
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    seed: int = 0
    first_step: int = 0

    @property
    def share(self) -> int:
        """Samples of a batch that are this rank's."""
        return self.batch_size // self.world_size

    def own(self, batch: Sequence[int]) -> list[int]:
        """This rank's part of a whole batch."""
        return list(batch[self.rank :: self.world_size])


def draw(fresh: Sequence[int], old: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """`count` numbers in random order: each fresh one, and for the rest old ones, none of them again before all have come.

    fresh  `count` or fewer; where there are no old ones, these come again
    """
    population = np.array(old if len(old) else fresh, dtype=np.int64)
    drawn, wanted = [np.array(fresh, dtype=np.int64)], count - len(fresh)
    while wanted > 0:
        drawn.append(rng.permutation(population)[:wanted])
        wanted -= len(drawn[-1])
    return rng.permutation(np.concatenate(drawn)).tolist()
