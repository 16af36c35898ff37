"""Where two paths of a subject part: the operations whose results differ although their inputs do
not (births), and whether putting these right makes everything equal.
"""
