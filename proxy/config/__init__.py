"""Configuration: settings models, presets, loading, validation and its messages."""
