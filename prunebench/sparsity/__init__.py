"""Which weights to keep: criteria score them, scopes share the budget, patterns tie weights together.

Nothing heavy is imported here: `axes`, `counts` and `registry` work without torch.
"""
