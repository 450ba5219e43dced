"""Number of names in the contracts; written by make proto."""

REVISION = 762
