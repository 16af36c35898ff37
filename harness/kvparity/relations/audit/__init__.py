"""What compiled kernels say about their reduction order, read without running them.

``contract.audit_contract`` is the way in. ``request`` says what to compile, ``compile`` and
``worker`` do it in processes of their own, ``ttgir``, ``ptx`` (with ``cfg``, ``flow``, ``chains``)
and ``sass`` each read one artefact, ``signature`` puts together what they saw, ``compare`` holds
two sides against each other, ``words`` says what the answer means and what it cannot prove.
"""
