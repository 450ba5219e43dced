"""What every Raglan service shares: contracts, errors, settings, transport and telemetry."""

__version__ = "0.1.0"
