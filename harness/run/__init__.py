"""Running studies: on Ray or in this process, with the same calls and the same journals."""

from harness.run.launch import check_folder, execute, run_ablation, run_replicates, run_search
from harness.run.study import Resources, Study

__all__ = ["Resources", "Study", "check_folder", "execute", "run_ablation", "run_replicates", "run_search"]
