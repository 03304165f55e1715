"""`emm audit`: how much of a set of images is copied from another one; needs no sweep at all.

From here are imported `compare.audit`, `words.lines`, `page.write_page` and `table.write_table`.
"""
