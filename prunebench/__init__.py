"""prunebench: prune BERT-family language models, from one line of config to a verified sparse model."""

__version__ = "0.1.0"
