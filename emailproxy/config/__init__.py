"""Configuration: INI text to frozen models, and back."""
