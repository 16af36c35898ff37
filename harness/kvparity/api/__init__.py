"""What Python code calls: the verbs of the command line as functions, with typed results.

Imported lazily: ``import kvparity`` imports no torch.
"""
