"""What a machine has and lacks for this harness, asked before anything is trained; it needs no library to work."""

from harness.doctor.check import Check
from harness.doctor.examine import examine

__all__ = ["Check", "examine"]
