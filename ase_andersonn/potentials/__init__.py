"""Networks of atoms whose features are at a fixed point; they know neither solver nor evaluator."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .attention_config import DEQAttentionConfig
    from .base import EnergyModel
    from .committee import Committee
    from .deq_attention import DEQAttention
    from .deq_cartesian import DEQCartesian, DEQCartesianConfig
    from .interface import Potential

__all__ = [
    "Committee",
    "DEQAttention",
    "DEQAttentionConfig",
    "DEQCartesian",
    "DEQCartesianConfig",
    "EnergyModel",
    "Potential",
]

_HOMES = {
    "Committee": ".committee",
    "DEQAttention": ".deq_attention",
    "DEQAttentionConfig": ".attention_config",
    **dict.fromkeys(("DEQCartesian", "DEQCartesianConfig"), ".deq_cartesian"),
    "EnergyModel": ".base",
    "Potential": ".interface",
}
__getattr__ = lazy_names(__name__, _HOMES)
