"""Sources: places outside that documents are read from on a schedule."""
