"""The command line of a Raglan mesh."""
