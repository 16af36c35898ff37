"""Running servers of vLLM and SGLang: tokens drawn and scored by ids over HTTP."""
