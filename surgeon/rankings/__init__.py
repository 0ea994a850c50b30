"""Ways to say how much an expert matters: one file a method, one protocol (`base`), all listed in `METHODS`."""

from typing import Final

from surgeon.rankings.aimer import Aimer
from surgeon.rankings.base import Ranking
from surgeon.rankings.ean import Ean
from surgeon.rankings.easy_ep import EasyEp
from surgeon.rankings.frequency import Frequency
from surgeon.rankings.random import Random
from surgeon.rankings.reap import Reap
from surgeon.rankings.soft_activation import SoftActivation
from surgeon.rankings.weighted_ean import WeightedEan

METHODS: Final[dict[str, Ranking]] = {
    method.name: method
    for method in (Random(), Frequency(), SoftActivation(), Ean(), WeightedEan(), Reap(), EasyEp(), Aimer())
}
