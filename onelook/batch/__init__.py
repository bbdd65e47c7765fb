"""Many pictures at once on Ray Data: from one laptop to a cluster. Needs the extra "batch".

`sources` lists the pictures, `stages` is what happens to each, `pipeline` spreads the stages over
the machines, `results` keeps the rows. Only `pipeline` knows Ray.
"""
