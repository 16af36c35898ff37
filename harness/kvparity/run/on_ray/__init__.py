"""A verification whose tasks are computed by the nodes of a Ray cluster.

The driver, which is the process of the command, plans, writes all evidence and judges. Nodes
compute, and send lines and files. Ray itself is imported here alone, and only once it is asked for.
"""
