"""Arms and their seed replicates: trials that are listed, not proposed."""

from harness.ablate.replicates import Replicates

__all__ = ["Replicates"]
