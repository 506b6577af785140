"""The exceptions people meet: one message each, that gives the value, the rule and the fix.

HarnessError               exit code 2: bad input, nothing was started
 ├── ConfigError           a field, a YAML file, an override, a search space
 ├── DataError             a frame folder, an image, a mask, a taxonomy
 ├── ModelError            a backbone, its weights, an input size
 ├── StudyError            a study or run folder, resources
 └── TrainingError         exit code 3: a training that started and went wrong
      ├── NonFiniteLoss    the loss became inf or nan
      ├── OutOfMemory      the GPU or the host has too little memory for a trial
      └── StorageError     a file of a study cannot be written; no trial can help that
           └── DiskFull    there is no room for it
"""


def first_line(error: BaseException) -> str:
    """What an error says in one line; one that says nothing is named by its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class HarnessError(Exception):
    """What was given, the rule it breaks, and the fix, in one message."""

    exit_code = 2


class ConfigError(HarnessError):
    """A field, a YAML file, an override or a search space that breaks a rule."""


class DataError(HarnessError):
    """A frame folder, an image, a mask or a taxonomy that breaks a rule."""


class ModelError(HarnessError):
    """A backbone, its weights or an input size that cannot be built."""


class StudyError(HarnessError):
    """A study or run folder, or resources, that cannot be used as asked."""


class TrainingError(HarnessError):
    """A training that started and went wrong."""

    exit_code = 3


class NonFiniteLoss(TrainingError):
    """The loss became inf or nan; the message names the step and each term's value."""


class OutOfMemory(TrainingError):
    """A GPU or its host has too little memory for a trial; the message names the settings that need less."""


class StorageError(TrainingError):
    """A file of a study cannot be written; the message names its folder and what the system says."""


class DiskFull(StorageError):
    """A file found no room; the message names its folder and what is free there."""
