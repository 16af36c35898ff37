"""``kvparity demo``: a trained model that a package brings, its decode against its prefill."""
