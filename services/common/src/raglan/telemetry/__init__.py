"""Request identity and OpenTelemetry context, as they pass from hop to hop."""
