"""Running studies: on Ray or in this process, with the same calls and the same journals.

Names are loaded at their first use: `harness watch` shares this room, and needs nothing of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.run.launch import check_folder, execute, run_ablation, run_replicates, run_search
    from harness.run.study import Resources, Study

__all__ = ["Resources", "Study", "check_folder", "execute", "run_ablation", "run_replicates", "run_search"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "study" if name in ("Resources", "Study") else "launch"
    return getattr(import_module(f"{__name__}.{home}"), name)
