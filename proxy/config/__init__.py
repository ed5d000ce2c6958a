"""The YAML: models of the settings, presets, loading, validation and its messages."""
