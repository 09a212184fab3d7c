"""The folder of an export: verified model files, ``export.json``, a model card, examples that run."""
